"""A new LEGO model with random weights, of any size, from one YAML file (see nano.yaml)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from lego_core.config import GuidanceDefaults, LegoConfig, VisionInput
from lego_core.errors import LegoError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from yaml import YAMLError, safe_load

from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import Conditioner

NANO = Path(__file__).with_name("nano.yaml")
PAD, BEGINNING, END, IMAGE = "<pad>", "<s>", "</s>", "<image>"


def create(architecture: Path, corpus: Iterable[str], seed: int = 0) -> LegoCheckpoint:
    """Builds every part with random weights.

    Args:
        architecture: YAML with the keys of nano.yaml.
        corpus: Sentences the tokenizer is trained on.
        seed: Of the weights.

    Raises:
        LegoError: The file is no YAML, lacks a key, or a value is of the wrong type or out of range.
    """
    try:
        shape: Any = safe_load(architecture.read_text(encoding="utf-8"))
        return _build(shape, corpus, seed)
    except KeyError as error:
        raise LegoError(f"{architecture} lacks the key {error}; see lego_model/nano.yaml for all of them") from error
    except (ValueError, TypeError, YAMLError) as error:  # a LegoError is a ValueError
        raise LegoError(f"{architecture} is no architecture ({error}); see lego_model/nano.yaml") from error


def _build(shape: dict[str, Any], corpus: Iterable[str], seed: int) -> LegoCheckpoint:
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(corpus, shape["vocabulary"])
    vocabulary = tokenizer.get_vocab_size()
    special = {name: tokenizer.token_to_id(token) for name, token in
               (("pad_token_id", PAD), ("bos_token_id", BEGINNING), ("eos_token_id", END))}  # fmt: skip
    vision, language, text = shape["vllm"]["vision"], shape["vllm"]["language"], shape["text_encoder"]
    image_tokens = (shape["vision"]["size"] // vision["patch_size"]) ** 2
    config = LegoConfig(
        **{key: shape[key] for key in ("name", "resolution", "text_tokens", "query_template", "prompt_template",
                                       "max_description_tokens", "notice")},
        image_tokens=image_tokens,
        guidance=GuidanceDefaults(**shape["guidance"]),
        vision=VisionInput(**shape["vision"]),
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(shape["vae"]["block_out_channels"]),
        up_block_types=("UpDecoderBlock2D",) * len(shape["vae"]["block_out_channels"]),
        sample_size=shape["resolution"],
        mid_block_add_attention=False,
        **shape["vae"],
    )
    factor = 2 ** (len(shape["vae"]["block_out_channels"]) - 1)
    attention = shape["unet"]["attention"]
    unet = UNet2DConditionModel(
        sample_size=shape["resolution"] // factor,
        in_channels=2 * shape["vae"]["latent_channels"],
        out_channels=shape["vae"]["latent_channels"],
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        block_out_channels=tuple(shape["unet"]["block_out_channels"]),
        layers_per_block=shape["unet"]["layers_per_block"],
        cross_attention_dim=text["hidden_size"],
        # diffusers' name for the number of heads, kept for Stable Diffusion's configs
        attention_head_dim=shape["unet"]["attention_heads"],
        norm_num_groups=shape["unet"]["norm_num_groups"],
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=text["hidden_size"],
            intermediate_size=4 * text["hidden_size"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=shape["text_tokens"],
            **special,
        )
    )
    vllm = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                hidden_size=vision["hidden_size"],
                intermediate_size=4 * vision["hidden_size"],
                num_hidden_layers=vision["layers"],
                num_attention_heads=vision["heads"],
                image_size=shape["vision"]["size"],
                patch_size=vision["patch_size"],
            ),
            text_config=LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=language["hidden_size"],
                intermediate_size=language["hidden_size"] * 8 // 3,
                num_hidden_layers=language["layers"],
                num_attention_heads=language["heads"],
                max_position_embeddings=1024,
                tie_word_embeddings=False,
                **special,
            ),
            image_token_index=tokenizer.token_to_id(IMAGE),
            image_seq_length=image_tokens,
            # A tower trained with the model has no need to be tapped before its last layer.
            vision_feature_layer=-1,
        )
    )
    conditioner = Conditioner(
        vllm_width=language["hidden_size"],
        context_width=text["hidden_size"],
        mixer_heads=shape["conditioner"]["heads"],
        mixer_feed_forward=shape["conditioner"]["feed_forward"],
    )
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=shape["prediction_type"]
    )
    checkpoint = LegoCheckpoint(config, unet, vae, text_encoder, conditioner, vllm, scheduler, tokenizer, tokenizer)
    checkpoint.check()
    return checkpoint


def train_tokenizer(corpus: Iterable[str], vocabulary: int) -> Tokenizer:
    """Trains a byte-level BPE: any text can be encoded, the corpus' words take one token each."""
    tokenizer = Tokenizer(models.BPE())
    # A space before the first word too, so that a word has the same token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGINNING, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer
