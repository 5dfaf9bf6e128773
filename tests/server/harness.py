"""A real server on a free loopback port, and a client that talks to it the way wearers' devices do."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.server import GuidanceServer
from lego_server.speech.desk import SpeechDesk
from lego_server.telemetry import Telemetry
from PIL import Image


def picture(color: tuple[int, int, int] = (200, 60, 20), size: tuple[int, int] = (160, 90)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


class GuideClient:
    """One `Guide` stream."""

    def __init__(self, stub: guidance_pb2_grpc.GuidanceStub, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.call = stub.Guide(metadata=metadata)

    async def frame(self, frame_id: int = 1, image: bytes | None = None) -> None:
        frame = pb.Frame(frame_id=frame_id, image=picture() if image is None else image)
        await self.write(pb.GuideRequest(frame=frame))

    async def query(self, query_id: int, text: str = "how do I open the drawer", **fields: Any) -> None:
        frame_id = fields.pop("frame_id", None)
        options = pb.GuidanceOptions(**{"seed": 7, **fields})
        query = pb.Query(query_id=query_id, text=text, frame_id=frame_id, options=options)
        await self.write(pb.GuideRequest(query=query))

    async def cancel(self, query_id: int) -> None:
        await self.write(pb.GuideRequest(cancel=pb.Cancel(query_id=query_id)))

    async def write(self, request: pb.GuideRequest) -> None:
        await self.call.write(request)

    async def read(self) -> pb.GuideResponse:
        response = await asyncio.wait_for(self.call.read(), 20)
        assert response is not grpc.aio.EOF, "the stream has ended"
        return response

    async def read_until(self, kind: str) -> list[pb.GuideResponse]:
        """Reads up to and with the next response of a kind."""
        responses = [await self.read()]
        while responses[-1].WhichOneof("message") != kind:
            responses.append(await self.read())
        return responses

    async def result(self) -> pb.GuidanceResult:
        return (await self.read_until("result"))[-1].result

    async def error(self) -> pb.QueryError:
        return (await self.read_until("error"))[-1].error


def check_told_once(responses: Sequence[pb.GuideResponse]) -> None:
    """Checks that nothing was told twice or out of order, and that the pieces make up the description."""
    numbers = [response.sequence for response in responses]
    assert numbers == sorted(set(numbers)), "each message once, in order"
    pieces = [each.description_delta.text for each in responses if each.HasField("description_delta")]
    assert "".join(pieces) == responses[-1].result.description


@dataclass
class RunningServer:
    server: GuidanceServer
    channel: grpc.aio.Channel
    stub: guidance_pb2_grpc.GuidanceStub

    async def open_session(self) -> GuideClient:
        client = GuideClient(self.stub)
        assert (await client.read()).WhichOneof("message") == "session_started"
        return client


def config_of(**values: Any) -> ServerConfig:
    """Returns the defaults with other values, each in the first section that has its key, or as `SECTION__KEY`."""
    config = ServerConfig()
    for name, value in values.items():
        given, _, key = name.rpartition("__")
        section = given or next(name for name, kind in ServerConfig.sections().items() if hasattr(kind(), key))
        config = config.with_values({section: {key: value}})
    return config


@asynccontextmanager
async def running(
    engine: Engine,
    warm: bool = True,
    telemetry: Telemetry | None = None,
    speech: SpeechDesk | None = None,
    **config: Any,
) -> AsyncIterator[RunningServer]:
    settings = config_of(**{"port": 0, "shutdown_seconds": 0.2, **config})
    server = GuidanceServer({engine.manifest.lego.name: engine}, settings, telemetry, speech=speech)
    await server.start()
    try:
        if warm:
            await server.warm_up()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield RunningServer(server, channel, guidance_pb2_grpc.GuidanceStub(channel))
    finally:
        await server.stop()


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (the condition is another thread's)
            await asyncio.sleep(0.005)
