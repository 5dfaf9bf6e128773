"""Between the protocol's protobuf messages and the client's plain data: the one place that knows both."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from lego_proto.v1 import guidance_pb2 as pb

from lego_client.events import (
    DescriptionPiece,
    Guidance,
    GuidanceOptions,
    Progress,
    QueryEvent,
    QueryFailed,
    ServerInfo,
    Timings,
)

_SAMPLER_TO_PROTO = {
    "euler_ancestral": pb.SAMPLER_EULER_ANCESTRAL,
    "euler": pb.SAMPLER_EULER,
    "dpm_solver_pp": pb.SAMPLER_DPM_SOLVER_PP,
    "distilled": pb.SAMPLER_DISTILLED,
}
_SAMPLER_FROM_PROTO = {number: name for name, number in _SAMPLER_TO_PROTO.items()}
_FIDELITY_TO_PROTO = {"default": pb.FIDELITY_UNSPECIFIED, "original": pb.FIDELITY_ORIGINAL}
_FIDELITY_FROM_PROTO = {number: name for name, number in _FIDELITY_TO_PROTO.items()}
_PREVIEW_TO_PROTO = {"fast": pb.PREVIEW_FAST, "full": pb.PREVIEW_FULL}
_PREVIEW_FROM_PROTO = {number: name for name, number in _PREVIEW_TO_PROTO.items()}
_PRESET_TO_PROTO = {"fast": pb.PRESET_FAST, "balanced": pb.PRESET_BALANCED, "faithful": pb.PRESET_FAITHFUL}
_PRESET_FROM_PROTO = {number: name for name, number in _PRESET_TO_PROTO.items()}
_OPTION_FIELDS = (
    "seed", "steps", "text_scale", "image_scale", "preview_every", "description", "jpeg_quality", "cache_interval"
)  # fmt: skip


def options_to_proto(options: GuidanceOptions) -> pb.GuidanceOptions:
    """Returns the message with only the options set that were given."""
    given = {name: value for name in _OPTION_FIELDS if (value := getattr(options, name)) is not None}
    message = pb.GuidanceOptions(**given)
    if options.sampler is not None:
        message.sampler = _SAMPLER_TO_PROTO[options.sampler]
    if options.fidelity is not None:
        message.fidelity = _FIDELITY_TO_PROTO[options.fidelity]
    if options.preview is not None:
        message.preview = _PREVIEW_TO_PROTO[options.preview]
    if options.preset is not None:
        message.preset = _PRESET_TO_PROTO[options.preset]
    if options.guidance_interval is not None:
        message.guidance_interval.CopyFrom(_interval(options.guidance_interval))
    return message


def options_from_proto(message: pb.GuidanceOptions) -> GuidanceOptions:
    """Reads options back; None for those that are unset.

    Raises:
        LegoError: A value is out of its range.
    """
    given = {name: getattr(message, name) for name in _OPTION_FIELDS if message.HasField(name)}
    return GuidanceOptions(
        **given,
        sampler=_SAMPLER_FROM_PROTO.get(message.sampler),
        fidelity="original" if message.fidelity == pb.FIDELITY_ORIGINAL else None,
        preview=_PREVIEW_FROM_PROTO.get(message.preview),
        preset=_PRESET_FROM_PROTO.get(message.preset),
        guidance_interval=_fractions(message),
    )


def server_info_to_proto(info: ServerInfo) -> pb.ServerInfo:
    """Returns the message with all that is known of a server."""
    return pb.ServerInfo(
        model_name=info.model_name,
        model_version=info.model_version,
        engine=info.engine,
        resolution=info.resolution,
        max_steps=info.max_steps,
        max_image_bytes=info.max_image_bytes,
        max_image_pixels=info.max_image_pixels,
        max_query_characters=info.max_query_characters,
        defaults=options_to_proto(info.defaults),
        notice=info.notice,
        models=info.models,
        max_deadline_ms=round(1000 * info.max_deadline_seconds),
        fast_previews=info.fast_previews,
        presets=[options_to_proto(replace(each, preset=name)) for name, each in info.presets.items()],
        speech=pb.Speech(recogniser=info.speech, max_utterance_ms=round(1000 * info.max_utterance_seconds))
        if info.speech
        else None,
    )


def server_info_from_proto(message: pb.ServerInfo) -> ServerInfo:
    """Reads what a server runs, its limits and its model's defaults."""
    return ServerInfo(
        model_name=message.model_name,
        model_version=message.model_version,
        engine=message.engine,
        resolution=message.resolution,
        max_steps=message.max_steps,
        max_image_bytes=message.max_image_bytes,
        max_image_pixels=message.max_image_pixels,
        max_query_characters=message.max_query_characters,
        defaults=_stated_options(message.defaults),
        notice=message.notice,
        models=tuple(message.models),
        max_deadline_seconds=message.max_deadline_ms / 1000,
        fast_previews=message.fast_previews,
        presets={
            _PRESET_FROM_PROTO[each.preset]: _stated_options(each)
            for each in message.presets
            if each.preset in _PRESET_FROM_PROTO  # a newer server may know others
        },
        speech=message.speech.recogniser,
        max_utterance_seconds=message.speech.max_utterance_ms / 1000,
    )


def _stated_options(message: pb.GuidanceOptions) -> GuidanceOptions:
    return GuidanceOptions(
        steps=message.steps or None,
        text_scale=message.text_scale or None,
        image_scale=message.image_scale or None,
        sampler=_SAMPLER_FROM_PROTO.get(message.sampler),
        jpeg_quality=message.jpeg_quality or None,
        guidance_interval=_fractions(message),
        cache_interval=message.cache_interval or None,
    )


def event_from_proto(response: pb.GuideResponse) -> QueryEvent | None:
    """Reads one message of the stream; None for one that is no event of a query."""
    match response.WhichOneof("message"):
        case "description_delta":
            delta = response.description_delta
            return DescriptionPiece(delta.query_id, delta.text, delta.done)
        case "progress":
            progress = response.progress
            return Progress(progress.query_id, progress.step, progress.steps, progress.preview)
        case "result":
            return _guidance_from_proto(response.result)
        case "error":
            error = response.error
            return QueryFailed(error.query_id, _code_name(error.code), error.message, error.retry_after_ms / 1000)
        case _:
            return None


def event_to_proto(event: QueryEvent) -> pb.GuideResponse:
    """Returns an event of a query as the message it came in; `event_from_proto` reads it back."""
    match event:
        case DescriptionPiece():
            delta = pb.DescriptionDelta(query_id=event.query_id, text=event.text, done=event.done)
            return pb.GuideResponse(description_delta=delta)
        case Progress():
            progress = pb.Progress(
                query_id=event.query_id, step=event.step, steps=event.steps, preview=event.preview
            )  # fmt: skip
            return pb.GuideResponse(progress=progress)
        case Guidance():
            return pb.GuideResponse(result=_guidance_to_proto(event))
        case QueryFailed():
            error = pb.QueryError(
                query_id=event.query_id, code=_code_number(event.code), message=event.message,
                retry_after_ms=round(1000 * event.retry_after_seconds),
            )  # fmt: skip
            return pb.GuideResponse(error=error)


def _guidance_to_proto(guidance: Guidance) -> pb.GuidanceResult:
    return pb.GuidanceResult(
        query_id=guidance.query_id,
        frame_id=guidance.frame_id,
        description=guidance.description,
        image=guidance.image,
        width=guidance.width,
        height=guidance.height,
        seed=guidance.seed,
        steps=guidance.steps,
        text_scale=guidance.text_scale,
        image_scale=guidance.image_scale,
        sampler=_SAMPLER_TO_PROTO.get(guidance.sampler, pb.SAMPLER_UNSPECIFIED),
        fidelity=_FIDELITY_TO_PROTO.get(guidance.fidelity, pb.FIDELITY_UNSPECIFIED),
        guidance_interval=_interval(guidance.guidance_interval),
        cache_interval=guidance.cache_interval,
        model_version=guidance.model_version,
        timings=pb.Timings(**{name: getattr(guidance.timings, name) for name in Timings.__dataclass_fields__}),
    )


def _guidance_from_proto(result: pb.GuidanceResult) -> Guidance:
    stages = {name: getattr(result.timings, name) for name in Timings.__dataclass_fields__}
    return Guidance(
        query_id=result.query_id,
        frame_id=result.frame_id,
        description=result.description,
        image=result.image,
        width=result.width,
        height=result.height,
        seed=result.seed,
        steps=result.steps,
        text_scale=result.text_scale,
        image_scale=result.image_scale,
        sampler=_SAMPLER_FROM_PROTO.get(result.sampler, ""),
        fidelity=_FIDELITY_FROM_PROTO.get(result.fidelity, ""),
        model_version=result.model_version,
        timings=Timings(**stages),
        guidance_interval=_fractions(result) or (0.0, 1.0),
        cache_interval=result.cache_interval or 1,
    )


def _interval(fractions: tuple[float, float]) -> pb.GuidanceInterval:
    return pb.GuidanceInterval(low=fractions[0], high=fractions[1])


def _fractions(message: pb.GuidanceOptions | pb.GuidanceResult) -> tuple[float, float] | None:
    """Returns the guidance interval as it was meant, without the digits that float32 adds; None if it is unset."""
    if not message.HasField("guidance_interval"):
        return None
    return round(message.guidance_interval.low, 6), round(message.guidance_interval.high, 6)


def _code_name(code: pb.QueryError.Code) -> str:
    if code not in pb.QueryError.Code.values():  # a newer server may know codes this client does not
        return f"code_{int(code)}"
    return pb.QueryError.Code.Name(code).removeprefix("CODE_").lower()


def _code_number(name: str) -> pb.QueryError.Code:
    """The inverse of `_code_name`; an enum field keeps numbers that it does not know."""
    unknown = name.removeprefix("code_")
    number = int(unknown) if unknown.isdecimal() else pb.QueryError.Code.Value(f"CODE_{name.upper()}")
    return cast("pb.QueryError.Code", number)
