"""A protected server on a free loopback port, clocks that tests set, and calls as a client makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.security.config import SecurityConfig
from lego_server.security.protection import Security
from lego_server.server import GuidanceServer
from lego_server.speech.desk import SpeechDesk

from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, config_of


class Clock:
    """Seconds and the time of day, which pass only when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.began = datetime.now(UTC)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.began + timedelta(seconds=self.seconds - 1000.0)


@asynccontextmanager
async def serving(
    config: SecurityConfig,
    engine: FakeEngine | None = None,
    clock: Clock | None = None,
    speech: SpeechDesk | None = None,
    **limits: Any,
) -> AsyncIterator[GuidanceServer]:
    clock = clock or Clock()
    settings = config_of(**{"port": 0, "shutdown_seconds": 0.1, **limits})
    settings = replace(settings, security=config)
    security = Security(config, settings.hosts, clock, clock.now)
    server = GuidanceServer({"fake": engine or FakeEngine()}, settings, security=security, speech=speech)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def calling(
    server: GuidanceServer, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> AsyncIterator[guidance_pb2_grpc.GuidanceStub]:
    """Gives a stub on a connection of its own."""
    target = f"localhost:{server.port}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    if ca is None:
        channel = grpc.aio.insecure_channel(target, options=options)
    else:
        read = [None if path is None else path.read_bytes() for path in (ca, key, cert)]
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(*read), options=options)
    async with channel:
        yield guidance_pb2_grpc.GuidanceStub(channel)


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def info(stub: guidance_pb2_grpc.GuidanceStub, token: str | None = None) -> pb.ServerInfo:
    metadata = None if token is None else bearing(token)
    return await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=metadata, timeout=10)


async def refusal(stub: guidance_pb2_grpc.GuidanceStub, token: str | None = None) -> grpc.aio.AioRpcError:
    """Makes a call that must be refused; returns how it was."""
    try:
        await info(stub, token)
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was served")


def retry_ms(error: grpc.aio.AioRpcError) -> int:
    return int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])


async def open_session(stub: guidance_pb2_grpc.GuidanceStub, token: str | None = None) -> GuideClient:
    """Opens a `Guide` stream."""
    client = GuideClient(stub, bearing(token) if token else ())
    assert (await client.read()).WhichOneof("message") == "session_started"
    return client
