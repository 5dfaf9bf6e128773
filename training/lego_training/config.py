"""A training run's configuration: one YAML file, every key overridable on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lego_core.config import whole_number_in_range
from lego_core.errors import LegoError

from lego_training.labels import LABEL_MODES, LabelMode
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig
from lego_training.stages.distil import DistillationConfig
from lego_training.stages.text_to_image import LabelConfig
from lego_training.stages.vllm import TuningConfig
from lego_training.yaml_file import build, read_settings


@dataclass(frozen=True)
class RunConfig:
    """All stages of a run.

    Attributes:
        dataset: Name of the dataset within its directory, such as "toykitchen" or "ego4d".
        architecture: YAML of a new model's shape; a bare name is looked up in lego_model.
        seed: Of new weights.
        tune_vllm: Visual instruction tuning.
        tune_diffusion: Diffusion tuning.
        tuning: What visual instruction tuning trains.
        diffusion: What diffusion tuning trains.
        distil: Training of the few-step student; None for a run that makes none.
        distillation: What the student is to be.
        vae: The autoencoder's stage; None for models that keep Stable Diffusion's.
        pretrain_vllm: Captioning; None for models that begin with a LLaVA.
        labels: How narrations become labels, one of `lego_training.labels.LABEL_MODES`.
        tune_text_to_image: Training of the text-to-image model that baselines edit with; None makes none.
        text_to_image: How it learns labels.
        baselines: What the baselines' networks begin with: "new" weights, those of the "checkpoint", which then is the
            one that LEGO's own training began with, or "unread", those of the checkpoint but for all that reads the
            context, which is new.
    """

    dataset: str
    architecture: str
    seed: int
    tune_vllm: LoopConfig
    tune_diffusion: LoopConfig
    tuning: TuningConfig
    diffusion: DiffusionConfig
    distil: LoopConfig | None = None
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    vae: LoopConfig | None = None
    pretrain_vllm: LoopConfig | None = None
    labels: LabelMode = "corrected"
    tune_text_to_image: LoopConfig | None = None
    text_to_image: LabelConfig = field(default_factory=LabelConfig)
    baselines: Literal["new", "checkpoint", "unread"] = "new"

    def __post_init__(self) -> None:
        for name in ("dataset", "architecture"):
            if not isinstance(getattr(self, name), str):
                raise LegoError(f"{name} is {getattr(self, name)!r}; it must be text")
        if self.labels not in LABEL_MODES:
            raise LegoError(f"labels is {self.labels!r}; choose one of {', '.join(LABEL_MODES)}")
        if self.baselines not in ("new", "checkpoint", "unread"):
            raise LegoError(f"baselines is {self.baselines!r}; choose new, checkpoint or unread")
        whole_number_in_range("seed", self.seed, 0, 2**31 - 1)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run's YAML.

    Args:
        path: The file.
        overrides: "key=value" pairs with dotted keys.

    Raises:
        LegoError: Unreadable file, unknown or missing key, or a value out of range; the message names the key.
    """
    values = read_settings(path, overrides)
    if "unet" in values:
        raise LegoError(f"{path}: the key 'unet' is called 'tune_diffusion' now; rename it")
    kinds: dict[str, type[Any]] = {
        "tuning": TuningConfig, "diffusion": DiffusionConfig, "distillation": DistillationConfig,
        "text_to_image": LabelConfig,
    }  # fmt: skip
    kinds |= dict.fromkeys(
        ("vae", "pretrain_vllm", "tune_vllm", "tune_diffusion", "distil", "tune_text_to_image"), LoopConfig
    )
    parts = {key: build(kinds[key], value, key) if key in kinds else value for key, value in values.items()}
    return build(RunConfig, parts, str(path))
