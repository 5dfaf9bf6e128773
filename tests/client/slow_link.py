"""A link between client and server that carries so many bytes a second upwards, and takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Self

_CHUNK = 2048


class SlowLink:
    """Passes on what a client sends, slowly. Use it as `async with SlowLink(server.target, 100_000) as link`.

    Attributes:
        bytes_per_second: Upwards; may be changed while it runs.
        delay: Seconds each way, besides.
        target: Where the client finds it.
        carried: Bytes passed on upwards so far.
    """

    def __init__(self, server: str, bytes_per_second: float, delay: float = 0.0) -> None:
        self.bytes_per_second = bytes_per_second
        self.delay = delay
        self.target = ""
        self.carried = 0
        self._host, _, self._port = server.rpartition(":")
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)  # or the system would carry much at once
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._carry, sock=listening, limit=_CHUNK)
        self.target = f"127.0.0.1:{listening.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, int(self._port))
        for task in (
            asyncio.create_task(self._pass_on(reader, up_writer, lambda size: size / self.bytes_per_second)),
            asyncio.create_task(self._pass_on(up_reader, writer, lambda size: 0.0)),
        ):
            self._tasks.add(task)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: Callable[[int], float]
    ) -> None:
        clock = asyncio.get_running_loop()
        free = clock.time()
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                free = max(free, clock.time()) + seconds(len(data))
                await asyncio.sleep(free - clock.time())
                if seconds(1):
                    self.carried += len(data)
                clock.call_later(self.delay, writer.write, data)
        clock.call_later(self.delay, writer.close)
