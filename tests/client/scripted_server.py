"""A real gRPC guidance server that answers by script: the client's tests talk to it over a real connection."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import grpc.aio
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc as pb_grpc
from PIL import Image, ImageOps

PIECES = ("The left hand ", "pulls the drawer ", "open.")


@dataclass
class Script:
    """How the server behaves, and what it has received and done.

    Attributes:
        info: Its answer to GetServerInfo.
        steps: Denoising steps where the query names none.
        step_seconds: How long each takes.
        error: Answer every query with this instead.
        refuse_frames: Refuse every frame with this message; queries about them fail with CODE_NO_FRAME.
        dies_at_step: Break the connection there.
        refuse_session: Refuse every stream as unavailable, in these words.
        answers: Whether the stream is served at all.
        garbage_picture: Send bytes that are no picture as the guidance frame.
    """

    info: pb.ServerInfo = field(
        default_factory=lambda: pb.ServerInfo(
            model_name="scripted", model_version="scripted-0123456789ab", engine="script", resolution=256,
            max_steps=100,
            max_image_bytes=1_000_000, max_image_pixels=2_000_000, max_query_characters=200,
            defaults=pb.GuidanceOptions(
                steps=4, text_scale=7.5, image_scale=1.5, sampler=pb.SAMPLER_EULER_ANCESTRAL, jpeg_quality=90
            ),
            notice="This model knows a toy kitchen only.",
        )
    )  # fmt: skip
    steps: int = 4
    step_seconds: float = 0.0
    error: pb.QueryError | None = None
    refuse_frames: str = ""
    dies_at_step: int | None = None
    refuse_session: str = ""
    answers: bool = True
    garbage_picture: bool = False
    frames: dict[int, bytes] = field(default_factory=dict)
    queries: list[pb.Query] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    steps_done: int = 0
    working: asyncio.Event = field(default_factory=asyncio.Event)


class ScriptedGuidance(pb_grpc.GuidanceServicer):
    """The service."""

    def __init__(self, script: Script) -> None:
        self.script = script

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: object) -> pb.ServerInfo:
        return self.script.info

    async def Guide(
        self, requests: AsyncIterator[pb.GuideRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GuideResponse]:
        if self.script.refuse_session:
            await context.abort(grpc.StatusCode.UNAVAILABLE, self.script.refuse_session)
        if not self.script.answers:
            await asyncio.sleep(60)
        yield pb.GuideResponse(session_started=pb.SessionStarted(session_id="session-1", server=self.script.info))
        out: asyncio.Queue[pb.GuideResponse | None] = asyncio.Queue()
        receiving = asyncio.create_task(self._receive(requests, out, context))
        try:
            while (response := await out.get()) is not None:
                yield response
        finally:
            receiving.cancel()

    async def _receive(
        self,
        requests: AsyncIterator[pb.GuideRequest],
        out: asyncio.Queue[pb.GuideResponse | None],
        context: grpc.aio.ServicerContext,
    ) -> None:
        script = self.script
        running: dict[int, asyncio.Task[None]] = {}
        async for request in requests:
            match request.WhichOneof("message"):
                case "frame" if script.refuse_frames:
                    error = pb.QueryError(code=pb.QueryError.CODE_INVALID, message=script.refuse_frames)
                    out.put_nowait(pb.GuideResponse(error=error))
                case "frame":
                    script.frames[request.frame.frame_id] = request.frame.image
                case "query":
                    query = request.query
                    script.queries.append(query)
                    for older in running:
                        self._end(running, older, pb.QueryError.CODE_SUPERSEDED, out)
                    running[query.query_id] = asyncio.create_task(self._answer(query, out, context))
                case "cancel":
                    script.cancelled.append(request.cancel.query_id)
                    self._end(running, request.cancel.query_id, pb.QueryError.CODE_CANCELLED, out)
        out.put_nowait(None)

    def _end(
        self,
        running: dict[int, asyncio.Task[None]],
        query_id: int,
        code: pb.QueryError.Code,
        out: asyncio.Queue[pb.GuideResponse | None],
    ) -> None:
        if not running[query_id].done():
            running[query_id].cancel()
            out.put_nowait(pb.GuideResponse(error=pb.QueryError(query_id=query_id, code=code, message="it ended")))

    async def _answer(
        self, query: pb.Query, out: asyncio.Queue[pb.GuideResponse | None], context: grpc.aio.ServicerContext
    ) -> None:
        script, options = self.script, query.options
        if script.error is not None:
            error = pb.QueryError()
            error.CopyFrom(script.error)
            error.query_id = query.query_id
            out.put_nowait(pb.GuideResponse(error=error))
            return
        if query.frame_id not in script.frames:
            error = pb.QueryError(query_id=query.query_id, code=pb.QueryError.CODE_NO_FRAME, message="no such frame")
            out.put_nowait(pb.GuideResponse(error=error))
            return
        frame = Image.open(io.BytesIO(script.frames[query.frame_id])).convert("RGB")
        pieces = (options.description,) if options.description else PIECES
        for number, piece in enumerate(pieces, 1):
            delta = pb.DescriptionDelta(query_id=query.query_id, text=piece, done=number == len(pieces))
            out.put_nowait(pb.GuideResponse(description_delta=delta))
            await asyncio.sleep(script.step_seconds)
        steps = options.steps or script.steps
        for step in range(1, steps + 1):
            if step == script.dies_at_step:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the power went")
            script.steps_done += 1
            script.working.set()
            wanted = options.preview_every and step % options.preview_every == 0 and step < steps
            preview = jpeg(ImageOps.posterize(frame, min(8, 1 + step))) if wanted else b""
            progress = pb.Progress(query_id=query.query_id, step=step, steps=steps, preview=preview)
            out.put_nowait(pb.GuideResponse(progress=progress))
            await asyncio.sleep(script.step_seconds)
        result = pb.GuidanceResult(
            query_id=query.query_id, frame_id=query.frame_id, description="".join(pieces),
            image=b"not a picture" if script.garbage_picture else jpeg(ImageOps.invert(frame)),
            width=frame.width, height=frame.height, seed=options.seed or 1234, steps=steps, text_scale=7.5,
            image_scale=1.5, sampler=pb.SAMPLER_EULER, fidelity=options.fidelity,
            model_version="scripted-0123456789ab",
            timings=pb.Timings(queue_ms=1, encode_ms=2, describe_ms=3, condition_ms=4, denoise_ms=5, total_ms=21),
        )  # fmt: skip
        out.put_nowait(pb.GuideResponse(result=result))


class ScriptedServer:
    """A running server. Use it as `async with ScriptedServer() as server`."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.target = ""

    async def __aenter__(self) -> ScriptedServer:
        # As a real guidance server does: gRPC's own default takes the client's 20 s keepalive for an attack.
        self._server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 10_000)])
        pb_grpc.add_GuidanceServicer_to_server(ScriptedGuidance(self.script), self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Goes away at once, as a killed server does."""
        await self._server.stop(None)

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)


def jpeg(image: Image.Image) -> bytes:
    """Encodes a picture."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()
