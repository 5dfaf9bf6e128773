"""The gRPC service: protobuf messages to calls on sessions, and back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
from lego_core.images import JPEG_QUALITY
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from lego_server.assistant import Answer, DescriptionPiece, StepDone
from lego_server.backend import Backend
from lego_server.failures import INTERNAL_ERROR, Reason, RequestError, shutting_down
from lego_server.frames import check_frame
from lego_server.messages import FrameReceived, Message, QueryEvent, QueryFailed
from lego_server.models import Models
from lego_server.options import OptionWishes
from lego_server.security.access import current_access
from lego_server.security.guard import retry_metadata
from lego_server.session import Session
from lego_server.sessions import OpenSession, Sessions

_PARTING_SECONDS = 0.1
_log = logging.getLogger(__name__)

_STATUS = {
    Reason.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


class GuidanceService(guidance_pb2_grpc.GuidanceServicer):
    """Serves `lego.v1.Guidance`."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._telemetry = models.telemetry
        self._sessions = Sessions(models)
        self._generating: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._handing_back = False

    async def Guide(  # the protocol's name
        self, requests: AsyncIterator[pb.GuideRequest], context: grpc.aio.ServicerContext
    ) -> None:
        """A wearer's session; it outlives a broken stream for a while."""
        await self._refuse_if_draining(context)
        try:
            opened = self._sessions.open(current_access().name)
        except RequestError as error:
            self._telemetry.metrics.rejected("sessions")
            await _abort(context, error)
        self._telemetry.enter_call(context.invocation_metadata() or (), session=opened.session.session_id)
        await _Stream(opened, self._sessions, self, context).carry(requests)

    async def Generate(  # the protocol's name
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> pb.GuidanceResult:
        """One frame, one query, one answer; stops when the call is cancelled or past its deadline."""
        await self._refuse_if_draining(context)
        self._telemetry.enter_call(context.invocation_metadata() or ())
        task = asyncio.current_task()
        assert task is not None
        self._generating.add(task)
        try:
            guide = self._models.find(request.model)
            query = guide.check_query(request.text, _wishes(request.options), context.time_remaining())
            guide.refuse_if_full(query)
            pixels = await asyncio.to_thread(check_frame, request.image, self._models.config.limits)
            with current_access().admit_query(pixels):
                frame = await guide.prepare_frame(request.image)
                answer = await guide.answer(query, frame, current_access().name)
        except RequestError as error:
            self._telemetry.metrics.rejected(error.reason)
            await _abort(context, error)
        except asyncio.CancelledError:
            if not self._handing_back:  # the client is gone
                raise
            task.uncancel()
            await _abort(context, shutting_down())
        finally:
            self._generating.discard(task)
        return self._result(answer)

    async def GetServerInfo(  # the protocol's name
        self, request: pb.GetServerInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerInfo:
        """What this server runs and allows."""
        try:
            return self._server_info(self._models.find(request.model))
        except RequestError as error:
            await _abort(context, error)
            raise AssertionError("abort raises") from error

    @property
    def session_count(self) -> int:
        """Sessions there are, those that wait for their client included."""
        return len(self._sessions)

    async def drain(self, seconds: float) -> None:
        """Takes no new work, hands back what has not begun, and waits for the rest, so long at most.

        Sessions end once their query is answered; what is not answered in time is handed back, too.
        """
        self._draining = True
        for guide in self._models.guides:
            guide.hand_back_waiting()
        self._sessions.drain()
        until = asyncio.get_running_loop().time() + seconds
        while (self._sessions.answering or self._generating) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._handing_back = True
        for task in self._generating:
            task.cancel()
        self._sessions.hand_back()

    async def _refuse_if_draining(self, context: grpc.aio.ServicerContext) -> None:
        if self._draining:
            self._telemetry.metrics.rejected("draining")
            await _abort(context, shutting_down())

    def started(self, opened: OpenSession, resumed: bool = False) -> pb.GuideResponse:
        """Returns what a session, or its going on, begins with."""
        settings = self._models.config.sessions
        return pb.GuideResponse(
            session_started=pb.SessionStarted(
                session_id=opened.session.session_id,
                server=self._server_info(self._models.default),
                resume_token=opened.token if settings.resume_seconds else "",
                resume_seconds=settings.resume_seconds,
                resumed=resumed,
                frame_credits=settings.frame_credits,
            )
        )

    def _server_info(self, guide: Backend[Any]) -> pb.ServerInfo:
        lego, limits = guide.manifest.lego, self._models.config.limits
        return pb.ServerInfo(
            model_name=lego.name,
            model_version=guide.manifest.model_version,
            engine=guide.engine_name,
            resolution=lego.resolution,
            max_steps=guide.max_steps,
            max_image_bytes=limits.max_image_bytes,
            max_image_pixels=current_access().max_image_pixels(limits.max_image_pixels),
            max_query_characters=limits.max_query_characters,
            defaults=pb.GuidanceOptions(
                steps=lego.guidance.steps,
                text_scale=lego.guidance.text_scale,
                image_scale=lego.guidance.image_scale,
                sampler=_sampler_enum(lego.guidance.sampler),
                preview_every=0,
                jpeg_quality=JPEG_QUALITY["default"],
            ),
            notice=lego.notice,
            models=self._models.names,
            max_deadline_ms=int(1000 * limits.query_seconds),
            fast_previews=bool(guide.manifest.latent.colour_map),
        )

    def response(self, sequence: int, message: Message) -> pb.GuideResponse:
        """Returns a message as it travels."""
        response = pb.GuideResponse(sequence=sequence)
        match message:
            case FrameReceived(frame_id):
                response.frame_received.frame_id = frame_id
            case QueryFailed(query_id, reason, text, retry_after):
                self._telemetry.metrics.rejected(reason)
                error = pb.QueryError(
                    query_id=query_id, code=f"CODE_{reason.name}", message=text,
                    retry_after_ms=_milliseconds(retry_after),
                )  # fmt: skip
                response.error.CopyFrom(error)
            case QueryEvent(query_id, _, DescriptionPiece(text, done)):
                response.description_delta.CopyFrom(pb.DescriptionDelta(query_id=query_id, text=text, done=done))
            case QueryEvent(query_id, _, StepDone(step, steps, preview)):
                progress = pb.Progress(query_id=query_id, step=step, steps=steps, preview=preview)
                response.progress.CopyFrom(progress)
            case QueryEvent(query_id, frame_id, Answer() as answer):
                response.result.CopyFrom(self._result(answer, query_id, frame_id))
        return response

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
            model_version=answer.model_version,
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


class _Stream:
    """One `Guide` call: carries its own new session, or goes on with one whose stream broke."""

    def __init__(
        self, opened: OpenSession, sessions: Sessions, service: GuidanceService, context: grpc.aio.ServicerContext
    ) -> None:
        self._opened = opened
        self._number = opened.stream
        self._sessions = sessions
        self._service = service
        self._context = context
        self._heard = asyncio.get_running_loop().time()
        self._silence: asyncio.TimerHandle | None = None
        self._too_silent = False
        self._announce: bool | None = False  # whether to tell that the session begins (False) or goes on (True)

    async def carry(self, requests: AsyncIterator[pb.GuideRequest]) -> None:
        reader = asyncio.create_task(self._read(requests))
        self._watch_silence()
        try:
            while self._announce is not None:  # once, and once more where the client resumes a session
                resumed, self._announce = self._announce, None
                outbox = self._opened.session.outbox
                await self._context.write(self._service.started(self._opened, resumed))
                if self._announce is not None:  # resumed meanwhile: what was to be read is not the session any more
                    continue
                async for sequence, message in outbox.read():
                    await self._context.write(self._service.response(sequence, message))
            broken = reader.exception() if reader.done() and not reader.cancelled() else None
            reader.cancel()  # before any abort, which it would take for an error of its own
            if not outbox.closed:
                await self._context.abort(grpc.StatusCode.ABORTED, "the session goes on in another stream")
            if self._too_silent:
                limit = self._sessions.idle_seconds
                await self._context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"nothing came from the client for {limit:g} s; open another session",
                )
            if isinstance(broken, RequestError):
                await _abort(self._context, broken)
            if broken is not None:
                await self._context.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
            self._sessions.end(self._opened)
        finally:
            reader.cancel()
            if self._silence is not None:
                self._silence.cancel()
            self._sessions.leave(self._opened, self._number)

    async def _read(self, requests: AsyncIterator[pb.GuideRequest]) -> None:
        """Feeds the session from its client until the client has said all it will say.

        Raises:
            RequestError: What came is no message of the protocol; the session is closed.
            Exception: An error of the server's own; it is logged, and the session closed.
        """
        try:
            first = True
            async for request in requests:
                self._heard = asyncio.get_running_loop().time()
                # A client that asks but never reads is not read from either; gRPC's flow control then stops it.
                await self._opened.session.outbox.room()
                if request.WhichOneof("message") == "resume" and first:
                    self._resume(request.resume)
                else:
                    await _take(request, self._opened.session)
                first = False
        except Exception as error:
            if not isinstance(error, RequestError):
                _log.exception("session %s: reading its requests failed", self._opened.session.session_id)
            self._opened.session.close()
            raise
        else:
            # A broken stream looks like one that was ended, until this call is cancelled a moment later.
            await asyncio.sleep(_PARTING_SECONDS)
            self._opened.session.finish()

    def _watch_silence(self) -> None:
        """Ends the session if its client has said nothing for too long and waits for nothing; else looks later."""
        if self._number != self._opened.stream:  # another stream carries it by now
            return
        loop, limit = asyncio.get_running_loop(), self._sessions.idle_seconds
        if self._opened.session.answering:
            self._heard = loop.time()
        left = self._heard + limit - loop.time()
        self._too_silent = left <= 0
        if self._too_silent:
            # Not left to `carry`: it may wait for ever to tell a client that does not read.
            self._sessions.end(self._opened)
        else:
            self._silence = loop.call_later(left, self._watch_silence)

    def _resume(self, resume: pb.Resume) -> None:
        found = self._sessions.resume(resume.token, self._opened.wearer, resume.received)
        fresh = self._opened
        if found is not None:
            self._opened, self._number = found, found.stream
            if found is not fresh:  # a client may name the session it has just been given
                self._sessions.end(fresh)
        self._announce = found is not None
        fresh.session.outbox.release()


async def _take(request: pb.GuideRequest, session: Session) -> None:
    match request.WhichOneof("message"):
        case "frame":
            await session.add_frame(request.frame.frame_id, request.frame.image)
        case "query":
            query = request.query
            session.ask(
                query.query_id, query.text, query.frame_id if query.HasField("frame_id") else None,
                _wishes(query.options), query.model,
                query.deadline_ms / 1000 if query.HasField("deadline_ms") else None,
            )  # fmt: skip
        case "cancel":
            session.cancel(request.cancel.query_id)
        case "resume":
            session.reject(Reason.INVALID, "resume must be the first message of a stream")
        case _:
            session.reject(Reason.INVALID, "the message holds no frame, query, cancel or resume; send one of them")


async def _abort(context: grpc.aio.ServicerContext, error: RequestError) -> NoReturn:
    await context.abort(_STATUS[error.reason], str(error), retry_metadata(error.retry_after or None))
    raise AssertionError("abort raises")


def _milliseconds(seconds: float) -> int:
    return math.ceil(1000 * seconds)


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
        preview=_preview_name(options.preview),
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


def _preview_name(value: int) -> str | None:
    """Returns the preview's name, None if unspecified; a number this server does not know stays a number."""
    names: dict[int, str] = {pb.PREVIEW_FAST: "fast", pb.PREVIEW_FULL: "full"}
    return None if value == pb.PREVIEW_UNSPECIFIED else names.get(value, str(value))
