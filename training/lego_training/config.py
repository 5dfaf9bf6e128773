"""A training run's configuration: one YAML file, every key overridable on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from lego_core.config import whole_number_in_range
from lego_core.errors import LegoError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lego_training.labels import LABEL_MODES, LabelMode
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig
from lego_training.stages.vllm import TuningConfig

Built = TypeVar("Built")


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
        vae: The autoencoder's stage; None for models that keep Stable Diffusion's.
        pretrain_vllm: Captioning; None for models that begin with a LLaVA.
        labels: How narrations become labels, one of `lego_training.labels.LABEL_MODES`.
    """

    dataset: str
    architecture: str
    seed: int
    tune_vllm: LoopConfig
    tune_diffusion: LoopConfig
    tuning: TuningConfig
    diffusion: DiffusionConfig
    vae: LoopConfig | None = None
    pretrain_vllm: LoopConfig | None = None
    labels: LabelMode = "corrected"

    def __post_init__(self) -> None:
        for name in ("dataset", "architecture"):
            if not isinstance(getattr(self, name), str):
                raise LegoError(f"{name} is {getattr(self, name)!r}; it must be text")
        if self.labels not in LABEL_MODES:
            raise LegoError(f"labels is {self.labels!r}; choose one of {', '.join(LABEL_MODES)}")
        whole_number_in_range("seed", self.seed, 0, 2**31 - 1)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run's YAML.

    Args:
        path: The file.
        overrides: "key=value" pairs with dotted keys.

    Raises:
        LegoError: Unreadable file, unknown or missing key, or a value out of range; the message names the key.
    """
    bad = [override for override in overrides if "=" not in override]
    if bad:
        raise LegoError(f"the override {bad[0]!r} is not of the form key=value")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OSError, ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise LegoError(f"{path} cannot be read as a configuration: {error}") from error
    kinds = {"tuning": TuningConfig, "diffusion": DiffusionConfig}
    kinds |= dict.fromkeys(("vae", "pretrain_vllm", "tune_vllm", "tune_diffusion"), LoopConfig)
    if not isinstance(values, dict):
        raise LegoError(f"{path} is no mapping of keys")
    if "unet" in values:
        raise LegoError(f"{path}: the key 'unet' is called 'tune_diffusion' now; rename it")
    parts = {key: _build(kinds[key], value, key) if key in kinds else value for key, value in values.items()}
    return _build(RunConfig, parts, str(path))


def _build(kind: type[Built], values: Any, place: str) -> Built:
    if not isinstance(values, dict):
        raise LegoError(f"{place} is {values!r}; it must be a mapping of keys")
    known = {each.name: each.default is MISSING for each in fields(kind)}  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise LegoError(f"{place}: unknown key {unknown[0]!r}; known keys are {', '.join(known)}")
    missing = [key for key, needed in known.items() if needed and key not in values]
    if missing:
        raise LegoError(f"{place}: the key {missing[0]!r} is missing")
    try:
        return kind(**values)
    except LegoError as error:
        raise LegoError(f"{place}: {error}") from error
