"""A server for the time of a measurement, in a process of its own so that the load does not slow it down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
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
    command = [sys.executable, "-m", "lego_server", "serve", "--host", "127.0.0.1", "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log:
        # A session of its own: Ctrl-C is for the load, and the server is stopped when that has ended.
        process = subprocess.Popen(  # noqa: S603, ASYNC220 (our own command; starting it takes a millisecond)
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        assert process.stdout is not None
        try:
            line = await asyncio.to_thread(process.stdout.readline)
            if not line.startswith("listening on "):
                log.seek(0)
                words = log.read().strip().splitlines()
                raise LegoError(f"the server did not start: {words[-1] if words else 'it said nothing'}")
            yield line.split()[-1]
        finally:
            process.terminate()
            await asyncio.to_thread(_end, process)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
