"""Between the protocol's protobuf messages and the client's plain data: the one place that knows both."""

from __future__ import annotations

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
_PRESET_TO_PROTO = {"fast": pb.PRESET_FAST, "balanced": pb.PRESET_BALANCED, "faithful": pb.PRESET_FAITHFUL}
_PRESET_FROM_PROTO = {number: name for name, number in _PRESET_TO_PROTO.items()}
_OPTION_FIELDS = ("seed", "steps", "text_scale", "image_scale", "preview_every", "description", "jpeg_quality")


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
    return message


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
        defaults=_options_from_proto(message.defaults),
        notice=message.notice,
        models=tuple(message.models),
        max_deadline_seconds=message.max_deadline_ms / 1000,
        fast_previews=message.fast_previews,
        presets={
            _PRESET_FROM_PROTO[each.preset]: _options_from_proto(each)
            for each in message.presets
            if each.preset in _PRESET_FROM_PROTO  # a newer server may know others
        },
    )


def _options_from_proto(message: pb.GuidanceOptions) -> GuidanceOptions:
    return GuidanceOptions(
        steps=message.steps or None,
        text_scale=message.text_scale or None,
        image_scale=message.image_scale or None,
        sampler=_SAMPLER_FROM_PROTO.get(message.sampler),
        jpeg_quality=message.jpeg_quality or None,
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
    )


def _code_name(code: pb.QueryError.Code) -> str:
    if code not in pb.QueryError.Code.values():  # a newer server may know codes this client does not
        return f"code_{int(code)}"
    return pb.QueryError.Code.Name(code).removeprefix("CODE_").lower()
