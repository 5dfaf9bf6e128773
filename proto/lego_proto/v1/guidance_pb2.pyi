from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Preset(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRESET_UNSPECIFIED: _ClassVar[Preset]
    PRESET_FAST: _ClassVar[Preset]
    PRESET_BALANCED: _ClassVar[Preset]
    PRESET_FAITHFUL: _ClassVar[Preset]

class Preview(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PREVIEW_UNSPECIFIED: _ClassVar[Preview]
    PREVIEW_FAST: _ClassVar[Preview]
    PREVIEW_FULL: _ClassVar[Preview]

class Fidelity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIDELITY_UNSPECIFIED: _ClassVar[Fidelity]
    FIDELITY_ORIGINAL: _ClassVar[Fidelity]

class Sampler(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLER_UNSPECIFIED: _ClassVar[Sampler]
    SAMPLER_EULER_ANCESTRAL: _ClassVar[Sampler]
    SAMPLER_EULER: _ClassVar[Sampler]
    SAMPLER_DPM_SOLVER_PP: _ClassVar[Sampler]
    SAMPLER_DISTILLED: _ClassVar[Sampler]
PRESET_UNSPECIFIED: Preset
PRESET_FAST: Preset
PRESET_BALANCED: Preset
PRESET_FAITHFUL: Preset
PREVIEW_UNSPECIFIED: Preview
PREVIEW_FAST: Preview
PREVIEW_FULL: Preview
FIDELITY_UNSPECIFIED: Fidelity
FIDELITY_ORIGINAL: Fidelity
SAMPLER_UNSPECIFIED: Sampler
SAMPLER_EULER_ANCESTRAL: Sampler
SAMPLER_EULER: Sampler
SAMPLER_DPM_SOLVER_PP: Sampler
SAMPLER_DISTILLED: Sampler

class TranscribeRequest(_message.Message):
    __slots__ = ("audio", "partial")
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    audio: bytes
    partial: bool
    def __init__(self, audio: _Optional[bytes] = ..., partial: _Optional[bool] = ...) -> None: ...

class Transcript(_message.Message):
    __slots__ = ("text", "confidence", "final")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    text: str
    confidence: float
    final: bool
    def __init__(self, text: _Optional[str] = ..., confidence: _Optional[float] = ..., final: _Optional[bool] = ...) -> None: ...

class Speech(_message.Message):
    __slots__ = ("recogniser", "max_utterance_ms")
    RECOGNISER_FIELD_NUMBER: _ClassVar[int]
    MAX_UTTERANCE_MS_FIELD_NUMBER: _ClassVar[int]
    recogniser: str
    max_utterance_ms: int
    def __init__(self, recogniser: _Optional[str] = ..., max_utterance_ms: _Optional[int] = ...) -> None: ...

class GuideRequest(_message.Message):
    __slots__ = ("frame", "query", "cancel", "resume")
    FRAME_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    frame: Frame
    query: Query
    cancel: Cancel
    resume: Resume
    def __init__(self, frame: _Optional[_Union[Frame, _Mapping]] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ...) -> None: ...

class GuideResponse(_message.Message):
    __slots__ = ("session_started", "description_delta", "progress", "result", "error", "frame_received", "sequence")
    SESSION_STARTED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_DELTA_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    FRAME_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    session_started: SessionStarted
    description_delta: DescriptionDelta
    progress: Progress
    result: GuidanceResult
    error: QueryError
    frame_received: FrameReceived
    sequence: int
    def __init__(self, session_started: _Optional[_Union[SessionStarted, _Mapping]] = ..., description_delta: _Optional[_Union[DescriptionDelta, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[GuidanceResult, _Mapping]] = ..., error: _Optional[_Union[QueryError, _Mapping]] = ..., frame_received: _Optional[_Union[FrameReceived, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("token", "received")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    token: str
    received: int
    def __init__(self, token: _Optional[str] = ..., received: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("frame_id", "image")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    image: bytes
    def __init__(self, frame_id: _Optional[int] = ..., image: _Optional[bytes] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ("query_id", "text", "frame_id", "options", "deadline_ms", "model")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    text: str
    frame_id: int
    options: GuidanceOptions
    deadline_ms: int
    model: str
    def __init__(self, query_id: _Optional[int] = ..., text: _Optional[str] = ..., frame_id: _Optional[int] = ..., options: _Optional[_Union[GuidanceOptions, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., model: _Optional[str] = ...) -> None: ...

class GuidanceOptions(_message.Message):
    __slots__ = ("seed", "steps", "text_scale", "image_scale", "sampler", "preview_every", "description", "jpeg_quality", "fidelity", "preview", "preset", "guidance_interval", "cache_interval")
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TEXT_SCALE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    JPEG_QUALITY_FIELD_NUMBER: _ClassVar[int]
    FIDELITY_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    PRESET_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CACHE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    seed: int
    steps: int
    text_scale: float
    image_scale: float
    sampler: Sampler
    preview_every: int
    description: str
    jpeg_quality: int
    fidelity: Fidelity
    preview: Preview
    preset: Preset
    guidance_interval: GuidanceInterval
    cache_interval: int
    def __init__(self, seed: _Optional[int] = ..., steps: _Optional[int] = ..., text_scale: _Optional[float] = ..., image_scale: _Optional[float] = ..., sampler: _Optional[_Union[Sampler, str]] = ..., preview_every: _Optional[int] = ..., description: _Optional[str] = ..., jpeg_quality: _Optional[int] = ..., fidelity: _Optional[_Union[Fidelity, str]] = ..., preview: _Optional[_Union[Preview, str]] = ..., preset: _Optional[_Union[Preset, str]] = ..., guidance_interval: _Optional[_Union[GuidanceInterval, _Mapping]] = ..., cache_interval: _Optional[int] = ...) -> None: ...

class GuidanceInterval(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("query_id",)
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    def __init__(self, query_id: _Optional[int] = ...) -> None: ...

class SessionStarted(_message.Message):
    __slots__ = ("session_id", "server", "resume_token", "resume_seconds", "resumed", "frame_credits")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    FRAME_CREDITS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    server: ServerInfo
    resume_token: str
    resume_seconds: float
    resumed: bool
    frame_credits: int
    def __init__(self, session_id: _Optional[str] = ..., server: _Optional[_Union[ServerInfo, _Mapping]] = ..., resume_token: _Optional[str] = ..., resume_seconds: _Optional[float] = ..., resumed: _Optional[bool] = ..., frame_credits: _Optional[int] = ...) -> None: ...

class FrameReceived(_message.Message):
    __slots__ = ("frame_id",)
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    def __init__(self, frame_id: _Optional[int] = ...) -> None: ...

class DescriptionDelta(_message.Message):
    __slots__ = ("query_id", "text", "done")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    text: str
    done: bool
    def __init__(self, query_id: _Optional[int] = ..., text: _Optional[str] = ..., done: _Optional[bool] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("query_id", "step", "steps", "preview")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    step: int
    steps: int
    preview: bytes
    def __init__(self, query_id: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., preview: _Optional[bytes] = ...) -> None: ...

class GuidanceResult(_message.Message):
    __slots__ = ("query_id", "frame_id", "description", "image", "width", "height", "seed", "steps", "text_scale", "image_scale", "sampler", "model_version", "timings", "fidelity", "guidance_interval", "cache_interval")
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TEXT_SCALE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    FIDELITY_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CACHE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    frame_id: int
    description: str
    image: bytes
    width: int
    height: int
    seed: int
    steps: int
    text_scale: float
    image_scale: float
    sampler: Sampler
    model_version: str
    timings: Timings
    fidelity: Fidelity
    guidance_interval: GuidanceInterval
    cache_interval: int
    def __init__(self, query_id: _Optional[int] = ..., frame_id: _Optional[int] = ..., description: _Optional[str] = ..., image: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., seed: _Optional[int] = ..., steps: _Optional[int] = ..., text_scale: _Optional[float] = ..., image_scale: _Optional[float] = ..., sampler: _Optional[_Union[Sampler, str]] = ..., model_version: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., fidelity: _Optional[_Union[Fidelity, str]] = ..., guidance_interval: _Optional[_Union[GuidanceInterval, _Mapping]] = ..., cache_interval: _Optional[int] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_ms", "encode_ms", "describe_ms", "condition_ms", "denoise_ms", "decode_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_MS_FIELD_NUMBER: _ClassVar[int]
    DESCRIBE_MS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_MS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    encode_ms: float
    describe_ms: float
    condition_ms: float
    denoise_ms: float
    decode_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., encode_ms: _Optional[float] = ..., describe_ms: _Optional[float] = ..., condition_ms: _Optional[float] = ..., denoise_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class QueryError(_message.Message):
    __slots__ = ("query_id", "code", "message", "retry_after_ms")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CODE_UNSPECIFIED: _ClassVar[QueryError.Code]
        CODE_INVALID: _ClassVar[QueryError.Code]
        CODE_NO_FRAME: _ClassVar[QueryError.Code]
        CODE_UNKNOWN_QUERY: _ClassVar[QueryError.Code]
        CODE_CANCELLED: _ClassVar[QueryError.Code]
        CODE_SUPERSEDED: _ClassVar[QueryError.Code]
        CODE_OVERLOADED: _ClassVar[QueryError.Code]
        CODE_INTERNAL: _ClassVar[QueryError.Code]
        CODE_DEADLINE_EXCEEDED: _ClassVar[QueryError.Code]
        CODE_UNAVAILABLE: _ClassVar[QueryError.Code]
    CODE_UNSPECIFIED: QueryError.Code
    CODE_INVALID: QueryError.Code
    CODE_NO_FRAME: QueryError.Code
    CODE_UNKNOWN_QUERY: QueryError.Code
    CODE_CANCELLED: QueryError.Code
    CODE_SUPERSEDED: QueryError.Code
    CODE_OVERLOADED: QueryError.Code
    CODE_INTERNAL: QueryError.Code
    CODE_DEADLINE_EXCEEDED: QueryError.Code
    CODE_UNAVAILABLE: QueryError.Code
    QUERY_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    query_id: int
    code: QueryError.Code
    message: str
    retry_after_ms: int
    def __init__(self, query_id: _Optional[int] = ..., code: _Optional[_Union[QueryError.Code, str]] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("image", "text", "options", "model")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    text: str
    options: GuidanceOptions
    model: str
    def __init__(self, image: _Optional[bytes] = ..., text: _Optional[str] = ..., options: _Optional[_Union[GuidanceOptions, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("model_name", "model_version", "engine", "resolution", "max_steps", "max_image_bytes", "max_image_pixels", "max_query_characters", "defaults", "notice", "models", "max_deadline_ms", "fast_previews", "presets", "speech")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUERY_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    FAST_PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    PRESETS_FIELD_NUMBER: _ClassVar[int]
    SPEECH_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    engine: str
    resolution: int
    max_steps: int
    max_image_bytes: int
    max_image_pixels: int
    max_query_characters: int
    defaults: GuidanceOptions
    notice: str
    models: _containers.RepeatedScalarFieldContainer[str]
    max_deadline_ms: int
    fast_previews: bool
    presets: _containers.RepeatedCompositeFieldContainer[GuidanceOptions]
    speech: Speech
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., engine: _Optional[str] = ..., resolution: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_query_characters: _Optional[int] = ..., defaults: _Optional[_Union[GuidanceOptions, _Mapping]] = ..., notice: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., max_deadline_ms: _Optional[int] = ..., fast_previews: _Optional[bool] = ..., presets: _Optional[_Iterable[_Union[GuidanceOptions, _Mapping]]] = ..., speech: _Optional[_Union[Speech, _Mapping]] = ...) -> None: ...
