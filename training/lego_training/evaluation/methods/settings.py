"""How each method paints: one YAML file, `configs/reproduce.yaml`, every key overridable on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lego_core.config import FIDELITIES, GUIDED_SAMPLERS, Fidelity, number_in_range, whole_number_in_range
from lego_core.errors import LegoError

from lego_training.yaml_file import build, read_settings

DEFAULTS = Path(__file__).parents[2] / "configs" / "reproduce.yaml"


@dataclass(frozen=True)
class LegoSettings:
    """LEGO's sampling, and that of all that are LEGO's network: None is the checkpoint's own value.

    Attributes:
        fidelity: "original" samples, finishes and stores as the published code does (docs/fidelity.md).
        steps: Denoising steps.
        sampler: One of `lego_core.config.GUIDED_SAMPLERS`, or "distilled".
        text_scale: Guidance scale of the text-side conditions.
        image_scale: Guidance scale of the input frame.
    """

    fidelity: Fidelity = "default"
    steps: int | None = None
    sampler: str | None = None
    text_scale: float | None = None
    image_scale: float | None = None

    def __post_init__(self) -> None:
        if self.fidelity not in FIDELITIES:
            raise LegoError(f"fidelity is {self.fidelity!r}; choose one of {', '.join(FIDELITIES)}")
        if self.sampler not in (None, *GUIDED_SAMPLERS, "distilled"):
            raise LegoError(f"sampler is {self.sampler!r}; choose one of {', '.join(GUIDED_SAMPLERS)} or distilled")
        if self.steps is not None:
            whole_number_in_range("steps", self.steps, 1, 1000)
        if self.text_scale is not None:
            number_in_range("text_scale", self.text_scale, 1, 30)
        if self.image_scale is not None:
            number_in_range("image_scale", self.image_scale, 1, 10)


@dataclass(frozen=True)
class SdEditSettings:
    """SDEdit with text, as Stable Diffusion's img2img.py does it.

    Attributes:
        steps: Of the whole of DDIM.
        strength: Share of the steps that the frame is noised by and painted again.
        text_scale: Of classifier-free guidance.
    """

    steps: int = 50
    strength: float = 0.75
    text_scale: float = 5.0

    def __post_init__(self) -> None:
        whole_number_in_range("steps", self.steps, 1, 1000)
        number_in_range("strength", self.strength, 0, 1)
        number_in_range("text_scale", self.text_scale, 0, 100)


@dataclass(frozen=True)
class ProxEditSettings:
    """ProxEdit in its form for negative-prompt inversion (Han et al. 2023).

    Attributes:
        steps: Of DDIM, for inversion and for painting.
        text_scale: Of guidance, which pushes from the source's words to the label.
        source: Words of the input frame; the paper does not say which LEGO's authors gave.
        threshold: "l0" leaves out changes below the threshold, "l1" also shrinks the others by it, "none" keeps all.
        quantile: The threshold, as a share of a picture's changes.
        restore_below: Below this timestep what is not changed is drawn back to the inverted frame.
        restore_rate: How far, 0 to 1.
        dilate: Pixels of the latent by which the changed region grows first.
        self_replace: Share of the steps in which self-attention is that of the input frame.
    """

    steps: int = 50
    text_scale: float = 7.5
    source: str = ""
    threshold: Literal["l0", "l1", "none"] = "l0"
    quantile: float = 0.7
    restore_below: int = 400
    restore_rate: float = 1.0
    dilate: int = 1
    self_replace: float = 0.6

    def __post_init__(self) -> None:
        whole_number_in_range("steps", self.steps, 1, 1000)
        number_in_range("text_scale", self.text_scale, 0, 100)
        if not isinstance(self.source, str):
            raise LegoError(f"source is {self.source!r}; it must be text")
        if self.threshold not in ("l0", "l1", "none"):
            raise LegoError(f"threshold is {self.threshold!r}; choose l0, l1 or none")
        for name in ("quantile", "restore_rate", "self_replace"):
            number_in_range(name, getattr(self, name), 0, 1)
        whole_number_in_range("restore_below", self.restore_below, 0, 100_000)
        whole_number_in_range("dilate", self.dilate, 0, 16)


@dataclass(frozen=True)
class MethodSettings:
    """All methods.

    Attributes:
        seed: With a record's ids it seeds its picture.
        batch_size: Pictures that are painted together.
        precision: "bf16" computes under autocast: faster on hardware that has it, and pictures change a little.
        lego: Of LEGO, InstructPix2Pix and the rows of table 3.
        sdedit: Of SDEdit.
        proxedit: Of ProxEdit.
    """

    seed: int = 0
    batch_size: int = 8
    precision: Literal["fp32", "bf16"] = "fp32"
    lego: LegoSettings = field(default_factory=LegoSettings)
    sdedit: SdEditSettings = field(default_factory=SdEditSettings)
    proxedit: ProxEditSettings = field(default_factory=ProxEditSettings)

    def __post_init__(self) -> None:
        whole_number_in_range("seed", self.seed, 0, 2**63 - 1)
        whole_number_in_range("batch_size", self.batch_size, 1, 4096)
        if self.precision not in ("fp32", "bf16"):
            raise LegoError(f"precision is {self.precision!r}; choose fp32 or bf16")


def load_settings(path: Path, overrides: Sequence[str] = ()) -> MethodSettings:
    """Reads the methods' YAML.

    Args:
        path: The file.
        overrides: "key=value" pairs with dotted keys, such as sdedit.strength=0.5.

    Raises:
        LegoError: Unreadable file, unknown key, or a value out of range; the message names the key.
    """
    kinds = {"lego": LegoSettings, "sdedit": SdEditSettings, "proxedit": ProxEditSettings}
    values = read_settings(path, overrides)
    parts = {key: build(kinds[key], value, key) if key in kinds else value for key, value in values.items()}
    return build(MethodSettings, parts, str(path))
