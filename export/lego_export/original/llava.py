"""LLaVA models, in their authors' layout and in transformers' of any age, as transformers' of today."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from lego_core.errors import LegoError
from lego_core.prompts import LLAVA_LLAMA_2, VICUNA_V1
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from lego_export.original.parts import Part, on_meta, read_config, shapes
from lego_export.original.tensors import LazyTensor, Tensors, match, read_folder

# Buffers that older libraries stored and that today's make on the fly.
_NOT_WEIGHTS = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
# The authors' names, and transformers' of today.
_AUTHORS = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.mm_projector\.": "model.multi_modal_projector.linear_1.",
    r"^model\.(embed_tokens|layers|norm)\.": r"model.language_model.\1.",
}
# transformers' names since version 4.36, and those of today.
_TRANSFORMERS = {
    r"^language_model\.model\.": "model.language_model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^vision_tower\.": "model.vision_tower.",
    r"^multi_modal_projector\.": "model.multi_modal_projector.",
    r"^model\.vision_tower\.vision_model\.": "model.vision_tower.",
}
_VISION = "model.vision_tower."
_LLAMA_KEYS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "bos_token_id", "eos_token_id",
)  # fmt: skip
# Beyond the vocabulary of the authors' LLaMA, as in transformers' own conversions: it stands in a prompt for the image.
_IMAGE_TOKEN = 32000


def read_llava(folder: Path, clip: Path | None) -> Part:
    """Reads a VLLM.

    Args:
        folder: Configuration and weights.
        clip: Folder of the CLIP model whose vision tower it uses, where the weights do not hold the tower.

    Raises:
        LegoError: It is no LLaVA model, incomplete or damaged, or needs `clip`.
    """
    if not folder.is_dir():
        state = "a file" if folder.exists() else "not there"
        raise LegoError(f"{folder} is {state}; give the folder of a LLaVA model with --vllm")
    if not (folder / "config.json").is_file():
        raise LegoError(f"{folder} has no config.json; give the folder of a LLaVA model with --vllm")
    stem = "pytorch_model" if list(folder.glob("pytorch_model*.bin*")) else "model"
    if list(folder.glob("model*.safetensors*")):
        stem = "model"
    found = {key: each for key, each in read_folder(folder, stem).items() if not _NOT_WEIGHTS.search(key)}
    if any(key.startswith("model.mm_projector.") for key in found):
        return _read_authors(folder, found, clip)
    if any("multi_modal_projector." in key for key in found):
        return _read_transformers(folder, found)
    raise LegoError(
        f"{folder} has no projector from image to language, so it is no LLaVA model; give one that is whole with --vllm"
    )


def prompt_template(config: LlavaConfig) -> str:
    """Returns the conversation template that a LLaVA model was tuned with.

    LLaVA-1.5, on Vicuna, brought the projector of two layers; the models on LLaMA-2-chat before it, LEGO's among them,
    have one. Both layouts end in this configuration, where one layer shows as a linear activation.
    """
    return LLAVA_LLAMA_2 if config.projector_hidden_act == "linear" else VICUNA_V1


def _read_transformers(folder: Path, found: Tensors) -> Part:
    model = _build(folder, lambda: LlavaConfig(**read_config(folder)))
    tensors = _renamed(found, _TRANSFORMERS)
    match(tensors, shapes(model), folder)
    return Part(model, tensors)


def _read_authors(folder: Path, found: Tensors, clip: Path | None) -> Part:
    tensors = _renamed(found, _AUTHORS)
    if clip is None and not any(key.startswith(_VISION) for key in tensors):
        raise LegoError(f"{folder} holds no vision tower; give the folder of its CLIP model with --clip")
    if clip is None or not (clip / "config.json").is_file():
        raise LegoError("the VLLM's vision tower is described by its CLIP model's config.json; give that with --clip")
    if not any(key.startswith(_VISION) for key in tensors):
        tensors |= _clip_tower(clip)
    model = _build(folder, lambda: _authors_config(folder, tensors, clip))
    _complete_projector(model, tensors)
    match(tensors, shapes(model), folder)
    return Part(model, tensors)


def _authors_config(folder: Path, tensors: Tensors, clip: Path) -> LlavaConfig:
    config = read_config(folder)
    embedding = tensors.get("model.language_model.embed_tokens.weight")
    language = {key: config[key] for key in _LLAMA_KEYS if config.get(key) is not None}
    vision: Any = CLIPVisionConfig.from_pretrained(clip, local_files_only=True)
    two_layers = "model.multi_modal_projector.linear_2.weight" in tensors
    return LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(
            vocab_size=embedding.shape[0] if embedding else config["vocab_size"], tie_word_embeddings=False, **language
        ),
        projector_hidden_act="gelu" if two_layers else "linear",
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy=(
            "full" if config.get("mm_vision_select_feature", "patch") == "cls_patch" else "default"
        ),
        image_seq_length=(vision.image_size // vision.patch_size) ** 2,
        image_token_index=_IMAGE_TOKEN,
    )


def _complete_projector(model: Any, tensors: Tensors) -> None:
    """Adds the identity as second layer to a projector of one layer, the released LEGO's.

    transformers' LLaVA has two layers with an activation between. With the linear activation and the identity the
    second changes no bit: every product is by 1 or 0.
    """
    name = "model.multi_modal_projector.linear_2"
    if f"{name}.weight" in tensors:
        return
    width = model.config.text_config.hidden_size
    like = tensors.get("model.multi_modal_projector.linear_1.weight")
    dtype = like.dtype if like else torch.float32
    tensors[f"{name}.weight"] = LazyTensor((width, width), dtype, lambda: torch.eye(width, dtype=dtype))
    tensors[f"{name}.bias"] = LazyTensor((width,), dtype, lambda: torch.zeros(width, dtype=dtype))


def _clip_tower(clip: Path) -> Tensors:
    stem = "model" if list(clip.glob("model*.safetensors*")) else "pytorch_model"
    found = read_folder(clip, stem)
    tower = {
        f"{_VISION}{key.removeprefix('vision_model.')}": each
        for key, each in found.items() if key.startswith("vision_model.") and not _NOT_WEIGHTS.search(key)
    }  # fmt: skip
    if not tower:
        raise LegoError(f"{clip} holds no CLIP vision tower; give openai/clip-vit-large-patch14's folder with --clip")
    return tower


def _renamed(found: Tensors, rules: dict[str, str]) -> Tensors:
    tensors: Tensors = {}
    for key, tensor in found.items():
        for pattern, name in rules.items():
            key = re.sub(pattern, name, key)
        tensors[key] = tensor
    return tensors


def _build(folder: Path, config: Any) -> Any:
    try:
        return on_meta(lambda: LlavaForConditionalGeneration(config()))
    except LegoError:
        raise
    except Exception as error:  # transformers raises many types on a configuration it cannot build
        raise LegoError(f"{folder}/config.json cannot be built ({error}); restore the folder") from error
