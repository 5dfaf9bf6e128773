"""One part of a checkpoint on its way to disk: written shard by shard, so that memory holds one shard at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from lego_core.errors import LegoError
from safetensors.torch import save_file
from torch import Tensor, nn

from lego_export.original.tensors import LazyTensor, Tensors

Weights = Literal["fp32", "fp16"]

SHARD_BYTES = 2_000_000_000
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def read_config(folder: Path, file: str = "config.json") -> dict[str, Any]:
    """Reads a part's configuration.

    Raises:
        LegoError: It is missing or no JSON mapping.
    """
    try:
        values = json.loads((folder / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LegoError(f"{folder / file} cannot be read ({error}); restore the folder") from error
    if not isinstance(values, dict):
        raise LegoError(f"{folder / file} is no configuration; restore the folder")
    # A path of the machine it was made on.
    values.pop("_name_or_path", None)
    return values


@dataclass(frozen=True)
class Part:
    """One folder of a checkpoint.

    Attributes:
        model: The module without its weights (on the meta device): its configuration, names and shapes.
        tensors: Its weights by the module's names.
    """

    model: nn.Module
    tensors: Tensors


def on_meta(model: Callable[..., nn.Module], *args: Any, **kwargs: Any) -> nn.Module:
    """Builds a module without allocating its weights."""
    with torch.device("meta"):
        return model(*args, **kwargs)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns a module's weights by name."""
    return {key: tuple(each.shape) for key, each in model.state_dict().items()}


def stored_dtype(tensor: LazyTensor, weights: Weights | None) -> torch.dtype:
    """Returns how a weight will be stored: as asked, else as it is, if it is fp32 or fp16, else fp32."""
    if weights is not None:
        return _DTYPES[weights]
    return tensor.dtype if tensor.dtype == torch.float16 else torch.float32


def stored_bytes(part: Part, weights: Weights | None) -> int:
    """Returns how many bytes a part's weights will take."""
    return sum(_bytes(each, weights) for each in part.tensors.values())


def write_part(
    part: Part, directory: Path, weights: Weights | None, advance: Callable[[int], None] = lambda count: None
) -> None:
    """Writes configuration and weights.

    Args:
        part: What to write.
        directory: Its folder.
        weights: See `stored_dtype`.
        advance: Called with the bytes written, after each shard.

    Raises:
        LegoError: A value does not fit into half precision.
    """
    directory.mkdir(parents=True)
    is_transformers = hasattr(part.model, "base_model_prefix")
    _write_config(part, directory, is_transformers, weights)
    stem = "model" if is_transformers else "diffusion_pytorch_model"
    split = split_state_dict_into_shards_factory(
        part.tensors,
        get_storage_size=lambda each: _bytes(each, weights),
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=SHARD_BYTES,
    )
    for file, keys in split.filename_to_tensors.items():
        shard = {key: _stored(directory.name, key, part.tensors[key], weights) for key in keys}
        save_file(shard, directory / file, metadata={"format": "pt"})
        advance(sum(each.nbytes for each in shard.values()))
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _write_config(part: Part, directory: Path, is_transformers: bool, weights: Weights | None) -> None:
    model: Any = part.model
    if not is_transformers:
        model.save_config(directory)
        return
    model.config.architectures = [type(model).__name__]
    model.config.dtype = stored_dtype(next(iter(part.tensors.values())), weights)
    model.config.save_pretrained(directory)


def _bytes(tensor: LazyTensor, weights: Weights | None) -> int:
    return torch.Size(tensor.shape).numel() * stored_dtype(tensor, weights).itemsize


def _stored(part: str, key: str, tensor: LazyTensor, weights: Weights | None) -> Tensor:
    values = tensor.load()
    dtype = stored_dtype(tensor, weights)
    stored = values.to(dtype)
    if dtype == torch.float16 and values.dtype != dtype and not torch.equal(stored.isfinite(), values.isfinite()):
        raise LegoError(
            f"{part}: {key} reaches {values.abs().max().item():g}, more than half precision holds; convert with "
            "--weights fp32"
        )
    return stored.contiguous()
