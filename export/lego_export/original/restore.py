"""From a LEGO checkpoint directory back to the original's one file, for the original's code."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_model.conditioner import Conditioner
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPTextConfig, CLIPTextModel

from lego_export.original import names
from lego_export.original.parts import Part, on_meta, read_config, shapes
from lego_export.original.schedule import BETA_END, BETA_START, TIMESTEPS, buffers
from lego_export.original.sizes import HEADS, NORM_GROUPS
from lego_export.original.tensors import LazyTensor, Tensors, match, read_folder

_EMA_DECAY = 0.9999
_ORDER = ("unet", "vae", "text_encoder", "conditioner")


def to_original(checkpoint: Path, file: Path, advance: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Writes a checkpoint as the original's Lightning file, all keys of lego-reference A2, in float32.

    The averaged U-Net is unet/; the raw one is unet_raw/ if the checkpoint keeps it, else the same as the averaged.

    Args:
        checkpoint: A checkpoint directory.
        file: The .ckpt file to make. It appears when it is whole.
        advance: Called with (bytes written, bytes in all).

    Raises:
        LegoError: The checkpoint is damaged, or not a model that the original's code can build.
    """
    if file.exists():
        raise LegoError(f"{file} is there already; choose another name")
    provenance = LegoConfig.load(checkpoint).provenance
    _check_buildable(checkpoint)
    parts = {name: _read_part(checkpoint, name) for name in _ORDER}
    raw = _read_part(checkpoint, "unet_raw") if (checkpoint / "unet_raw").is_dir() else parts["unet"]
    tensors = _original_tensors(parts, raw, provenance)
    rest = {"global_step": provenance["global_step"]} if "global_step" in provenance else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restoring-", dir=file.parent) as folder:
        _write(Path(folder) / file.name, tensors, rest, advance)
        os.replace(Path(folder) / file.name, file)


def _original_tensors(parts: dict[str, Part], raw: Part, provenance: dict[str, Any]) -> Tensors:
    ours = names.original_keys({name: part.model for name, part in parts.items()})
    unet, others, averaged = {}, {}, {}
    for original, (part, key) in ours.items():
        tensor = parts[part].tensors[key]
        if part == "unet":
            unet[original], averaged[names.ema_key(original)] = raw.tensors[key], tensor
        else:
            shape = names.original_shape((part, key), tensor.shape)
            others[original] = tensor.reshaped(shape)
    positions = torch.arange(parts["text_encoder"].model.config.max_position_embeddings)[None]  # type: ignore[union-attr, arg-type]
    average = {
        names.EMA_DECAY: torch.tensor(provenance.get("ema_decay", _EMA_DECAY), dtype=torch.float32),
        names.EMA_UPDATES: torch.tensor(provenance.get("num_updates", 0), dtype=torch.int32),
    }
    return {
        **{name: LazyTensor.of(values) for name, values in buffers().items()},
        **unet,
        **{name: LazyTensor.of(values) for name, values in average.items()},
        **averaged,
        **others,
        names.POSITION_IDS: LazyTensor.of(positions),
    }


def _check_buildable(checkpoint: Path) -> None:
    """The original's code fixes what its file does not say."""
    wanted: dict[str, dict[str, Any]] = {
        "unet": {"attention_head_dim": HEADS, "norm_num_groups": NORM_GROUPS, "use_linear_projection": False},
        "vae": {"norm_num_groups": NORM_GROUPS, "mid_block_add_attention": True},
        "conditioner": {"mixer_heads": HEADS},
        "scheduler": {
            "prediction_type": "epsilon", "beta_schedule": "scaled_linear", "beta_start": BETA_START,
            "beta_end": BETA_END, "num_train_timesteps": TIMESTEPS,
        },
    }  # fmt: skip
    for part, values in wanted.items():
        config = read_config(checkpoint / part, "scheduler_config.json" if part == "scheduler" else "config.json")
        for key, value in values.items():
            if config.get(key, value) != value:
                raise LegoError(
                    f"{checkpoint}/{part} has {key} {config[key]!r}; the original's code builds models with {value!r}"
                )


def _read_part(checkpoint: Path, name: str) -> Part:
    folder, part = checkpoint / name, name.removesuffix("_raw")
    config = read_config(folder)
    kinds: dict[str, Callable[[], Any]] = {
        "unet": lambda: UNet2DConditionModel.from_config(config),
        "vae": lambda: AutoencoderKL.from_config(config),
        "conditioner": lambda: Conditioner.from_config(config),
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**config)),
    }
    model = on_meta(kinds[part])
    tensors = read_folder(folder, "model" if part == "text_encoder" else "diffusion_pytorch_model")
    match(tensors, shapes(model), folder)
    return Part(model, tensors)


def _write(path: Path, tensors: Tensors, rest: dict[str, Any], advance: Callable[[int, int], None]) -> None:
    """Writes a PyTorch file tensor by tensor: first its outline, then each tensor's numbers into their place."""
    with FakeTensorMode():
        outline = {key: torch.empty(each.shape, dtype=_dtype(each)) for key, each in tensors.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"state_dict": outline, **rest}, path)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        places = torch.load(path, mmap=True, weights_only=True)["state_dict"]
    done, total = 0, sum(each.nbytes for each in places.values())
    for key, place in places.items():
        place.copy_(tensors[key].load())
        done += place.nbytes
        advance(done, total)


def _dtype(tensor: LazyTensor) -> torch.dtype:
    return torch.float32 if tensor.dtype.is_floating_point else tensor.dtype
