"""Which model somebody gave: told by content, never by name."""

from __future__ import annotations

from pathlib import Path

from lego_core.errors import LegoError

from lego_export.original.compvis import read_compvis
from lego_export.original.names import TEXT, UNET, VAE
from lego_export.original.pipeline_folder import read_pipeline
from lego_export.original.source import Source
from lego_export.original.tensors import Tensors, listed, read_file

_WANTED = "LEGO is built on Stable Diffusion 1.x"
# A part of a key that only this family has, and what to say.
_OTHERS = {
    "lora": f"is a LoRA: a change to a model, not a model; give the model itself ({_WANTED})",
    "conditioner.embedders.": f"is a Stable Diffusion XL model; {_WANTED}",
    "model.diffusion_model.label_emb.": f"is a Stable Diffusion XL model; {_WANTED}",
    "cond_stage_model.model.": f"is a Stable Diffusion 2 model; {_WANTED}",
    "model.diffusion_model.joint_blocks.": f"is a Stable Diffusion 3 model; {_WANTED}",
    "double_blocks.": f"is a Flux model; {_WANTED}",
    "control_model.": "is a ControlNet: an addition to a model, not a model; give the model itself",
    "mm_projector": "is a LLaVA model; give its folder with --vllm, and a diffusion model as SOURCE",
    "multi_modal_projector": "is a LLaVA model; give its folder with --vllm, and a diffusion model as SOURCE",
    "down_blocks.": "is one part of a diffusers pipeline; give the folder of the whole pipeline",
}


def read_source(source: Path, *, raw: bool = False, keep_raw: bool = False) -> Source:
    """Reads a model of any layout we know.

    Args:
        source: A CompVis-layout file (LEGO, InstructPix2Pix, Stable Diffusion 1.x), or a diffusers pipeline folder.
        raw: Takes the U-Net as last trained, not its moving average, where the file has both.
        keep_raw: Takes both.

    Raises:
        LegoError: It is something else, damaged, incomplete, or holds code.
    """
    if not source.exists():
        raise LegoError(f"{source} is not there; name a checkpoint file or a diffusers pipeline folder")
    if source.is_dir():
        if keep_raw or raw:
            raise LegoError(f"{source} is a folder with one U-Net; --raw and --keep-raw are for .ckpt files with two")
        return _read_directory(source)
    tensors, rest = read_file(source)
    _refuse_others(source, tensors)
    return read_compvis(source, tensors, rest, raw=raw, keep_raw=keep_raw)


def _read_directory(source: Path) -> Source:
    if (source / "lego.json").is_file():
        raise LegoError(f"{source} is a LEGO checkpoint already; --to original writes it as a .ckpt file")
    if (source / "model_index.json").is_file() or (source / "unet").is_dir():
        return read_pipeline(source)
    if (source / "config.json").is_file():
        raise LegoError(f"{source} is a single model; give a LLaVA model with --vllm, and a diffusion model as SOURCE")
    raise LegoError(f"{source} is no diffusers pipeline: it has no model_index.json; give one, or a checkpoint file")


def _refuse_others(source: Path, tensors: Tensors) -> None:
    for part, text in _OTHERS.items():
        if any(part in key for key in tensors):
            raise LegoError(f"{source} {text}")
    for prefix, what in ((UNET, "U-Net"), (VAE, "autoencoder"), (TEXT, "CLIP text encoder")):
        if not any(key.startswith(prefix) for key in tensors):
            raise LegoError(
                f"{source} has no {what} under {prefix}, so it is no whole Stable Diffusion 1.x model (it holds "
                f"{listed(set(tensors), 3)})"
            )
