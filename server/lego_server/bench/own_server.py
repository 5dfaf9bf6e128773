"""A server for the time of a measurement, in a process of its own so that the load does not slow it down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from lego_core.errors import LegoError

_STOP_SECONDS = 20.0


@asynccontextmanager
async def own_server(options: Sequence[str]) -> AsyncIterator[str]:
    """Starts `lego-server serve` on a free port; yields HOST:PORT, and stops it whatever happens.

    Args:
        options: Of `serve`.

    Raises:
        LegoError: It does not start; the message has its last words.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lego_server", "serve", "--host", "127.0.0.1", "--port", "0", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the load; the server is stopped when that has ended
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    words: list[str] = []

    async def listen(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            words.append(line.decode(errors="replace").strip())
            del words[:-20]

    listening = asyncio.create_task(listen(process.stderr))
    try:
        line = (await process.stdout.readline()).decode()
        if not line.startswith("listening on "):
            await listening
            raise LegoError(f"the server did not start: {words[-1] if words else 'it said nothing'}")
        yield line.split()[-1]
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        listening.cancel()
