"""A new LEGO model with random weights, of any size, from one YAML file (see nano.yaml)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from yaml import safe_load

from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import Conditioner

NANO = Path(__file__).with_name("nano.yaml")
# Their ids are their places: a trained tokenizer numbers its special tokens first.
SPECIAL_TOKENS = PAD, BEGINNING, END, IMAGE = "<pad>", "<s>", "</s>", "<image>"
PROJECTORS = {"mlp": "gelu", "linear": "linear"}


@dataclass(frozen=True)
class Parts:
    """The networks of one LEGO model; see `LegoCheckpoint` for what each does."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    conditioner: Conditioner
    vllm: LlavaForConditionalGeneration


def create(architecture: Path, corpus: Iterable[str], seed: int = 0) -> LegoCheckpoint:
    """Builds every part with random weights.

    Args:
        architecture: YAML with the keys of nano.yaml.
        corpus: Sentences the tokenizer is trained on.
        seed: Of the weights.

    Raises:
        LegoError: The file is no YAML, lacks a key, or a value is of the wrong type or out of range.
    """
    with naming_faults(architecture):
        shape = read_shape(architecture)
        tokenizer = train_tokenizer(corpus, shape["vocabulary"])
        config = lego_config(shape)
        torch.manual_seed(seed)
        parts = build_parts(shape, tokenizer.get_vocab_size())
        scheduler = EulerAncestralDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=shape["prediction_type"]
        )
        checkpoint = LegoCheckpoint(
            config, scheduler=scheduler, tokenizer=tokenizer, vllm_tokenizer=tokenizer, **vars(parts)
        )
        checkpoint.check()
    return checkpoint


@contextmanager
def naming_faults(architecture: Path) -> Iterator[None]:
    """Turns what goes wrong inside into a LegoError that names the architecture file."""
    try:
        yield
    except KeyError as error:
        raise LegoError(f"{architecture} lacks the key {error}; see lego_model/nano.yaml for all of them") from error
    except Exception as error:  # YAML and the libraries raise many types on values that they cannot take
        why = str(error) or type(error).__name__
        raise LegoError(f"{architecture} is no architecture ({why}); see lego_model/nano.yaml") from error


def read_shape(architecture: Path) -> dict[str, Any]:
    """Reads an architecture file and refuses keys of the text encoder and the VLLM that nothing would read."""
    shape: Any = safe_load(architecture.read_text(encoding="utf-8"))
    vllm = shape["vllm"]
    for place, values, known in (
        ("text_encoder", shape["text_encoder"], {"hidden_size", "layers", "heads", "vocabulary"}),
        ("vllm", vllm, {"vision", "language", "feature_layer", "projector"}),
        ("vllm.vision", vllm["vision"], {"hidden_size", "layers", "heads", "patch_size"}),
        ("vllm.language", vllm["language"],
         {"hidden_size", "layers", "heads", "vocabulary", "feed_forward", "positions", "norm_epsilon"}),
    ):  # fmt: skip
        unknown = sorted(set(values) - known)
        if unknown:
            raise LegoError(f"unknown key {place}.{unknown[0]}; known keys are {', '.join(sorted(known))}")
    return shape


def lego_config(shape: dict[str, Any]) -> LegoConfig:
    """Returns lego.json of a model of this shape."""
    return LegoConfig(
        **{key: shape[key] for key in ("name", "resolution", "text_tokens", "query_template", "prompt_template",
                                       "max_description_tokens", "notice")},
        image_tokens=(shape["vision"]["size"] // shape["vllm"]["vision"]["patch_size"]) ** 2,
        guidance=GuidanceDefaults(**shape["guidance"]),
        vision=VisionInput(**shape["vision"]),
    )  # fmt: skip


def build_parts(shape: dict[str, Any], vocabulary: int) -> Parts:
    """Builds the networks; on the meta device, if that is the default, without memory for their weights.

    Args:
        shape: As `read_shape` returns it.
        vocabulary: Tokens of a model that does not say how many its text encoder and its VLLM have.
    """
    special = dict(zip(("pad_token_id", "bos_token_id", "eos_token_id"), range(3), strict=True))
    vision, language, text = shape["vllm"]["vision"], shape["vllm"]["language"], shape["text_encoder"]
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(shape["vae"]["block_out_channels"]),
        up_block_types=("UpDecoderBlock2D",) * len(shape["vae"]["block_out_channels"]),
        sample_size=shape["resolution"],
        **{"mid_block_add_attention": False, **shape["vae"]},
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
            vocab_size=text.get("vocabulary", vocabulary),
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
                vocab_size=language.get("vocabulary", vocabulary),
                hidden_size=language["hidden_size"],
                intermediate_size=language.get("feed_forward", language["hidden_size"] * 8 // 3),
                num_hidden_layers=language["layers"],
                num_attention_heads=language["heads"],
                max_position_embeddings=language.get("positions", 1024),
                rms_norm_eps=language.get("norm_epsilon", 1e-6),
                tie_word_embeddings=False,
                **special,
            ),
            image_token_index=SPECIAL_TOKENS.index(IMAGE),
            image_seq_length=(shape["vision"]["size"] // vision["patch_size"]) ** 2,
            # A tower trained with the model has no need to be tapped before its last layer.
            vision_feature_layer=shape["vllm"].get("feature_layer", -1),
            projector_hidden_act=_projector_activation(shape["vllm"].get("projector", "mlp")),
        )
    )
    conditioner = Conditioner(
        vllm_width=language["hidden_size"],
        context_width=text["hidden_size"],
        mixer_heads=shape["conditioner"]["heads"],
        mixer_feed_forward=shape["conditioner"]["feed_forward"],
    )
    return Parts(unet, vae, text_encoder, conditioner, vllm)


def _projector_activation(projector: Any) -> str:
    # Of transformers' two layers, always there: with no activation between them they are one, as in the first LLaVA.
    if projector not in PROJECTORS:
        raise LegoError(f"vllm.projector is {projector!r}; choose one of {', '.join(PROJECTORS)}")
    return PROJECTORS[projector]


def train_tokenizer(corpus: Iterable[str], vocabulary: int) -> Tokenizer:
    """Trains a byte-level BPE: any text can be encoded, the corpus' words take one token each."""
    tokenizer = Tokenizer(models.BPE())
    # A space before the first word too, so that a word has the same token wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer
