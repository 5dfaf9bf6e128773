"""What a server says and what a query asks for, as plain data: nothing here knows of protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lego_core.config import FIDELITIES, MAX_CACHE_INTERVAL, PRESETS, SAMPLERS, check_guidance_interval
from lego_core.errors import LegoError

PREVIEWS = ("fast", "full")


@dataclass(frozen=True)
class GuidanceOptions:
    """How to sample. None takes the model's own default.

    Attributes:
        seed: 0 to 2^64 - 1; the same seed, frame and query give the same picture.
        steps: Denoising steps, at least 1.
        text_scale: Classifier-free guidance scale of the query and description, 1 to 30.
        image_scale: Classifier-free guidance scale of the input frame, 1 to 10.
        sampler: One of `lego_core.config.SAMPLERS`.
        preview_every: A preview picture every this many steps; None sends none.
        description: Paint this sentence instead of letting the model describe the action.
        jpeg_quality: Of the guidance frame, 1 to 100.
        fidelity: One of `lego_core.config.FIDELITIES`; "original" as the code of the paper does.
        preview: What previews are made of, one of `PREVIEWS`: "fast" is small and free, "full" costs a decoding each.
        preset: One of `lego_core.config.PRESETS`: how much time the picture may take, where the above do not say.
        guidance_interval: Where guidance is applied, as two fractions of the steps, 0 <= low < high <= 1.
        cache_interval: Every how many steps the U-Net's deep layers are evaluated, 1 to 100.
    """

    seed: int | None = None
    steps: int | None = None
    text_scale: float | None = None
    image_scale: float | None = None
    sampler: str | None = None
    preview_every: int | None = None
    description: str | None = None
    jpeg_quality: int | None = None
    fidelity: str | None = None
    preview: str | None = None
    preset: str | None = None
    guidance_interval: tuple[float, float] | None = None
    cache_interval: int | None = None

    def __post_init__(self) -> None:
        _check_range("seed", self.seed, 0, 2**64 - 1)
        _check_range("steps", self.steps, 1, 1000)
        _check_range("text-scale", self.text_scale, 1, 30)
        _check_range("image-scale", self.image_scale, 1, 10)
        _check_range("previews", self.preview_every, 1, 1000)
        _check_range("quality", self.jpeg_quality, 1, 100)
        _check_range("cache-interval", self.cache_interval, 1, MAX_CACHE_INTERVAL)
        if self.guidance_interval is not None:
            check_guidance_interval("guidance-interval", self.guidance_interval)
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise LegoError(f"sampler is {self.sampler!r}; choose one of {', '.join(SAMPLERS)}")
        if self.fidelity is not None and self.fidelity not in FIDELITIES:
            raise LegoError(f"fidelity is {self.fidelity!r}; choose one of {', '.join(FIDELITIES)}")
        if self.preview is not None and self.preview not in PREVIEWS:
            raise LegoError(f"preview is {self.preview!r}; choose one of {', '.join(PREVIEWS)}")
        if self.preset is not None and self.preset not in PRESETS:
            raise LegoError(f"preset is {self.preset!r}; choose one of {', '.join(PRESETS)}")
        if self.description is not None and not self.description.strip():
            raise LegoError("the description is empty; write the sentence to paint, or leave the option out")


@dataclass(frozen=True)
class Timings:
    """Milliseconds the server spent on one query, by stage; `total_ms` from its arrival to the answer."""

    queue_ms: float = 0.0
    encode_ms: float = 0.0
    describe_ms: float = 0.0
    condition_ms: float = 0.0
    denoise_ms: float = 0.0
    decode_ms: float = 0.0
    total_ms: float = 0.0


@dataclass(frozen=True)
class ServerInfo:
    """What a server runs and which limits it sets. A limit of 0 is not stated.

    Attributes:
        model_name: The model's name.
        model_version: Identifies the weights.
        engine: What runs them.
        resolution: Side in pixels of the square the model works at.
        max_steps: Most denoising steps of a query.
        max_image_bytes: Largest encoded frame.
        max_image_pixels: Largest frame, width times height.
        max_query_characters: Longest query.
        defaults: The model's own options.
        notice: What a user should know of this model; empty when nothing.
        models: Names by which models may be asked, the default first; empty where there is no choice.
        max_deadline_seconds: The longest a query may take.
        fast_previews: Whether previews can be had at no cost.
        presets: Sampler, steps and scales of every preset the server allows, by their names.
        speech: What writes down speech there; empty where nothing does.
        max_utterance_seconds: The longest utterance it takes.
    """

    model_name: str = ""
    model_version: str = ""
    engine: str = ""
    resolution: int = 0
    max_steps: int = 0
    max_image_bytes: int = 0
    max_image_pixels: int = 0
    max_query_characters: int = 0
    defaults: GuidanceOptions = field(default_factory=GuidanceOptions)
    notice: str = ""
    models: tuple[str, ...] = ()
    max_deadline_seconds: float = 0.0
    fast_previews: bool = False
    presets: dict[str, GuidanceOptions] = field(default_factory=dict)
    speech: str = ""
    max_utterance_seconds: float = 0.0


@dataclass(frozen=True)
class DescriptionPiece:
    """The next piece of the description; pieces concatenate to the whole. `done` marks the last."""

    query_id: int
    text: str
    done: bool


@dataclass(frozen=True)
class Progress:
    """Denoising steps done, of all, and perhaps a preview (JPEG bytes, else empty)."""

    query_id: int
    step: int
    steps: int
    preview: bytes = b""


@dataclass(frozen=True)
class Guidance:
    """The answer: the guidance frame and everything that makes it again.

    Attributes:
        query_id: The query answered.
        frame_id: The frame it was answered about.
        description: The enriched action description.
        image: The guidance frame, JPEG bytes, at the input frame's aspect ratio.
        width: Pixels.
        height: Pixels.
        seed: Of the noise.
        steps: Denoising steps taken.
        text_scale: Guidance scale used.
        image_scale: Guidance scale used.
        sampler: One of `lego_core.config.SAMPLERS`.
        fidelity: One of `lego_core.config.FIDELITIES`.
        model_version: Identifies the weights.
        timings: As seen by the server.
        guidance_interval: Where guidance was applied, as two fractions of the steps.
        cache_interval: Every how many steps the U-Net's deep layers were evaluated.
    """

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
    sampler: str
    fidelity: str
    model_version: str
    timings: Timings
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    cache_interval: int = 1


@dataclass(frozen=True)
class QueryFailed:
    """A query that gets no picture.

    Attributes:
        query_id: The query; 0 when a frame or the session is at fault.
        code: "invalid", "no_frame", "unknown_query", "cancelled", "superseded", "overloaded", "internal",
            "deadline_exceeded" or "unavailable".
        message: What was wrong and what to do.
        retry_after_seconds: When asking again may help; 0 where it does not.
    """

    query_id: int
    code: str
    message: str
    retry_after_seconds: float = 0.0


@dataclass(frozen=True)
class ConnectionLost:
    """The server cannot be reached now; the client is trying to. `reason` says what happened."""

    reason: str


@dataclass(frozen=True)
class Reconnected:
    """The server is there again; `resumed` if it still had the session, with all that was under way."""

    resumed: bool


@dataclass(frozen=True)
class QueryRestarted:
    """The query is asked anew under this id: what came of it so far is void, and its description begins again."""

    query_id: int


QueryEvent = DescriptionPiece | Progress | Guidance | QueryFailed
Event = QueryEvent | ConnectionLost | Reconnected | QueryRestarted


def _check_range(option: str, value: Any, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise LegoError(f"{option} is {value}; it must be from {low} to {high}")
