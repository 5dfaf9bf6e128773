"""`lego.json`: what a LEGO checkpoint is, beside its weights.

Training writes it, the torch pipeline reads it, and export copies it into the engine manifest, so that the
pipeline and the server treat a frame and a query in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import isclose
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Self

from lego_core.errors import LegoError
from lego_core.files import read_json

FORMAT_VERSION = 1
GUIDED_SAMPLERS = ("euler_ancestral", "euler", "dpm_solver_pp")
# "distilled" is the model's student, where it has one: its own few steps, without guidance branches.
SAMPLERS = (*GUIDED_SAMPLERS, "distilled")
Sampler = Literal["euler_ancestral", "euler", "dpm_solver_pp", "distilled"]
# "original" does as the code of the paper does, faults included: docs/fidelity.md holds every difference.
PRESETS = ("fast", "balanced", "faithful")
_FAST_STEPS, _FAITHFUL_STEPS = 8, 100
MAX_CACHE_INTERVAL = 100
Preset = Literal["fast", "balanced", "faithful"]
FIDELITIES = ("default", "original")
Fidelity = Literal["default", "original"]
# Which blocks the U-Net's context has: the rows of table 3 of the paper (lego-reference H). "label" is CLIP's reading
# of the action label alone, and needs no VLLM; the others have CLIP's reading of the description, and more.
CONDITIONINGS = ("label", "description", "description_image", "description_text", "joint")
Conditioning = Literal["label", "description", "description_image", "description_text", "joint"]


@dataclass(frozen=True)
class GuidanceDefaults:
    """How this model is best sampled when the wearer does not say.

    Attributes:
        sampler: One of `SAMPLERS`.
        steps: Denoising steps, 1 to 1000.
        text_scale: Guidance scale of the text-side conditions (7.5 in the paper's code, lego-reference B).
        image_scale: Guidance scale of the input frame (1.5 in the paper's code).
        guidance_interval: Where guidance is applied, as two fractions of the steps, from the noisiest (0) to the last
            (1); a step counts by its middle. Outside it the conditional branch alone is asked. (0, 1) guides them all.
        cache_interval: Every how many steps the U-Net's deep layers are evaluated, 1 to 100; between, the features they
            gave last are used again. 1 evaluates them at every step.
    """

    sampler: Sampler = "euler_ancestral"
    steps: int = 100
    text_scale: float = 7.5
    image_scale: float = 1.5
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    cache_interval: int = 1

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise LegoError(f"guidance.sampler is {self.sampler!r}; choose one of {', '.join(SAMPLERS)}")
        whole_number_in_range("guidance.steps", self.steps, 1, 1000)
        number_in_range("guidance.text_scale", self.text_scale, 1, 30)
        number_in_range("guidance.image_scale", self.image_scale, 1, 10)
        check_guidance_interval("guidance.guidance_interval", self.guidance_interval)
        object.__setattr__(self, "guidance_interval", tuple(self.guidance_interval))  # JSON has lists only
        guided_steps(self.steps, self.guidance_interval)
        whole_number_in_range("guidance.cache_interval", self.cache_interval, 1, MAX_CACHE_INTERVAL)

    def check_equal(self, wanted: GuidanceDefaults) -> None:
        """Checks wishes against a student's steps and scales, which are these and no others.

        Raises:
            LegoError: They differ; the message names the option.
        """
        for name in ("steps", "text_scale", "image_scale"):
            learnt, value = getattr(self, name), getattr(wanted, name)
            if not isclose(learnt, value, rel_tol=1e-6):  # a client sends float32
                raise LegoError(f"{name} is {value:g}; this model's student was distilled for {learnt:g} alone")
        if self.guidance_interval != wanted.guidance_interval:
            low, high = wanted.guidance_interval
            raise LegoError(
                f"guidance_interval is {low:g} to {high:g}; this model's student was distilled for 0 to 1 alone"
            )
        if self.cache_interval != wanted.cache_interval:
            raise LegoError(
                f"cache_interval is {wanted.cache_interval}; this model's student was distilled for 1 alone"
            )

    def at(self, fidelity: Fidelity) -> GuidanceDefaults:
        """Returns these defaults, or in the fidelity "original" those of the original code (lego-reference B).

        Raises:
            LegoError: No such fidelity.
        """
        if fidelity not in FIDELITIES:
            raise LegoError(f"fidelity is {fidelity!r}; choose one of {', '.join(FIDELITIES)}")
        return GuidanceDefaults("euler_ancestral", 100, 7.5, 1.5) if fidelity == "original" else self


@dataclass(frozen=True)
class StudentConfig:
    """The distilled student of a model: few steps, no guidance branches.

    Attributes:
        timesteps: At which the U-Net is asked, falling, one evaluation each.
        text_scale: The teacher's guidance scales, which the student has learnt; they cannot be chosen any more.
        image_scale: See above.
    """

    timesteps: tuple[int, ...]
    text_scale: float
    image_scale: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "timesteps", tuple(self.timesteps))
        for timestep in self.timesteps:
            whole_number_in_range("student.timesteps", timestep, 1, 99_999)
        if not self.timesteps or list(self.timesteps) != sorted(set(self.timesteps), reverse=True):
            raise LegoError(
                f"student.timesteps is {list(self.timesteps)}; give at least one, each below the one before"
            )
        number_in_range("student.text_scale", self.text_scale, 1, 30)
        number_in_range("student.image_scale", self.image_scale, 1, 10)


@dataclass(frozen=True)
class VisionInput:
    """How the vision tower wants its picture.

    Attributes:
        size: Side in pixels of the square picture.
        fit: "centre_crop" resizes the shortest edge and crops (CLIP, lego-reference C5);
            "squash" resizes both sides and shows the tower the whole frame.
        mean: Per-channel mean subtracted from [0, 1] values.
        std: Per-channel standard deviation divided by.
    """

    size: int = 224
    fit: Literal["centre_crop", "squash"] = "centre_crop"
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        for name, low in (("mean", -1e3), ("std", 1e-6)):
            values = tuple(getattr(self, name))
            if len(values) != 3:
                raise LegoError(f"vision.{name} is {values}; give one number per channel, red, green and blue")
            for value in values:
                number_in_range(f"vision.{name}", value, low, 1e3)
            object.__setattr__(self, name, values)
        whole_number_in_range("vision.size", self.size, 16, 1024)
        if self.fit not in ("centre_crop", "squash"):
            raise LegoError(f"vision.fit is {self.fit!r}; choose centre_crop or squash")


@dataclass(frozen=True)
class LegoConfig:
    """One LEGO model's shape and manners.

    Attributes:
        name: The model's name, shown to people.
        resolution: Side in pixels of the square frame the latent diffusion model works on; a multiple of 64.
        text_tokens: N, tokens of the CLIP description and rows of VLLM text features (77 in the original).
        image_tokens: M, VLLM image features (256 in the original).
        query_template: The question put to the VLLM; `{action}` stands for the action asked about.
        prompt_template: The whole prompt; `{query}` stands for the question, `<image>` for the image tokens.
        max_description_tokens: The description stops here if the model has not ended it.
        guidance: Sampling defaults.
        vision: The vision tower's input.
        student: The distilled student, if the model has one.
        conditioning: What the U-Net was trained to read, one of `CONDITIONINGS`; "joint" is LEGO.
        notice: One sentence a user must know about this model; empty if none.
        licence: SPDX name of the weights' licence.
        provenance: How the weights were made: commit, commands, data, seeds.
    """

    name: str
    resolution: int = 256
    text_tokens: int = 77
    image_tokens: int = 256
    query_template: str = "How does the person properly {action} that is displayed in the video frame?"
    prompt_template: str = "<image>\n{query}"
    max_description_tokens: int = 77
    guidance: GuidanceDefaults = field(default_factory=GuidanceDefaults)
    vision: VisionInput = field(default_factory=VisionInput)
    student: StudentConfig | None = None
    conditioning: Conditioning = "joint"
    notice: str = ""
    licence: str = "Apache-2.0"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("name", "query_template", "prompt_template", "notice", "licence"):
            if not isinstance(getattr(self, name), str):
                raise LegoError(f"{name} is {getattr(self, name)!r}; it must be text")
        if not self.name:
            raise LegoError("name is empty; give the model a name")
        whole_number_in_range("resolution", self.resolution, 64, 4096)
        if self.resolution % 64:
            raise LegoError(f"resolution is {self.resolution}; it must be a multiple of 64")
        # A description has a beginning and an end token at least.
        whole_number_in_range("text_tokens", self.text_tokens, 2, 4096)
        whole_number_in_range("image_tokens", self.image_tokens, 1, 65536)
        whole_number_in_range("max_description_tokens", self.max_description_tokens, 1, 4096)
        if "{action}" not in self.query_template:
            raise LegoError(f"query_template {self.query_template!r} lacks {{action}}")
        if "{query}" not in self.prompt_template or self.prompt_template.count("<image>") != 1:
            raise LegoError(f"prompt_template {self.prompt_template!r} needs {{query}} and exactly one <image>")
        check_conditioning(self.conditioning)
        if self.guidance.sampler == "distilled":
            raise LegoError(f"guidance.sampler is that of the guided model; choose one of {', '.join(GUIDED_SAMPLERS)}")

    def defaults(self, sampler: Sampler | None = None, fidelity: Fidelity = "default") -> GuidanceDefaults:
        """Returns how to sample with a sampler, or with the model's own, when nothing else is said.

        Raises:
            LegoError: No such fidelity, or the student is asked for and the model has none.
        """
        if sampler != "distilled":
            own = self.guidance.at(fidelity)
            return own if sampler is None else replace(own, sampler=sampler)
        if self.student is None:
            raise LegoError(f"{self.name} has no distilled student; choose one of {', '.join(GUIDED_SAMPLERS)}")
        return GuidanceDefaults(
            "distilled", len(self.student.timesteps), self.student.text_scale, self.student.image_scale
        )

    def preset(self, name: Preset) -> GuidanceDefaults:
        """Returns how to sample by a preset: "fast", "balanced" (the model's own) or "faithful" (as the paper).

        Without a student, "fast" is DPM-Solver++ in at most 8 steps.

        Raises:
            LegoError: No such preset.
        """
        match name:
            case "fast" if self.student is not None:
                return self.defaults("distilled")
            case "fast":
                return replace(self.guidance, sampler="dpm_solver_pp", steps=min(self.guidance.steps, _FAST_STEPS))
            case "balanced":
                return self.guidance
            case "faithful":
                return GuidanceDefaults(
                    "euler_ancestral", _FAITHFUL_STEPS, self.guidance.text_scale, self.guidance.image_scale
                )
        raise LegoError(f"preset is {name!r}; choose one of {', '.join(PRESETS)}")

    def sampling(
        self, fidelity: Fidelity = "default", sampler: Sampler | None = None, **wishes: Any
    ) -> GuidanceDefaults:
        """Returns the defaults with what somebody asked for in their place.

        Args:
            fidelity: Whose defaults.
            sampler: None takes the model's own.
            wishes: steps, text_scale, image_scale, guidance_interval and cache_interval; None where nothing was asked
                for.

        Raises:
            LegoError: A value is out of range, or the student's and not what it was distilled for.
        """
        defaults = self.defaults(sampler, fidelity)
        wanted = replace(defaults, **{name: value for name, value in wishes.items() if value is not None})
        if wanted.sampler == "distilled":
            defaults.check_equal(wanted)
        return wanted

    @property
    def has_image_block(self) -> bool:
        """Whether the context has σ of the VLLM's image embeddings."""
        return self.conditioning in ("description_image", "joint")

    @property
    def has_text_block(self) -> bool:
        """Whether the context has π of the VLLM's text states."""
        return self.conditioning in ("description_text", "joint")

    @property
    def projected_tokens(self) -> int:
        """Tokens of the context that follow CLIP's: M of the image block, N of the text block."""
        return self.image_tokens * self.has_image_block + self.text_tokens * self.has_text_block

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, the format version first."""
        return {"format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Builds the config from JSON values.

        Raises:
            LegoError: Unknown format version, unknown or missing key, or a value of the wrong type or range.
        """
        values = dict(_mapping(values, "the configuration"))
        version = values.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise LegoError(
                f"format_version is {version!r}; this software reads {FORMAT_VERSION}: convert the checkpoint"
            )
        guidance = _known_keys(GuidanceDefaults, values.pop("guidance", {}), "guidance")
        vision = _known_keys(VisionInput, values.pop("vision", {}), "vision")
        student = values.pop("student", None)
        if student is not None:
            student = StudentConfig(**_known_keys(StudentConfig, student, "student"))
        known = _known_keys(cls, values, "")
        if "name" not in known:
            raise LegoError("the key name is missing; give the model a name")
        return cls(**known, guidance=GuidanceDefaults(**guidance), vision=VisionInput(**vision), student=student)

    def save(self, directory: Path) -> None:
        """Writes `lego.json` into a checkpoint directory."""
        directory.mkdir(parents=True, exist_ok=True)
        # An interrupted write must not cost the file before it.
        partial = directory / ".lego.json.partial"
        partial.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        partial.replace(directory / "lego.json")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads `lego.json` of a checkpoint directory.

        Raises:
            LegoError: The directory is no LEGO checkpoint, or the file is not valid.
        """
        path = Path(directory) / "lego.json"
        if not path.is_file():
            raise LegoError(f"{directory} is not a LEGO checkpoint directory: it has no lego.json")
        try:
            values = read_json(path)
        except ValueError as error:  # not JSON, or not even text
            raise LegoError(f"{path} is not valid JSON ({error}); restore the file") from error
        try:
            return cls.from_dict(values)
        except (LegoError, TypeError) as error:
            raise LegoError(f"{path}: {error}") from error


def check_conditioning(value: Any) -> None:
    """Checks the name of a context.

    Raises:
        LegoError: It is none of `CONDITIONINGS`.
    """
    if value not in CONDITIONINGS:
        raise LegoError(f"conditioning is {value!r}; choose one of {', '.join(CONDITIONINGS)}")


def check_guidance_interval(name: str, value: Any) -> None:
    """Checks the two ends of a guidance interval.

    Raises:
        LegoError: Not two numbers with 0 <= low < high <= 1; the message starts with `name`.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise LegoError(f"{name} is {value!r}; give two fractions of the steps, its beginning and its end")
    for end, fraction in zip(("beginning", "end"), value, strict=True):
        number_in_range(f"{name}'s {end}", fraction, 0, 1)
    low, high = value
    if low >= high:
        raise LegoError(f"{name} is {low:g} to {high:g}; its beginning must lie before its end")


def guided_steps(steps: int, guidance_interval: tuple[float, float]) -> list[int]:
    """Returns the steps, counted from 0, whose middle lies within a guidance interval.

    Raises:
        LegoError: There is none.
    """
    low, high = guidance_interval
    guided = [step for step in range(steps) if low <= (step + 0.5) / steps < high]
    if not guided:
        raise LegoError(
            f"guidance_interval is {low:g} to {high:g}, which holds the middle of none of the {steps} steps: widen it, "
            "take more steps, or set both scales to 1 to do without guidance"
        )
    return guided


def number_in_range(name: str, value: Any, low: float, high: float) -> None:
    """Checks a number of a configuration.

    Raises:
        LegoError: `value` is no number, or lies outside `low` to `high`; the message starts with `name`.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise LegoError(f"{name} is {value!r}; it must be a number between {low:g} and {high:g}")
    if not low <= float(value) <= high:  # also refuses NaN
        raise LegoError(f"{name} is {value}; it must lie between {low:g} and {high:g}")


def whole_number_in_range(name: str, value: Any, low: int, high: int) -> None:
    """Checks a whole number of a configuration.

    Raises:
        LegoError: `value` is no whole number, or lies outside `low` to `high`; the message starts with `name`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise LegoError(f"{name} is {value!r}; it must be a whole number between {low} and {high}")
    if not low <= int(value) <= high:
        raise LegoError(f"{name} is {value}; it must lie between {low} and {high}")


def _mapping(values: Any, place: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise LegoError(f"{place} is {values!r}; it must be a mapping of keys")
    return values


def _known_keys(cls: type, values: Any, prefix: str) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    unknown = sorted(set(_mapping(values, prefix)) - names)
    if unknown:
        place = f"{prefix}." if prefix else ""
        raise LegoError(f"unknown key {place}{unknown[0]}; known keys are {', '.join(sorted(names))}")
    return values
