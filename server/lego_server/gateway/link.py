"""A WebSocket as streams see it: one binary message is one protobuf message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lego_proto.v1 import guidance_pb2 as pb
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from lego_server.decoding import strict
from lego_server.failures import Reason, RequestError
from lego_server.refusals import Refusal
from lego_server.wire import milliseconds

CLOSE_SECONDS = 5.0  # for the other end to answer a close
_MAX_REASON_BYTES = 123
_decode = strict(pb.GuideRequest.FromString)


class LiveConnection(ServerConnection):
    """A connection that counts what comes from its other end.

    The library's own keepalive asks for a pong in time, which a client in the middle of sending a frame over a slow
    link cannot give; any byte of the frame is as good a sign of life.

    Attributes:
        heard: How often something has come.
    """

    heard = 0

    def data_received(self, data: bytes) -> None:
        """Notes that there is somebody."""
        self.heard += 1
        super().data_received(data)


class WebLink:
    """A client's connection.

    Attributes:
        requests: What the client says, until its connection closes.
    """

    def __init__(self, connection: LiveConnection) -> None:
        self.requests = self._requests()
        self._connection = connection
        self._sent = 0

    @property
    def parted(self) -> bool:
        """Whether the client has closed with 1000; any other close may be followed by its return."""
        return self._connection.close_code == CloseCode.NORMAL_CLOSURE

    async def send(self, response: pb.GuideResponse) -> None:
        """Sends a message; waits while the client takes in less than it is told.

        Raises:
            ConnectionClosed: The client is gone.
        """
        await self._connection.send(response.SerializeToString())
        self._sent += 1

    async def close(self, code: int, reason: str) -> None:
        """Says why and closes; a client that does not take it in is dropped."""
        discarding = asyncio.create_task(self._discard())  # what was said before the answer to the close
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close(code, reason)
        except TimeoutError:
            self._connection.transport.abort()
        finally:
            discarding.cancel()

    async def drop_when_dead(self, period: float) -> None:
        """Drops the connection once its other end has shown no sign of life for two periods, pinged after the first.

        Args:
            period: In seconds. On a slow link a pong waits behind what is on its way to the client.
        """
        pinged = False
        while True:
            before = self._signs_of_life()
            await asyncio.sleep(period)
            if self._signs_of_life() != before:
                pinged = False
            elif pinged:
                self._connection.transport.abort()
                return
            else:
                pinged = True
                if not self._connection.transport.get_write_buffer_size():  # else what waits there is as good as a ping
                    with contextlib.suppress(ConnectionClosed):
                        await self._connection.ping()

    def _signs_of_life(self) -> tuple[int, int, int]:
        return self._connection.heard, self._sent, self._connection.transport.get_write_buffer_size()

    async def _discard(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._connection.recv()

    async def _requests(self) -> AsyncIterator[pb.GuideRequest]:
        while True:
            try:
                data = await self._connection.recv()
            except ConnectionClosed:
                return
            if isinstance(data, str):
                raise RequestError(Reason.INVALID, "the message is text; send each GuideRequest as one binary message")
            yield _decode(data)


def closing(refusal: Refusal) -> tuple[int, str]:
    """Returns the close code and reason of a refusal: 4000 and gRPC's status; when to come back, then its sentence."""
    number: int = refusal.status.value[0]
    return 4000 + number, _reason(refusal.message, refusal.retry_seconds)


def going_away(error: RequestError) -> tuple[int, str]:
    """Returns the close code and reason of a server that stops."""
    return CloseCode.GOING_AWAY, _reason(str(error), error.retry_after)


def _reason(message: str, retry_seconds: float | None) -> str:
    text = message if retry_seconds is None else f"retry-after-ms={milliseconds(retry_seconds)} {message}"
    data = text.encode()
    if len(data) <= _MAX_REASON_BYTES:
        return text
    return data[: _MAX_REASON_BYTES - 3].decode(errors="ignore") + "…"
