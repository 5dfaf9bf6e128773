"""Pipelines in diffusers' layout: a folder with unet/, vae/, text_encoder/, tokenizer/ and scheduler/."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from lego_core.errors import LegoError
from transformers import CLIPTextConfig, CLIPTextModel

from lego_export.original.parts import Part, on_meta, read_config, shapes
from lego_export.original.schedule import BETA_END, BETA_START, TIMESTEPS
from lego_export.original.source import Source, unet_for_frames
from lego_export.original.tensors import match, read_folder

# Names that older versions gave, and those of today.
_OLDER_NAMES = {
    "unet": {},
    "vae": {r"\.query\.": ".to_q.", r"\.key\.": ".to_k.", r"\.value\.": ".to_v.", r"\.proj_attn\.": ".to_out.0."},
    "text_encoder": {r"^text_model\.": ""},
}
_SCHEDULE = {
    "beta_schedule": "scaled_linear", "beta_start": BETA_START, "beta_end": BETA_END, "num_train_timesteps": TIMESTEPS,
}  # fmt: skip


def read_pipeline(folder: Path) -> Source:
    """Reads a Stable Diffusion 1.x or InstructPix2Pix pipeline.

    Raises:
        LegoError: It is another kind of pipeline, or a part is missing, damaged, or not what its configuration says.
    """
    if (folder / "text_encoder_2").is_dir() or (folder / "transformer").is_dir():
        raise LegoError(f"{folder} is a pipeline of another family; LEGO is built on Stable Diffusion 1.x")
    unet = _read_part(folder / "unet", lambda path: UNet2DConditionModel.from_config(read_config(path)))
    vae = _read_part(folder / "vae", lambda path: AutoencoderKL.from_config(read_config(path)))
    text = _read_part(folder / "text_encoder", lambda path: CLIPTextModel(CLIPTextConfig(**read_config(path))))
    config: Any = unet.model.config
    process = read_config(folder / "scheduler", "scheduler_config.json")
    different = {key: process.get(key) for key, value in _SCHEDULE.items() if process.get(key) != value}
    if different:
        raise LegoError(f"{folder}/scheduler has {different}; Stable Diffusion 1.x has {_SCHEDULE}")
    parts = {"unet": unet_for_frames(dict(config), unet.tensors, folder / "unet"), "vae": vae, "text_encoder": text}
    family = "InstructPix2Pix" if config.in_channels == 2 * config.out_channels else "Stable Diffusion"
    return Source(
        family,  # type: ignore[arg-type]
        parts,
        prediction_type=process.get("prediction_type", "epsilon"),
        provenance={"file": folder.resolve().name},
        tokenizer=folder / "tokenizer",
    )


def _read_part(folder: Path, build: Callable[[Path], Any]) -> Part:
    if not folder.is_dir():
        raise LegoError(f"{folder.parent} lacks {folder.name}/; restore the pipeline")
    try:
        model = on_meta(build, folder)
    except LegoError:
        raise
    except Exception as error:  # the libraries raise many types on a configuration they cannot build
        raise LegoError(f"{folder}/config.json cannot be built ({error}); restore the pipeline") from error
    stem = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    # transformers' older .bin files have a stem of their own.
    if stem == "model" and not list(folder.glob("model*.safetensors*")):
        stem = "pytorch_model"
    found, expected, tensors = read_folder(folder, stem), shapes(model), {}
    for key, tensor in found.items():
        name = key
        for older, today in _OLDER_NAMES[folder.name].items():
            name = re.sub(older, today, name)
        # transformers 5 makes them on the fly.
        if not name.endswith("embeddings.position_ids"):
            tensors[name] = tensor
    for key, shape in expected.items():
        # An older autoencoder's attention is written as 1x1 convolutions.
        if key in tensors and ".attentions." in key and tensors[key].shape == (*shape, 1, 1):
            tensors[key] = tensors[key].mapped(shape, lambda values: values[..., 0, 0])
    match(tensors, expected, folder)
    return Part(model, tensors)
