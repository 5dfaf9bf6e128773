"""A real gRPC guidance server that answers by script: the client's tests talk to it over a real connection."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable
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
        pieces: The description.
        paint: Makes the guidance frame from the frame asked about.
        garbage_picture: Send bytes that are no picture as the guidance frame.
        resumable: Number messages and give sessions a token.
        forgets: Know none of the tokens given.
        breaks: How many numbered messages each stream brings before it breaks, first to last; those after bring all.
        repeats: Send a resumed session's messages from the first on, whatever the client has received.
        resume_reply: Answer Resume with this instead.
        lost_queries: So many queries are lost on the way, each with its stream.
        refusals: Answer so many queries with these, first to last.
        frame_credits: Frames that may be on their way at once.
        acknowledging: Frames are acknowledged while it is set.
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
    pieces: tuple[str, ...] = PIECES
    paint: Callable[[Image.Image], Image.Image] = ImageOps.invert
    garbage_picture: bool = False
    resumable: bool = False
    forgets: bool = False
    breaks: list[int] = field(default_factory=list)
    repeats: bool = False
    resume_reply: pb.GuideResponse | None = None
    lost_queries: int = 0
    refusals: list[pb.QueryError] = field(default_factory=list)
    frame_credits: int = 0
    acknowledging: asyncio.Event = field(default_factory=asyncio.Event)
    streams: int = 0
    resumes: list[pb.Resume] = field(default_factory=list)
    frames: dict[int, bytes] = field(default_factory=dict)
    queries: list[pb.Query] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    steps_done: int = 0
    working: asyncio.Event = field(default_factory=asyncio.Event)


class Session:
    """One wearer's session: all it has said, frames and queries."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log: list[pb.GuideResponse | None] = []  # None is where the stream breaks
        self.frames: dict[int, bytes] = {}
        self.running: dict[int, asyncio.Task[None]] = {}
        self.ended = False
        self.changed = asyncio.Event()

    def say(self, response: pb.GuideResponse | None) -> None:
        self.log.append(response)
        self.changed.set()

    def fail(self, query_id: int, code: pb.QueryError.Code, message: str) -> None:
        self.say(pb.GuideResponse(error=pb.QueryError(query_id=query_id, code=code, message=message)))

    def end(self) -> None:
        self.ended = True
        self.changed.set()


class Stream:
    """One call: which session it carries, from where, and an answer to Resume that goes before."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.position = 0
        self.reply: pb.GuideResponse | None = None


class ScriptedGuidance(pb_grpc.GuidanceServicer):
    """The service."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sessions: dict[str, Session] = {}

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: grpc.aio.ServicerContext) -> pb.ServerInfo:
        if request.model and self.script.info.models and request.model not in self.script.info.models:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"model is {request.model!r}; there is none")
        return self.script.info

    async def Guide(
        self, requests: AsyncIterator[pb.GuideRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GuideResponse]:
        script = self.script
        if script.refuse_session:
            await context.abort(grpc.StatusCode.UNAVAILABLE, script.refuse_session)
        if not script.answers:
            await asyncio.sleep(60)
        script.streams += 1
        stream = Stream(Session(f"session-{script.streams}"))
        self.sessions[stream.session.name] = stream.session
        yield self._started(stream.session)
        left = script.breaks.pop(0) if script.breaks else -1
        receiving = asyncio.create_task(self._receive(requests, stream))
        try:
            while True:
                session = stream.session
                if stream.reply is not None:
                    reply, stream.reply = stream.reply, None
                    yield reply
                elif left == 0 and (session.log or script.resumes):
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the link broke")
                elif stream.position < len(session.log):
                    response = session.log[stream.position]
                    if response is None:
                        del session.log[stream.position]  # once
                        await context.abort(grpc.StatusCode.UNAVAILABLE, "the power went")
                    else:
                        stream.position += 1
                        left -= 1
                        response.sequence = stream.position if script.resumable else 0
                        yield response
                elif session.ended:
                    return
                else:
                    session.changed.clear()
                    await session.changed.wait()
        finally:
            receiving.cancel()

    def _started(self, session: Session, resumed: bool = False) -> pb.GuideResponse:
        started = pb.SessionStarted(
            session_id=session.name, server=self.script.info, resumed=resumed, frame_credits=self.script.frame_credits
        )
        if self.script.resumable:
            started.resume_token, started.resume_seconds = f"token of {session.name}", 60
        return pb.GuideResponse(session_started=started)

    async def _receive(self, requests: AsyncIterator[pb.GuideRequest], stream: Stream) -> None:
        script = self.script
        async for request in requests:
            session = stream.session
            match request.WhichOneof("message"):
                case "resume":
                    self._resume(request.resume, stream)
                case "frame" if script.refuse_frames:
                    session.fail(0, pb.QueryError.CODE_INVALID, script.refuse_frames)
                case "frame":
                    script.frames[request.frame.frame_id] = session.frames[request.frame.frame_id] = request.frame.image
                    if script.frame_credits:
                        await script.acknowledging.wait()
                        received = pb.FrameReceived(frame_id=request.frame.frame_id)
                        session.say(pb.GuideResponse(frame_received=received))
                case "query" if script.lost_queries:
                    script.lost_queries -= 1
                    session.say(None)
                case "query" if request.query.query_id <= max(session.running, default=0):
                    session.fail(request.query.query_id, pb.QueryError.CODE_INVALID, "its id is not above the last")
                case "query":
                    query = request.query
                    script.queries.append(query)
                    for older in session.running:
                        self._end(session, older, pb.QueryError.CODE_SUPERSEDED)
                    session.running[query.query_id] = asyncio.create_task(self._answer(query, session))
                case "cancel":
                    script.cancelled.append(request.cancel.query_id)
                    if request.cancel.query_id in session.running:
                        self._end(session, request.cancel.query_id, pb.QueryError.CODE_CANCELLED)
        await asyncio.sleep(0.1)  # a broken stream looks like one that was ended, until its call is cancelled
        stream.session.end()

    def _resume(self, resume: pb.Resume, stream: Stream) -> None:
        self.script.resumes.append(resume)
        known = None if self.script.forgets else self.sessions.get(resume.token.removeprefix("token of "))
        stream.reply = self.script.resume_reply or self._started(known or stream.session, known is not None)
        waiting = stream.session.changed
        if known is not None and self.script.resume_reply is None:
            stream.session, stream.position = known, 0 if self.script.repeats else resume.received
        waiting.set()

    def _end(self, session: Session, query_id: int, code: pb.QueryError.Code) -> None:
        if not session.running[query_id].done():
            session.running[query_id].cancel()
            session.fail(query_id, code, "it ended")

    async def _answer(self, query: pb.Query, session: Session) -> None:
        script, options = self.script, query.options
        refusal = script.refusals.pop(0) if script.refusals else script.error
        if refusal is not None:
            error = pb.QueryError()
            error.CopyFrom(refusal)
            error.query_id = query.query_id
            session.say(pb.GuideResponse(error=error))
            return
        if query.frame_id not in session.frames:
            session.fail(query.query_id, pb.QueryError.CODE_NO_FRAME, "no such frame")
            return
        frame = Image.open(io.BytesIO(session.frames[query.frame_id])).convert("RGB")
        pieces = (options.description,) if options.description else script.pieces
        for number, piece in enumerate(pieces, 1):
            delta = pb.DescriptionDelta(query_id=query.query_id, text=piece, done=number == len(pieces))
            session.say(pb.GuideResponse(description_delta=delta))
            await asyncio.sleep(script.step_seconds)
        steps = options.steps or script.steps
        for step in range(1, steps + 1):
            if step == script.dies_at_step:
                session.say(None)
                return
            script.steps_done += 1
            script.working.set()
            wanted = options.preview_every and step % options.preview_every == 0 and step < steps
            preview = jpeg(ImageOps.posterize(frame, min(8, 1 + step))) if wanted else b""
            progress = pb.Progress(query_id=query.query_id, step=step, steps=steps, preview=preview)
            session.say(pb.GuideResponse(progress=progress))
            await asyncio.sleep(script.step_seconds)
        result = pb.GuidanceResult(
            query_id=query.query_id, frame_id=query.frame_id, description="".join(pieces),
            image=b"not a picture" if script.garbage_picture else jpeg(script.paint(frame)),
            width=frame.width, height=frame.height, seed=options.seed or 1234, steps=steps, text_scale=7.5,
            image_scale=1.5, sampler=pb.SAMPLER_EULER, fidelity=options.fidelity,
            model_version="scripted-0123456789ab",
            timings=pb.Timings(queue_ms=1, encode_ms=2, describe_ms=3, condition_ms=4, denoise_ms=5, total_ms=21),
        )  # fmt: skip
        session.say(pb.GuideResponse(result=result))


class ScriptedServer:
    """A running server. Use it as `async with ScriptedServer() as server`."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.script.acknowledging.set()
        self.target = ""

    async def __aenter__(self) -> ScriptedServer:
        # As a real guidance server does: gRPC's own default takes the client's 20 s keepalive for an attack.
        self._server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 10_000)])
        pb_grpc.add_GuidanceServicer_to_server(ScriptedGuidance(self.script), self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port(self.target or '127.0.0.1:0')}"
        await self._server.start()
        return self

    async def restart(self) -> None:
        """Is there again at the same address, and knows nothing of before."""
        await self.__aenter__()

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
