"""A wearer with a browser: WebSockets and plain HTTP to a server's gateway."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.server import GuidanceServer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Response
from websockets.typing import Subprotocol

from tests.server.harness import GuideClient


class WebClient(GuideClient):
    """One `Guide` stream over a WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def write(self, request: pb.GuideRequest) -> None:
        await self.socket.send(request.SerializeToString())

    async def read(self) -> pb.GuideResponse:
        data = await asyncio.wait_for(self.socket.recv(), 20)
        assert isinstance(data, bytes)
        return pb.GuideResponse.FromString(data)

    async def closed(self) -> tuple[int, str]:
        """Reads to the end; returns the close code and reason."""
        try:
            while True:
                await self.read()
        except ConnectionClosed:
            assert self.socket.close_code is not None and self.socket.close_reason is not None
            return self.socket.close_code, self.socket.close_reason

    def cut(self) -> None:
        """Breaks the connection without a word."""
        self.socket.transport.abort()


@asynccontextmanager
async def web_connection(
    server: GuidanceServer, token: str | None = None, subprotocols: Sequence[str] | None = None, **settings: Any
) -> AsyncIterator[WebClient]:
    """Opens a WebSocket as the page does; nothing has been read of it."""
    assert server.gateway is not None
    offered = ["lego.v1", *([f"bearer.{token}"] if token else [])] if subprotocols is None else subprotocols
    url = f"{server.gateway.url.replace('http', 'ws', 1)}guide".replace("127.0.0.1", "localhost")
    async with connect(
        url,
        subprotocols=[Subprotocol(each) for each in offered] or None,
        **{"compression": None, "max_size": None, "proxy": None, **settings},
    ) as socket:
        yield WebClient(socket)


@asynccontextmanager
async def web_session(server: GuidanceServer, token: str | None = None, **settings: Any) -> AsyncIterator[WebClient]:
    """Opens a session."""
    async with web_connection(server, token, **settings) as client:
        assert (await client.read()).WhichOneof("message") == "session_started"
        yield client


async def web_refusal(server: GuidanceServer, token: str | None = None, **settings: Any) -> tuple[int, str]:
    """Opens a WebSocket that must be closed before a session begins; returns the close code and reason."""
    async with web_connection(server, token, **settings) as client:
        with pytest.raises(ConnectionClosed):
            await client.read()
        return await client.closed()


async def handshake_refusal(server: GuidanceServer, **settings: Any) -> Response:
    """Asks for a WebSocket that must be refused outright; returns the answer."""
    with pytest.raises(InvalidStatus) as refused:
        async with web_connection(server, **settings):
            pass
    return refused.value.response


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def http(
    server: GuidanceServer, path: str, *headers: str, method: str = "GET", host: str | None = "localhost",
    tls: ssl.SSLContext | None = None,
) -> Answer:  # fmt: skip
    """Makes a request, to the letter: nothing is put right on the way."""
    assert server.gateway is not None
    name = None if tls is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", server.gateway.port, ssl=tls, server_hostname=name)
    lines = [f"{method} {path} HTTP/1.1", *([] if host is None else [f"Host: {host}"]), *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    data = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    if not data:
        raise ConnectionResetError("there is no answer")
    head, _, body = data.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    parts = (line.partition(": ") for line in rest)
    return Answer(int(first.split()[1]), {name.lower(): value for name, _, value in parts}, body)
