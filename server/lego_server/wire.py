"""Between the protocol's protobuf messages and the server's own types: the one place that knows both."""

from __future__ import annotations

import math
from typing import Any, cast

from lego_core.config import PRESETS, GuidanceDefaults, Preset
from lego_core.images import JPEG_QUALITY
from lego_proto.v1 import guidance_pb2 as pb

from lego_server.assistant import Answer, DescriptionPiece, StepDone
from lego_server.backend import Backend
from lego_server.failures import Reason
from lego_server.messages import FrameReceived, Message, QueryEvent, QueryFailed
from lego_server.models import Models
from lego_server.options import OptionWishes
from lego_server.session import Session


async def take_request(request: pb.GuideRequest, session: Session) -> None:
    """Passes a client's message on to its session; a resumption comes too late here."""
    match request.WhichOneof("message"):
        case "frame":
            await session.add_frame(request.frame.frame_id, request.frame.image)
        case "query":
            query = request.query
            session.ask(
                query.query_id, query.text, query.frame_id if query.HasField("frame_id") else None,
                wishes_from_proto(query.options), query.model,
                query.deadline_ms / 1000 if query.HasField("deadline_ms") else None,
            )  # fmt: skip
        case "cancel":
            session.cancel(request.cancel.query_id)
        case "resume":
            session.reject(Reason.INVALID, "resume must be the first message of a stream")
        case _:
            session.reject(Reason.INVALID, "the message holds no frame, query, cancel or resume; send one of them")


def server_info_to_proto(guide: Backend[Any], models: Models, max_image_pixels: int) -> pb.ServerInfo:
    """Returns what a server runs and allows, with the largest frame that whoever asks may send, in pixels."""
    lego, limits = guide.manifest.lego, models.config.limits
    return pb.ServerInfo(
        model_name=lego.name,
        model_version=guide.manifest.model_version,
        engine=guide.engine_name,
        resolution=lego.resolution,
        max_steps=guide.max_steps,
        max_image_bytes=limits.max_image_bytes,
        max_image_pixels=max_image_pixels,
        max_query_characters=limits.max_query_characters,
        defaults=_options_to_proto(lego.guidance, preview_every=0, jpeg_quality=JPEG_QUALITY["default"]),
        notice=lego.notice,
        models=models.names,
        max_deadline_ms=int(1000 * limits.query_seconds),
        fast_previews=bool(guide.manifest.latent.colour_map),
        presets=[
            _options_to_proto(sampling, preset=f"PRESET_{name.upper()}")
            for name in PRESETS
            if (sampling := lego.preset(cast(Preset, name))).steps <= guide.max_steps
        ],
        speech=None if models.speech is None else models.speech.info(),
    )


def _options_to_proto(sampling: GuidanceDefaults, **others: Any) -> pb.GuidanceOptions:
    return pb.GuidanceOptions(
        steps=sampling.steps, text_scale=sampling.text_scale, image_scale=sampling.image_scale,
        sampler=_sampler_enum(sampling.sampler), guidance_interval=_interval(sampling.guidance_interval),
        cache_interval=sampling.cache_interval, **others,
    )  # fmt: skip


def response_to_proto(sequence: int, message: Message) -> pb.GuideResponse:
    """Returns a session's message as it travels."""
    response = pb.GuideResponse(sequence=sequence)
    match message:
        case FrameReceived(frame_id):
            response.frame_received.frame_id = frame_id
        case QueryFailed(query_id, reason, text, retry_after):
            error = pb.QueryError(
                query_id=query_id, code=f"CODE_{reason.name}", message=text,
                retry_after_ms=milliseconds(retry_after),
            )  # fmt: skip
            response.error.CopyFrom(error)
        case QueryEvent(query_id, _, DescriptionPiece(text, done)):
            response.description_delta.CopyFrom(pb.DescriptionDelta(query_id=query_id, text=text, done=done))
        case QueryEvent(query_id, _, StepDone(step, steps, preview)):
            progress = pb.Progress(query_id=query_id, step=step, steps=steps, preview=preview)
            response.progress.CopyFrom(progress)
        case QueryEvent(query_id, frame_id, Answer() as answer):
            response.result.CopyFrom(result_to_proto(answer, query_id, frame_id))
    return response


def result_to_proto(answer: Answer, query_id: int = 0, frame_id: int = 0) -> pb.GuidanceResult:
    """Returns an answer as it travels; ids are 0 outside a session."""
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
        guidance_interval=_interval(options.guidance_interval),
        cache_interval=options.cache_interval,
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


def milliseconds(seconds: float) -> int:
    """Returns whole milliseconds, never too few."""
    return math.ceil(1000 * seconds)


def wishes_from_proto(options: pb.GuidanceOptions) -> OptionWishes:
    """Reads how a client wishes its query to be sampled; None where it leaves that to the model."""

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
        preset=_preset_name(options.preset),
        guidance_interval=_fractions(options.guidance_interval) if options.HasField("guidance_interval") else None,
        cache_interval=get("cache_interval"),
    )


def _interval(fractions: tuple[float, float]) -> pb.GuidanceInterval:
    return pb.GuidanceInterval(low=fractions[0], high=fractions[1])


def _fractions(interval: pb.GuidanceInterval) -> tuple[float, float]:
    """Returns the fractions that were meant: 0.35 as a float32 would lie on the other side of a step's middle."""
    return round(interval.low, 6), round(interval.high, 6)


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


def _preset_name(value: int) -> str | None:
    """Returns the preset's name, None if unspecified; a number this server does not know stays a number."""
    if value == pb.PRESET_UNSPECIFIED:
        return None
    return pb.Preset.Name(value).removeprefix("PRESET_").lower() if value in pb.Preset.values() else str(value)


def _preview_name(value: int) -> str | None:
    """Returns the preview's name, None if unspecified; a number this server does not know stays a number."""
    names: dict[int, str] = {pb.PREVIEW_FAST: "fast", pb.PREVIEW_FULL: "full"}
    return None if value == pb.PREVIEW_UNSPECIFIED else names.get(value, str(value))
