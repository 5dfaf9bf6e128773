"""The names of Stable Diffusion's weights: CompVis' and diffusers'. One table of rules, read in both directions.

A rule pairs a module of ours with a module of the original; whatever follows (`.weight`, or a whole transformer block)
is named alike in both. The original numbers its blocks through, diffusers sorts them by level (lego-reference A2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

UNET, EMA, VAE, TEXT = "model.diffusion_model.", "model_ema.", "first_stage_model.", "cond_stage_model.transformer."
POSITION_IDS = f"{TEXT}text_model.embeddings.position_ids"
EMA_DECAY, EMA_UPDATES = f"{EMA}decay", f"{EMA}num_updates"

_UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_VAE_RESNET = {
    "norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "conv_shortcut": "nin_shortcut",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_CONDITIONER = {
    "image_projection": "projection_img", "text_projection": "projection_txt", "text_mixer": "self_attn_mix",
}  # fmt: skip

# (part, our key)
Ours = tuple[str, str]


def original_keys(parts: Mapping[str, nn.Module]) -> dict[str, Ours]:
    """Returns the original name of every weight, family by family.

    Args:
        parts: Of "unet", "vae", "text_encoder" and "conditioner", those asked about; on the meta device is enough.

    Returns:
        Original key -> (part, our key). The averaged U-Net's keys follow from `ema_key`.
    """
    keys = {}
    for part, prefix, modules in (
        ("unet", UNET, _unet), ("vae", VAE, _vae), ("text_encoder", TEXT, None), ("conditioner", "", None),
    ):  # fmt: skip
        if part not in parts:
            continue
        if modules is not None:
            table = dict(modules(parts[part].config))
        elif part == "conditioner":
            table = _CONDITIONER
        for key in parts[part].state_dict():
            # The original keeps CLIP's inner model by its name; transformers 5 leaves that out.
            original = f"text_model.{key}" if part == "text_encoder" else _renamed(key, table)
            keys[prefix + original] = (part, key)
    return keys


def original_shape(ours: Ours, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns a weight's shape in the original: the VAE's attention has 1x1 convolutions for linear layers."""
    part, key = ours
    is_attention = part == "vae" and ".attentions." in key and len(shape) == 2
    return (*shape, 1, 1) if is_attention else shape


def ema_key(key: str) -> str:
    """Returns the name of a U-Net weight's moving average: the original deletes every dot (lego-reference A2)."""
    return EMA + key.removeprefix("model.").replace(".", "")


def _renamed(key: str, table: Mapping[str, str]) -> str:
    module = key
    while module not in table:
        module = module.rpartition(".")[0]
        assert module, f"no rule for {key}"
    return table[module] + key[len(module) :]


def _inner(ours: str, theirs: str, table: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for a, b in table.items():
        yield f"{ours}.{a}", f"{theirs}.{b}"


def _unet(config: Any) -> Iterator[tuple[str, str]]:
    yield from {
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "mid_block.attentions.0": "middle_block.1",
    }.items()  # fmt: skip
    for resnet in (0, 1):
        yield from _inner(f"mid_block.resnets.{resnet}", f"middle_block.{2 * resnet}", _UNET_RESNET)
    levels, layers = len(config.block_out_channels), config.layers_per_block
    block = 1
    for level, kind in enumerate(config.down_block_types):
        for layer in range(layers):
            yield from _inner(f"down_blocks.{level}.resnets.{layer}", f"input_blocks.{block}.0", _UNET_RESNET)
            if kind.startswith("CrossAttn"):
                yield f"down_blocks.{level}.attentions.{layer}", f"input_blocks.{block}.1"
            block += 1
        if level < levels - 1:
            yield f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{block}.0.op"
            block += 1
    block = 0
    for level, kind in enumerate(config.up_block_types):
        attends = kind.startswith("CrossAttn")
        for layer in range(layers + 1):
            yield from _inner(f"up_blocks.{level}.resnets.{layer}", f"output_blocks.{block}.0", _UNET_RESNET)
            if attends:
                yield f"up_blocks.{level}.attentions.{layer}", f"output_blocks.{block}.1"
            if layer == layers and level < levels - 1:
                yield f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{block}.{1 + attends}.conv"
            block += 1


def _vae(config: Any) -> Iterator[tuple[str, str]]:
    levels, layers = len(config.block_out_channels), config.layers_per_block
    yield "quant_conv", "quant_conv"
    yield "post_quant_conv", "post_quant_conv"
    for side in ("encoder", "decoder"):
        yield from _inner(side, side, {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"})
        for resnet in (0, 1):
            yield from _inner(f"{side}.mid_block.resnets.{resnet}", f"{side}.mid.block_{resnet + 1}", _VAE_RESNET)
        yield from _inner(f"{side}.mid_block.attentions.0", f"{side}.mid.attn_1", _VAE_ATTENTION)
    for level in range(levels):
        for layer in range(layers):
            ours, theirs = f"encoder.down_blocks.{level}.resnets.{layer}", f"encoder.down.{level}.block.{layer}"
            yield from _inner(ours, theirs, _VAE_RESNET)
        yield f"encoder.down_blocks.{level}.downsamplers.0.conv", f"encoder.down.{level}.downsample.conv"
        # The original counts the decoder's levels by resolution, from the finest.
        up = levels - 1 - level
        for layer in range(layers + 1):
            ours, theirs = f"decoder.up_blocks.{level}.resnets.{layer}", f"decoder.up.{up}.block.{layer}"
            yield from _inner(ours, theirs, _VAE_RESNET)
        yield f"decoder.up_blocks.{level}.upsamplers.0.conv", f"decoder.up.{up}.upsample.conv"
