"""The settings of `lego-train prepare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lego_core.config import number_in_range, whole_number_in_range
from lego_core.errors import LegoError

from lego_training.yaml_file import build, read_settings

DEFAULTS = Path(__file__).parents[1] / "configs" / "prepare.yaml"
MEASURES = ("clip", "ssim", "pixels")


@dataclass(frozen=True)
class SimilarityConfig:
    """The similarity filter.

    Attributes:
        measure: One of `MEASURES`, or "auto": clip where there is a CLIP, else ssim.
        lowest: Of a pair that is kept; None takes the measure's own bound.
        highest: Likewise.
    """

    measure: str = "auto"
    lowest: float | None = None
    highest: float | None = None

    def __post_init__(self) -> None:
        if self.measure not in ("auto", *MEASURES):
            raise LegoError(f"similarity.measure is {self.measure!r}; choose auto, {', '.join(MEASURES)}")
        for name in ("lowest", "highest"):
            if getattr(self, name) is not None:
                number_in_range(f"similarity.{name}", getattr(self, name), -1.0, 1.0)


@dataclass(frozen=True)
class PrepareConfig:
    """How pairs are chosen and stored; configs/prepare.yaml says what each key means."""

    input_delta: float
    target_share: float
    candidates: int
    stride: int
    tolerance: float
    similarity: SimilarityConfig
    boxes_within: float
    height: int
    jpeg_quality: int
    workers: int
    on_error: Literal["skip", "stop"]

    def __post_init__(self) -> None:
        number_in_range("input_delta", self.input_delta, 0.0, 60.0)
        number_in_range("target_share", self.target_share, 0.0, 1.0)
        whole_number_in_range("candidates", self.candidates, 1, 61)
        if self.candidates % 2 == 0:
            raise LegoError(f"candidates is {self.candidates}; it must be odd: as many frames before as after")
        whole_number_in_range("stride", self.stride, 1, 60)
        number_in_range("tolerance", self.tolerance, 0.0, 10.0)
        number_in_range("boxes_within", self.boxes_within, 0.0, 60.0)
        whole_number_in_range("height", self.height, 16, 4096)
        whole_number_in_range("jpeg_quality", self.jpeg_quality, 1, 100)
        whole_number_in_range("workers", self.workers, 1, 256)
        if self.on_error not in ("skip", "stop"):
            raise LegoError(f"on_error is {self.on_error!r}; choose skip or stop")


def load_prepare_config(path: Path = DEFAULTS, overrides: Sequence[str] = ()) -> PrepareConfig:
    """Reads the settings.

    Args:
        path: A YAML file with all keys.
        overrides: "key=value" pairs with dotted keys.

    Raises:
        LegoError: Unreadable file, unknown or missing key, or a value out of range; the message names the key.
    """
    values = read_settings(path, overrides)
    if "similarity" in values:
        values["similarity"] = build(SimilarityConfig, values["similarity"], "similarity")
    return build(PrepareConfig, values, str(path))
