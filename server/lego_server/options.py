"""How one query is to be sampled: a client's wishes, checked and completed with the model's defaults."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from typing import Literal, cast

from lego_core.branches import STUDENT_BRANCH, Evaluation, plan_evaluations
from lego_core.config import (
    FIDELITIES,
    MAX_CACHE_INTERVAL,
    PRESETS,
    SAMPLERS,
    Fidelity,
    GuidanceDefaults,
    LegoConfig,
    Preset,
    Sampler,
    check_guidance_interval,
    guided_steps,
    whole_number_in_range,
)
from lego_core.errors import LegoError
from lego_core.images import JPEG_QUALITY
from lego_core.manifest import CACHE_GRAPH, Manifest

from lego_server.failures import Reason, RequestError

Preview = Literal["fast", "full"]


@dataclass(frozen=True)
class OptionWishes:
    """What a client asked for; None where it left the choice to the model."""

    seed: int | None = None
    steps: int | None = None
    text_scale: float | None = None
    image_scale: float | None = None
    sampler: str | None = None
    preview_every: int | None = None
    description: str | None = None
    jpeg_quality: int | None = None
    fidelity: str = "default"
    preview: str | None = None
    preset: str | None = None
    guidance_interval: tuple[float, float] | None = None
    cache_interval: int | None = None


@dataclass(frozen=True)
class SamplingOptions:
    """What a query is sampled with. The same values, query and frame give the same picture.

    Attributes:
        seed: 0 to 2**64 - 1.
        steps: Denoising steps.
        text_scale: Guidance scale of description and VLLM features.
        image_scale: Guidance scale of the input frame.
        sampler: One of `lego_core.config.SAMPLERS`.
        preview_every: A preview every this many steps; 0 for none.
        description: Paint from this sentence instead of the model's own; None to let the model write.
        jpeg_quality: Of the guidance frame, 1 to 100.
        fidelity: "original" for the original code's post-processing; its sampling defaults are in the values above.
        preview: "fast" for the latent's colours by a linear map, "full" for the decoded picture.
        guidance_interval: Where guidance is applied, as `lego_core.config.GuidanceDefaults` has it.
        cache_interval: Every how many steps the U-Net's deep layers are evaluated.
    """

    seed: int
    steps: int
    text_scale: float
    image_scale: float
    sampler: Sampler
    preview_every: int = 0
    description: str | None = None
    jpeg_quality: int = JPEG_QUALITY["default"]
    fidelity: Fidelity = "default"
    preview: Preview = "full"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    cache_interval: int = 1

    def evaluations(self) -> list[Evaluation]:
        """Returns what each step asks of the U-Net."""
        if self.sampler == "distilled":
            return [Evaluation(STUDENT_BRANCH)] * self.steps
        return plan_evaluations(
            self.steps, self.text_scale, self.image_scale, self.guidance_interval, self.cache_interval
        )


def resolve_options(
    wishes: OptionWishes, manifest: Manifest, max_steps: int, max_description_characters: int
) -> SamplingOptions:
    """Checks a client's wishes and fills in the rest; without a seed, one is drawn.

    Raises:
        RequestError: INVALID, naming the option, its value and its range.
    """
    lego = manifest.lego
    if wishes.fidelity not in FIDELITIES:
        raise RequestError(
            Reason.INVALID, f"options.fidelity is {wishes.fidelity}; choose one of {', '.join(FIDELITIES)}"
        )
    fidelity = cast(Fidelity, wishes.fidelity)
    if wishes.sampler is not None and wishes.sampler not in SAMPLERS:
        raise RequestError(Reason.INVALID, f"options.sampler is {wishes.sampler}; choose one of {', '.join(SAMPLERS)}")
    try:
        defaults = _defaults(lego, wishes, fidelity)
    except LegoError as error:
        raise RequestError(Reason.INVALID, f"options.sampler is {wishes.sampler}: {error}") from error
    steps = defaults.steps if wishes.steps is None else wishes.steps
    text_scale = defaults.text_scale if wishes.text_scale is None else wishes.text_scale
    image_scale = defaults.image_scale if wishes.image_scale is None else wishes.image_scale
    preview_every = wishes.preview_every or 0
    jpeg_quality = JPEG_QUALITY[fidelity] if wishes.jpeg_quality is None else wishes.jpeg_quality
    if wishes.preset is not None and wishes.steps is None and steps > max_steps:
        raise RequestError(
            Reason.INVALID, f"options.preset is {wishes.preset}, which takes {steps} steps; this server allows "
            f"{max_steps}: set steps, or choose another",
        )  # fmt: skip
    for name, value, low, high in (
        ("steps", steps, 1, max_steps),
        ("text_scale", text_scale, 1, 30),
        ("image_scale", image_scale, 1, 10),
        ("preview_every", preview_every, 0, max_steps),
        ("jpeg_quality", jpeg_quality, 1, 100),
    ):
        if not low <= value <= high:  # also refuses NaN
            told = f"{value:g}" if isinstance(value, float) else value  # a float32 has digits nobody typed
            raise RequestError(Reason.INVALID, f"options.{name} is {told}; it must lie between {low} and {high}")
    guidance_interval = defaults.guidance_interval if wishes.guidance_interval is None else wishes.guidance_interval
    cache_interval = defaults.cache_interval if wishes.cache_interval is None else wishes.cache_interval
    try:
        check_guidance_interval("guidance_interval", guidance_interval)
        guided_steps(steps, guidance_interval)
        check_cache_interval(cache_interval, manifest)
        if defaults.sampler == "distilled":
            defaults.check_equal(
                GuidanceDefaults("distilled", steps, text_scale, image_scale, guidance_interval, cache_interval)
            )
    except LegoError as error:
        raise RequestError(Reason.INVALID, f"options.{error}") from error
    # As in a query: without its brackets, a text cannot pass for a special token of the model's.
    description = None if wishes.description is None else " ".join(re.sub("[<>]", " ", wishes.description).split())
    if description is not None and not 1 <= len(description) <= max_description_characters:
        raise RequestError(
            Reason.INVALID,
            f"options.description has {len(description)} characters; give 1 to {max_description_characters}, "
            "or leave it unset to let the model write it",
        )
    # 32 bits: a drawn seed is one that a person can read out and type.
    seed = secrets.randbits(32) if wishes.seed is None else wishes.seed
    return SamplingOptions(
        seed, steps, text_scale, image_scale, defaults.sampler, preview_every, description, jpeg_quality, fidelity,
        _preview(wishes.preview, manifest), guidance_interval, cache_interval,
    )  # fmt: skip


def check_cache_interval(cache_interval: int, manifest: Manifest) -> None:
    """Checks how often the deep layers are to be evaluated.

    Raises:
        LegoError: Out of range, or more than 1 and the engines lack the graph for it.
    """
    whole_number_in_range("cache_interval", cache_interval, 1, MAX_CACHE_INTERVAL)
    if cache_interval > 1 and CACHE_GRAPH not in manifest.graphs:
        raise LegoError(
            f"cache_interval is {cache_interval}, and this model's engines have no graph {CACHE_GRAPH}: rebuild them "
            "with lego-export build, or leave it unset"
        )


def _defaults(lego: LegoConfig, wishes: OptionWishes, fidelity: Fidelity) -> GuidanceDefaults:
    """Returns the preset's sampler, steps and scales; a sampler that is asked for by name goes before its."""
    sampler = cast("Sampler | None", wishes.sampler)
    if wishes.preset is None:
        return lego.defaults(sampler, fidelity)
    if wishes.preset not in PRESETS:
        raise RequestError(Reason.INVALID, f"options.preset is {wishes.preset}; choose one of {', '.join(PRESETS)}")
    if fidelity == "original":
        raise RequestError(
            Reason.INVALID, f"options.preset is {wishes.preset} and options.fidelity is original, which says by itself "
            "how to sample; leave one unset",
        )  # fmt: skip
    preset = lego.preset(cast(Preset, wishes.preset))
    if sampler is None or sampler == preset.sampler:
        return preset
    # A student's steps and scales are its own: they neither come from a preset nor go into one.
    return lego.defaults(sampler) if "distilled" in (sampler, preset.sampler) else replace(preset, sampler=sampler)


def _preview(wish: str | None, manifest: Manifest) -> Preview:
    fast_known = bool(manifest.latent.colour_map)
    if wish is None:
        return "fast" if fast_known else "full"
    if wish not in ("fast", "full"):
        raise RequestError(Reason.INVALID, f"options.preview is {wish}; choose one of fast, full")
    if wish == "fast" and not fast_known:
        raise RequestError(
            Reason.INVALID, "options.preview is fast, which this model has no colour map for: choose full, or leave "
            "it unset",
        )  # fmt: skip
    return cast(Preview, wish)
