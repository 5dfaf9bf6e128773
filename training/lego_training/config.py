"""A training run's configuration: one YAML file, every key overridable on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lego_training.loop import LoopConfig
from lego_training.stages.unet import DiffusionConfig


@dataclass(frozen=True)
class RunConfig:
    """All stages of a run.

    Attributes:
        dataset: Name of the dataset within its directory, such as "toykitchen" or "ego4d".
        architecture: YAML of a new model's shape; a bare name is looked up in lego_model.
        seed: Of new weights.
        vae: The autoencoder's stage.
        pretrain_vllm: Captioning.
        tune_vllm: Visual instruction tuning.
        unet: Diffusion tuning.
        diffusion: What diffusion tuning trains.
    """

    dataset: str
    architecture: str
    seed: int
    vae: LoopConfig
    pretrain_vllm: LoopConfig
    tune_vllm: LoopConfig
    unet: LoopConfig
    diffusion: DiffusionConfig


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
        values: dict[str, Any] = OmegaConf.to_container(merged, resolve=True)  # type: ignore[assignment]
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise LegoError(f"{path} cannot be read as a configuration: {error}") from error
    kinds = {"diffusion": DiffusionConfig, **dict.fromkeys(("vae", "pretrain_vllm", "tune_vllm", "unet"), LoopConfig)}
    known = _build(RunConfig, {k: _build(kinds[k], v, k) if k in kinds else v for k, v in values.items()}, str(path))
    return known


def _build(kind: type, values: dict[str, Any], place: str) -> Any:
    if not isinstance(values, dict):
        raise LegoError(f"{place} is {values!r}; it must be a mapping of keys")
    names = [f.name for f in fields(kind)]
    unknown = [key for key in values if key not in names]
    if unknown:
        raise LegoError(f"{place}: unknown key {unknown[0]!r}; known keys are {', '.join(names)}")
    try:
        return kind(**values)
    except LegoError as error:
        raise LegoError(f"{place}: {error}") from error
    except TypeError as error:
        raise LegoError(f"{place}: {error}") from error
