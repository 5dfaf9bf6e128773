"""The gRPC face: protobuf messages in, protobuf messages out. Nothing behind it sees either."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
from lego_core.images import JPEG_QUALITY
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from lego_server.assistant import Answer, DescriptionPiece, StepDone
from lego_server.failures import Reason, RequestError
from lego_server.frames import check_frame
from lego_server.guide import INTERNAL_ERROR, Guide
from lego_server.messages import Message, QueryFailed
from lego_server.options import OptionWishes
from lego_server.security.access import current_access
from lego_server.security.guard import retry_metadata
from lego_server.session import Session

_log = logging.getLogger(__name__)

_STATUS = {
    Reason.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
}


class GuidanceService(guidance_pb2_grpc.GuidanceServicer):
    """Serves `lego.v1.Guidance`."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        self._sessions: set[Session] = set()
        self._draining = False

    async def Guide(  # the protocol's name
        self, requests: AsyncIterator[pb.GuideRequest], context: grpc.aio.ServicerContext
    ) -> None:
        """A wearer's session; a closed or broken stream drops its work."""
        await self._refuse_if_draining(context)
        if len(self._sessions) >= self._guide.config.max_sessions:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the server has {len(self._sessions)} sessions, its limit; try again later",
            )
        session = Session(self._guide)
        self._sessions.add(session)
        reader = asyncio.create_task(_read_requests(requests, session))
        try:
            await context.write(pb.GuideResponse(session_started=self._session_started(session)))
            async for message in session.outbox:
                await context.write(self._response(message))
            if reader.done() and not reader.cancelled() and reader.exception() is not None:
                await context.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
        finally:
            reader.cancel()
            session.close()
            self._sessions.discard(session)

    async def Generate(  # the protocol's name
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> pb.GuidanceResult:
        """One frame, one query, one answer; stops when the call is cancelled or past its deadline."""
        await self._refuse_if_draining(context)
        try:
            query = self._guide.check_query(request.text, _wishes(request.options))
            self._guide.engine_loop.refuse_if_full()
            pixels = await asyncio.to_thread(check_frame, request.image, self._guide.config)
            with current_access().admit_query(pixels):
                frame = await self._guide.prepare_frame(request.image)
                answer = await self._guide.answer(query, frame)
        except RequestError as error:
            await context.abort(_STATUS[error.reason], str(error), retry_metadata(error.retry_seconds))
        return self._result(answer)

    async def GetServerInfo(  # the protocol's name
        self, request: pb.GetServerInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerInfo:
        """What this server runs and allows."""
        return self._server_info()

    def drain(self) -> None:
        """Takes no new work; sessions end once their query is answered."""
        self._draining = True
        for session in list(self._sessions):
            session.finish()

    async def _refuse_if_draining(self, context: grpc.aio.ServicerContext) -> None:
        if self._draining:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down; try again when it is back")

    def _session_started(self, session: Session) -> pb.SessionStarted:
        return pb.SessionStarted(session_id=session.session_id, server=self._server_info())

    def _server_info(self) -> pb.ServerInfo:
        lego, config = self._guide.manifest.lego, self._guide.config
        return pb.ServerInfo(
            model_name=lego.name,
            model_version=self._guide.manifest.model_version,
            engine=self._guide.engine_name,
            resolution=lego.resolution,
            max_steps=self._guide.max_steps,
            max_image_bytes=config.max_image_bytes,
            max_image_pixels=current_access().max_image_pixels(config.max_image_pixels),
            max_query_characters=config.max_query_characters,
            defaults=pb.GuidanceOptions(
                steps=lego.guidance.steps,
                text_scale=lego.guidance.text_scale,
                image_scale=lego.guidance.image_scale,
                sampler=_sampler_enum(lego.guidance.sampler),
                preview_every=0,
                jpeg_quality=JPEG_QUALITY["default"],
            ),
            notice=lego.notice,
        )

    def _response(self, message: Message) -> pb.GuideResponse:
        query_id = message.query_id
        if isinstance(message, QueryFailed):
            code = f"CODE_{message.reason.name}"
            return pb.GuideResponse(error=pb.QueryError(query_id=query_id, code=code, message=message.text))
        match message.event:
            case DescriptionPiece(text, done):
                delta = pb.DescriptionDelta(query_id=query_id, text=text, done=done)
                return pb.GuideResponse(description_delta=delta)
            case StepDone(step, steps, preview):
                progress = pb.Progress(query_id=query_id, step=step, steps=steps, preview=preview)
                return pb.GuideResponse(progress=progress)
            case Answer() as answer:
                return pb.GuideResponse(result=self._result(answer, query_id, message.frame_id))

    def _result(self, answer: Answer, query_id: int = 0, frame_id: int = 0) -> pb.GuidanceResult:
        options, timings = answer.options, answer.timings
        return pb.GuidanceResult(
            query_id=query_id,
            frame_id=frame_id,
            description=answer.description,
            image=answer.image,
            width=answer.width,
            height=answer.height,
            seed=options.seed,
            steps=options.steps,
            text_scale=options.text_scale,
            image_scale=options.image_scale,
            sampler=_sampler_enum(options.sampler),
            fidelity=pb.FIDELITY_ORIGINAL if options.fidelity == "original" else pb.FIDELITY_UNSPECIFIED,
            model_version=self._guide.manifest.model_version,
            timings=pb.Timings(
                queue_ms=1000 * timings.queue,
                encode_ms=1000 * timings.encode,
                describe_ms=1000 * timings.describe,
                condition_ms=1000 * timings.condition,
                denoise_ms=1000 * timings.denoise,
                decode_ms=1000 * timings.decode,
                total_ms=1000 * timings.total,
            ),
        )


async def _read_requests(requests: AsyncIterator[pb.GuideRequest], session: Session) -> None:
    """Feeds a session from its client until the client has said all it will say.

    Raises:
        Exception: An error of the server's own; it is logged, and the session closed.
    """
    try:
        async for request in requests:
            # A client that asks but never reads is not read from either; gRPC's flow control then stops it.
            await session.outbox.room()
            match request.WhichOneof("message"):
                case "frame":
                    await session.add_frame(request.frame.frame_id, request.frame.image)
                case "query":
                    query = request.query
                    frame_id = query.frame_id if query.HasField("frame_id") else None
                    session.ask(query.query_id, query.text, frame_id, _wishes(query.options))
                case "cancel":
                    session.cancel(request.cancel.query_id)
                case _:
                    session.reject(Reason.INVALID, "the message holds no frame, query or cancel; send one of them")
    except Exception:
        _log.exception("session %s: reading its requests failed", session.session_id)
        session.close()
        raise
    else:
        session.finish()


def _wishes(options: pb.GuidanceOptions) -> OptionWishes:
    def get(field: str) -> Any:
        return getattr(options, field) if options.HasField(field) else None

    return OptionWishes(
        seed=get("seed"),
        steps=get("steps"),
        text_scale=get("text_scale"),
        image_scale=get("image_scale"),
        sampler=_sampler_name(options.sampler),
        preview_every=get("preview_every"),
        description=get("description"),
        jpeg_quality=get("jpeg_quality"),
        fidelity=_fidelity_name(options.fidelity),
    )


def _sampler_name(value: int) -> str | None:
    """Returns the sampler's name, None if unspecified; a number this server does not know stays a number."""
    if value == pb.SAMPLER_UNSPECIFIED:
        return None
    if value not in pb.Sampler.values():
        return str(value)
    return pb.Sampler.Name(value).removeprefix("SAMPLER_").lower()


def _fidelity_name(value: int) -> str:
    """Returns the fidelity's name; a number this server does not know stays a number."""
    names: dict[int, str] = {pb.FIDELITY_UNSPECIFIED: "default", pb.FIDELITY_ORIGINAL: "original"}
    return names.get(value, str(value))


def _sampler_enum(name: str) -> str:
    """Returns the protocol's name of a sampler; protobuf takes an enum by its name."""
    return f"SAMPLER_{name.upper()}"
