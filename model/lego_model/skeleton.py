"""A model's networks without their weights: on the meta device, whatever their size, in a moment and in no memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from transformers import CLIPTextModel, LlavaForConditionalGeneration

from lego_model.checkpoint import LegoCheckpoint, load_scheduler, load_tokenizer
from lego_model.conditioner import Conditioner
from lego_model.create import Parts, build_parts, lego_config, naming_faults, read_shape

ARCHITECTURES = Path(__file__).parent
_KINDS: dict[str, Any] = {
    "unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel, "conditioner": Conditioner,
    "vllm": LlavaForConditionalGeneration,
}  # fmt: skip


@dataclass(frozen=True)
class Skeleton:
    """What a model is, without its weights.

    Attributes:
        config: `lego.json`.
        parts: The networks in evaluation mode, their tensors on the meta device.
    """

    config: LegoConfig
    parts: Parts


def read_skeleton(source: str | Path) -> Skeleton:
    """Builds a model on the meta device.

    Args:
        source: A checkpoint directory, an architecture file, or the name of one of lego_model's, such as "nano.yaml".

    Raises:
        LegoError: It is none of these, one of its files is damaged, or a checkpoint's parts do not fit each other.
    """
    path = Path(source)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        raise LegoError(
            f"{path} is no architecture file (.yaml); of weights, convert them first, then name the checkpoint"
        )
    skeleton = _of_checkpoint(path) if path.is_dir() else _of_architecture(find_architecture(path))
    for part in vars(skeleton.parts).values():
        part.eval()
    return skeleton


def find_architecture(path: Path) -> Path:
    """Returns the architecture file of this path or, failing that, of this name among lego_model's.

    Raises:
        LegoError: There is none.
    """
    for candidate in (path, ARCHITECTURES / path.name, ARCHITECTURES / f"{path.name}.yaml"):
        if candidate.is_file() and (candidate == path or path.parent == Path()):
            return candidate
    ours = ", ".join(sorted(each.name for each in ARCHITECTURES.glob("*.yaml")))
    raise LegoError(f"{path} is no architecture: neither a checkpoint directory, nor a YAML file, nor one of {ours}")


def _of_architecture(path: Path) -> Skeleton:
    with naming_faults(path), torch.device("meta"):
        shape = read_shape(path)
        return Skeleton(lego_config(shape), build_parts(shape, shape["vocabulary"]))


def _of_checkpoint(directory: Path) -> Skeleton:
    config = LegoConfig.load(directory)
    parts = {}
    with torch.device("meta"):
        for name, kind in _KINDS.items():
            folder = directory / name
            try:
                if issubclass(kind, ConfigMixin):
                    parts[name] = kind.from_config(kind.load_config(folder, local_files_only=True))
                else:
                    parts[name] = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
            except Exception as error:  # diffusers and transformers raise many types on damaged configs
                raise LegoError(f"{folder}/config.json says no {name} ({error}); restore the checkpoint") from error
    LegoCheckpoint(
        config, **parts, scheduler=load_scheduler(directory / "scheduler"),
        tokenizer=load_tokenizer(directory / "tokenizer"), vllm_tokenizer=load_tokenizer(directory / "vllm"),
    ).check()  # fmt: skip
    return Skeleton(config, Parts(**parts))
