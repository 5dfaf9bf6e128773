"""From a released model to a LEGO checkpoint directory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lego_core.config import GuidanceDefaults, LegoConfig, VisionInput
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import Conditioner
from tokenizers import Tokenizer

from lego_export.original.detect import read_source
from lego_export.original.llava import prompt_template, read_llava
from lego_export.original.parts import Part, Weights, on_meta, stored_bytes, write_part
from lego_export.original.place import check_place
from lego_export.original.schedule import scheduler
from lego_export.original.sizes import HEADS, RESOLUTION
from lego_export.original.source import Family, Source
from lego_export.original.tensors import LazyTensor
from lego_export.original.tokenizer import clip_tokenizer, llama_tokenizer

# Called with (bytes written, bytes in all).
Advance = Callable[[int, int], None]

_CONDITIONER_SEED = 0
# CLIP and μ read 77 tokens (lego-reference A6); a description still running here has lost its tail to both already.
_DESCRIPTION_TOKENS = 128
# As the weights' authors state them: the model card of LEGO-Ego4D (lego-reference section 0), that of Stable Diffusion
# 1.5, and the LICENSE file of InstructPix2Pix: it is MIT's text and puts the weights under Stable Diffusion's too.
_LICENCES: dict[Family, str] = {
    "LEGO": "CC-BY-4.0",
    "InstructPix2Pix": "MIT AND CreativeML-OpenRAIL-M",
    "Stable Diffusion": "CreativeML-OpenRAIL-M",
}
_UNTRAINED = (
    "a starting point for training: its conditioner is newly initialised, so its pictures do not follow the VLLM yet"
)
_NOTICES: dict[Family, str] = {
    "LEGO": "These are research weights: check a guidance frame before you act on it. The VLLM has its own licence.",
    "InstructPix2Pix": f"This model is {_UNTRAINED}.",
    "Stable Diffusion": f"This model is {_UNTRAINED}.",
}


def convert(
    source: Path,
    checkpoint: Path,
    *,
    vllm: Path | None = None,
    clip: Path | None = None,
    raw: bool = False,
    keep_raw: bool = False,
    weights: Weights | None = None,
    advance: Advance = lambda done, total: None,
) -> LegoConfig:
    """Converts a model of any layout we know; everything is checked before anything is written.

    Args:
        source: See `read_source`.
        checkpoint: The directory to make. It appears when it is whole.
        vllm: Folder of the LLaVA model.
        clip: Folder of openai/clip-vit-large-patch14: its tokenizer, and the vision tower where `vllm` lacks one.
        raw: See `read_source`.
        keep_raw: Stores the raw U-Net too, as unet_raw/: `to_original` then restores the very file.
        weights: Stored precision; None keeps each tensor's own, bfloat16 as fp32.
        advance: Told how much is written.

    Returns:
        The new checkpoint's `lego.json`.

    Raises:
        LegoError: Something is missing (the message says which option gives it), damaged or does not fit.
    """
    if raw and keep_raw:
        raise LegoError("--raw takes the raw U-Net alone, --keep-raw keeps it beside the average; choose one")
    check_place(checkpoint)
    model = read_source(source, raw=raw, keep_raw=keep_raw)
    if vllm is None:
        raise LegoError(f"{source} holds no VLLM; give the folder of its LLaVA model with --vllm")
    tokenizer_folder = clip or model.tokenizer
    if tokenizer_folder is None:
        raise LegoError(f"{source} holds no tokenizer; give the folder of openai/clip-vit-large-patch14 with --clip")
    parts = {**model.parts, "vllm": read_llava(vllm, clip)}
    tokenizer, vllm_tokenizer = clip_tokenizer(tokenizer_folder), llama_tokenizer(vllm)
    provenance = dict(model.provenance)
    if "conditioner" not in parts:
        parts["conditioner"] = _new_conditioner(parts)
        provenance["conditioner"] = f"newly initialised (Xavier, seed {_CONDITIONER_SEED}); not trained"
    _tell_special_tokens(parts["text_encoder"], tokenizer)
    provenance |= {"converted_from": model.family, "vllm": vllm.resolve().name}
    config = _lego_json(checkpoint, model, parts, provenance)
    modules: dict[str, Any] = {name: part.model for name, part in parts.items() if name != "unet_raw"}
    process = scheduler(model.prediction_type)
    LegoCheckpoint(config, scheduler=process, tokenizer=tokenizer, vllm_tokenizer=vllm_tokenizer, **modules).check()
    _write(checkpoint, config, parts, weights, tokenizer, vllm_tokenizer, process, advance)
    return config


def _new_conditioner(parts: dict[str, Part]) -> Part:
    """Returns σ, μ and π for a model that has none, initialised as the paper says."""
    text: Any = parts["text_encoder"].model.config
    vllm: Any = parts["vllm"].model.config
    sizes = {
        "vllm_width": vllm.text_config.hidden_size, "context_width": text.hidden_size, "mixer_heads": HEADS,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_CONDITIONER_SEED)
        conditioner = Conditioner(**sizes)
    tensors = {key: LazyTensor.of(each) for key, each in conditioner.state_dict().items()}
    return Part(on_meta(Conditioner, **sizes), tensors)


def _tell_special_tokens(text_encoder: Part, tokenizer: Tokenizer) -> None:
    """Stable Diffusion's own configurations name wrong ids; its tokenizer is right."""
    config: Any = text_encoder.model.config
    for name, token in (("bos_token_id", "<|startoftext|>"), ("eos_token_id", "<|endoftext|>")):
        number = tokenizer.token_to_id(token)
        if number is None or tokenizer.get_vocab_size() > config.vocab_size:
            raise LegoError(
                f"the tokenizer ({tokenizer.get_vocab_size()} tokens) is not the one of the text encoder "
                f"({config.vocab_size} tokens); give openai/clip-vit-large-patch14's with --clip"
            )
        setattr(config, name, number)
    config.pad_token_id = config.eos_token_id


def _lego_json(checkpoint: Path, model: Source, parts: dict[str, Part], provenance: dict[str, Any]) -> LegoConfig:
    text: Any = parts["text_encoder"].model.config
    vllm: Any = parts["vllm"].model.config
    vision = vllm.vision_config
    return LegoConfig(
        name=checkpoint.resolve().name,
        resolution=RESOLUTION,
        text_tokens=text.max_position_embeddings,
        image_tokens=(vision.image_size // vision.patch_size) ** 2,
        prompt_template=prompt_template(vllm),
        max_description_tokens=_DESCRIPTION_TOKENS,
        guidance=GuidanceDefaults("euler_ancestral", steps=100, text_scale=7.5, image_scale=1.5),
        vision=VisionInput(size=vision.image_size, fit="centre_crop"),
        notice=_NOTICES[model.family],
        licence=_LICENCES[model.family],
        provenance=provenance,
    )


def _write(
    checkpoint: Path, config: LegoConfig, parts: dict[str, Part], weights: Weights | None, tokenizer: Tokenizer,
    vllm_tokenizer: Tokenizer, process: Any, advance: Advance,
) -> None:  # fmt: skip
    total, done = sum(stored_bytes(part, weights) for part in parts.values()), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        advance(done, total)

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(checkpoint.parent).free
    if free < total:
        cure = "make room" if weights == "fp16" else "make room, or store it with --weights fp16"
        raise LegoError(
            f"the checkpoint takes {total / 1e9:.1f} GB and {checkpoint.parent} has {free / 1e9:.1f} GB free; {cure}"
        )
    advance(0, total)
    # Beside its place, so that it gets there whole by one rename.
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=checkpoint.parent) as folder:
        directory = Path(folder) / "checkpoint"
        directory.mkdir()
        for name, part in parts.items():
            write_part(part, directory / name, weights, count)
        process.save_pretrained(directory / "scheduler")
        (directory / "tokenizer").mkdir()
        tokenizer.save(str(directory / "tokenizer" / "tokenizer.json"))
        vllm_tokenizer.save(str(directory / "vllm" / "tokenizer.json"))
        config.save(directory)
        directory.replace(checkpoint)
