"""The sizes of a Stable Diffusion 1.x model, read off its tensors' shapes.

What shapes do not say is Stable Diffusion 1.x's rule: 8 attention heads in the U-Net and in π, groups of 32 in every
normalisation, CLIP heads 64 wide (lego-reference A1).
"""

from __future__ import annotations

from typing import Any

from lego_core.errors import LegoError

from lego_export.original.names import TEXT, UNET, VAE
from lego_export.original.tensors import Tensors

RESOLUTION = 256
HEADS, NORM_GROUPS, CLIP_HEAD_WIDTH = 8, 32, 64
VAE_SCALING_FACTOR = 0.18215


class Sizes:
    """Asks for sizes by module name, of a weight or, where that is missing, of the bias beside it.

    Args:
        tensors: Of the whole file.
        file: Its name, for messages.
        prefix: Of the model asked about.
    """

    def __init__(self, tensors: Tensors, file: str, prefix: str) -> None:
        self._shapes = {key.removeprefix(prefix): each.shape for key, each in tensors.items() if key.startswith(prefix)}
        self._modules = {key[:at] for key in self._shapes for at, sign in enumerate(key) if sign == "."}
        self._file, self._prefix = file, prefix

    def has(self, module: str) -> bool:
        """Whether any tensor lies in a module."""
        return module in self._modules

    def count(self, pattern: str) -> int:
        """How many modules there are of a name such as "layers.{}", numbered from 0."""
        number = 0
        while pattern.format(number) in self._modules:
            number += 1
        return number

    def width(self, module: str) -> int:
        """Outputs of a layer, or features of a normalisation."""
        for key in (f"{module}.weight", f"{module}.bias"):
            if self._shapes.get(key):
                return self._shapes[key][0]
        raise self._absent(f"{module}.weight")

    def inputs(self, module: str) -> int:
        """Inputs of a layer."""
        shape = self._shapes.get(f"{module}.weight", ())
        if len(shape) < 2:
            raise self._absent(f"{module}.weight")
        return shape[1]

    def _absent(self, key: str) -> LegoError:
        return LegoError(
            f"{self._file} does not hold the tensors of such a model; missing or misshaped: {self._prefix}{key}, which "
            "tells the model's size; restore the file"
        )


def unet_config(tensors: Tensors, file: str) -> dict[str, Any]:
    """Returns the configuration of diffusers' UNet2DConditionModel."""
    sizes = Sizes(tensors, file, UNET)
    channels: list[int] = []
    attends: list[bool] = []
    layers = [0]
    for block in range(1, sizes.count("input_blocks.{}")):
        name = f"input_blocks.{block}"
        if sizes.has(f"{name}.0.op"):
            layers.append(0)
            continue
        if not layers[-1]:
            channels.append(sizes.width(f"{name}.0.out_layers.3"))
            attends.append(sizes.has(f"{name}.1"))
        layers[-1] += 1
    if len(set(layers)) != 1 or len(channels) != len(layers) or not any(attends):
        raise LegoError(f"{file} holds a U-Net that is not Stable Diffusion 1.x's: its levels have {layers} blocks")
    level = attends.index(True)
    attention = f"input_blocks.{1 + level * (layers[0] + 1)}.1.transformer_blocks.0.attn2.to_k"
    return {
        "sample_size": RESOLUTION // 8,
        "in_channels": sizes.inputs("input_blocks.0.0"),
        "out_channels": sizes.width("out.2"),
        "down_block_types": ["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        "block_out_channels": channels,
        "layers_per_block": layers[0],
        "cross_attention_dim": sizes.inputs(attention),
        "attention_head_dim": HEADS,  # diffusers' name for the number of heads
        "norm_num_groups": NORM_GROUPS,
    }


def vae_config(tensors: Tensors, file: str) -> dict[str, Any]:
    """Returns the configuration of diffusers' AutoencoderKL."""
    sizes = Sizes(tensors, file, VAE)
    layers = sizes.count("encoder.down.0.block.{}")
    levels = sizes.count("encoder.down.{}")
    if not layers:
        raise LegoError(f"{file} has no autoencoder under {VAE}; give the whole model")
    return {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [sizes.width(f"encoder.down.{level}.block.0.conv2") for level in range(levels)],
        "layers_per_block": layers,
        "latent_channels": sizes.width("post_quant_conv"),
        "norm_num_groups": NORM_GROUPS,
        "sample_size": RESOLUTION,
        "scaling_factor": VAE_SCALING_FACTOR,
    }


def text_encoder_config(tensors: Tensors, file: str) -> dict[str, Any]:
    """Returns the configuration of CLIP's text model; the tokenizer adds its special tokens."""
    sizes = Sizes(tensors, file, f"{TEXT}text_model.")
    width = sizes.inputs("embeddings.token_embedding")
    if width % CLIP_HEAD_WIDTH:
        raise LegoError(f"{file} holds a text encoder {width} wide; CLIP's is a multiple of {CLIP_HEAD_WIDTH}")
    return {
        "vocab_size": sizes.width("embeddings.token_embedding"),
        "hidden_size": width,
        "intermediate_size": sizes.width("encoder.layers.0.mlp.fc1"),
        "num_hidden_layers": sizes.count("encoder.layers.{}"),
        "num_attention_heads": width // CLIP_HEAD_WIDTH,
        "max_position_embeddings": sizes.width("embeddings.position_embedding"),
        "projection_dim": width,
    }


def conditioner_config(tensors: Tensors, file: str) -> dict[str, Any]:
    """Returns the configuration of σ, μ and π."""
    projection, mixer = Sizes(tensors, file, ""), Sizes(tensors, file, "self_attn_mix.")
    return {
        "vllm_width": projection.inputs("projection_img"),
        "context_width": projection.width("projection_img"),
        "mixer_heads": HEADS,
        "mixer_feed_forward": mixer.width("layers.0.linear1"),
        "mixer_layers": mixer.count("layers.{}"),
    }
