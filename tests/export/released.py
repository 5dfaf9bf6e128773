"""Released models in their authors' layouts, small and with made-up numbers: what the converter's tests read."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from lego_export.original.names import (
    EMA_DECAY,
    EMA_UPDATES,
    POSITION_IDS,
    UNET,
    ema_key,
    original_keys,
    original_shape,
)
from lego_export.original.parts import on_meta, shapes
from lego_export.original.schedule import buffers
from lego_model.conditioner import Conditioner
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
VLLM_WIDTH, CONTEXT, TEXT_TOKENS, IMAGE_TOKENS = 96, 64, 5, 9
VISION = CLIPVisionConfig(
    hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=42, patch_size=14
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=300, hidden_size=VLLM_WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    rms_norm_eps=1e-5, tie_word_embeddings=False,
)  # fmt: skip

Values = Callable[[str, tuple[int, ...]], Tensor]


def random_values(key: str, shape: tuple[int, ...]) -> Tensor:
    """Other numbers for every key."""
    generator = torch.Generator().manual_seed(hash_of(key))
    return torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5


def hash_of(key: str) -> int:
    return int.from_bytes(key.encode()[-6:], "little") + len(key)


def diffusion_models(
    width: int = 32, context: int = CONTEXT, vllm_width: int = VLLM_WIDTH, vae_width: int = 32, in_channels: int = 8,
    text: CLIPTextConfig | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Stable Diffusion 1.x's architecture at any width, on the meta device."""
    levels = (1, 2, 4, 4)
    unet = {
        "in_channels": in_channels, "out_channels": 4, "block_out_channels": [width * level for level in levels],
        "cross_attention_dim": context, "attention_head_dim": 8,
    }  # fmt: skip
    vae = {
        "block_out_channels": [vae_width * level for level in levels], "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    }  # fmt: skip
    return {
        "unet": on_meta(UNet2DConditionModel, **unet),
        "vae": on_meta(AutoencoderKL, **vae),
        "text_encoder": on_meta(CLIPTextModel, text or text_config()),
        "conditioner": on_meta(Conditioner, vllm_width, context),
    }


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=clip_tokenizer().get_vocab_size(), hidden_size=CONTEXT, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=TEXT_TOKENS, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip


def key_shapes(models: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every key of an original file of these models, but the schedule's and CLIP's positions."""
    known = {part: shapes(model) for part, model in models.items()}
    keys = {key: original_shape(ours, known[ours[0]][ours[1]]) for key, ours in original_keys(models).items()}
    keys |= {ema_key(key): shape for key, shape in keys.items() if key.startswith(UNET)}
    return {**keys, EMA_DECAY: (), EMA_UPDATES: ()}


def lego_state(values: Values = random_values, **sizes: Any) -> dict[str, Tensor]:
    """The state of a released LEGO file, all keys."""
    state = {**buffers()}
    for key, shape in key_shapes(diffusion_models(**sizes)).items():
        state[key] = values(key, shape)
    state[EMA_DECAY] = torch.tensor(0.9999, dtype=torch.float32)
    state[EMA_UPDATES] = torch.tensor(4321, dtype=torch.int32)
    state[POSITION_IDS] = torch.arange(TEXT_TOKENS)[None]
    return state


def stable_diffusion_state(in_channels: int) -> dict[str, Tensor]:
    """The state of a Stable Diffusion 1.x file without averages: LEGO's without its own modules."""
    own = ("projection_", "self_attn_mix", "model_ema")
    return {key: each for key, each in lego_state(in_channels=in_channels).items() if not key.startswith(own)}


@cache
def clip_tokenizer() -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(_clip_tokens())}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _clip_tokens() -> list[str]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return ["!", "<|startoftext|>", "<|endoftext|>", *(f"{letter}</w>" for letter in letters), *letters[1:]]


def write_clip(folder: Path) -> Path:
    """openai/clip-vit-large-patch14's files: the whole model, and the tokenizer as vocab.json and merges.txt."""
    config = CLIPConfig(text_config=text_config().to_dict(), vision_config=VISION.to_dict(), projection_dim=8)
    torch.manual_seed(1)
    model = CLIPModel(config)
    config.save_pretrained(folder)
    state = {}
    for key, tensor in model.state_dict().items():
        # As today's file on the hub has them, whatever transformers calls its modules.
        key = key.replace("vision_model.vision_model.", "vision_model.")
        state[key] = tensor
    state["vision_model.embeddings.position_ids"] = torch.arange(IMAGE_TOKENS + 1)[None]
    save_file(state, folder / "model.safetensors")
    (folder / "vocab.json").write_text(json.dumps(clip_tokenizer().get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def write_llava(folder: Path, projector_layers: int = 1) -> Path:
    """A LLaVA model in its authors' layout, half precision, two shards."""
    folder.mkdir()
    torch.manual_seed(2)
    state = {key: tensor.half() for key, tensor in LlamaForCausalLM(LLAMA).state_dict().items()}
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(12)
    names = ("model.mm_projector",) if projector_layers == 1 else ("model.mm_projector.0", "model.mm_projector.2")
    for number, name in enumerate(names):
        inputs = VISION.hidden_size if number == 0 else VLLM_WIDTH
        state[f"{name}.weight"] = torch.randn(VLLM_WIDTH, inputs).half() / 8
        state[f"{name}.bias"] = torch.randn(VLLM_WIDTH).half()
    keys, weight_map = sorted(state), {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: state[key] for key in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "architectures": ["LlavaLlamaForCausalLM"], "model_type": "llava", "vocab_size": 300, "hidden_size": VLLM_WIDTH,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0, "mm_hidden_size": 64, "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        "mm_vision_tower": "openai/clip-vit-large-patch14", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    write_llama_tokenizer(folder)
    return folder


def write_llama_tokenizer(folder: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def golden_formula() -> ModuleType:
    """The module that makes the golden cases' weights and inputs; skips the test where they are not."""
    if not GOLDEN.is_dir():
        pytest.skip("the golden values of the original code are not here")
    spec = importlib.util.spec_from_file_location("golden_formula", GOLDEN / "formula.py")
    assert spec and spec.loader
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    return formula
