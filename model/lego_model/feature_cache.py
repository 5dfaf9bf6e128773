"""A U-Net without its deep layers, for the steps that use their features again (DeepCache, Ma et al., CVPR 2024).

From one denoising step to the next the deep features change slowly. The last `SHALLOW_LAYERS` layers of the U-Net's
last up block, with what they look back at of its first down block, are the shallow part, which is evaluated at every
step. All else is the deep part, which gives the shallow one a single tensor: the deep features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

# With 2, the shallow part begins at the first skip connection that has passed a layer, as DeepCache's own default does;
# it is 24 % of the arithmetic in lego-nano, 18 % in the released size at 256 x 256.
SHALLOW_LAYERS = 2


def evaluate_keeping(
    unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor, context: Tensor | Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Evaluates the whole U-Net.

    Args:
        unet: Of the plain kind that LEGO has: convolutions, cross-attention, a timestep embedding.
        sample: (B, 8, r, r).
        timestep: (B,).
        context: (B, 2N + M, C), or whatever else its attention processors take.

    Returns:
        The prediction (B, 4, r, r), and the deep features (B, D, r, r).
    """
    embedding = _embed(unet, sample, timestep)
    hidden = unet.conv_in(sample)
    skips = [hidden]
    for block in unet.down_blocks:
        hidden, outputs = block(hidden, embedding, **_attended(block, context))
        skips += outputs
    hidden = unet.mid_block(hidden, embedding, **_attended(unet.mid_block, context))
    *blocks, last = unet.up_blocks
    for block in blocks:
        taken, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        # Told only where halving the side had to round, as diffusers does.
        size = skips[-1].shape[2:] if sample.shape[-1] % 2**unet.num_upsamplers else None
        hidden = block(hidden, tuple(taken), embedding, upsample_size=size, **_attended(block, context))
    features = _run_layers(last, range(len(skips) - SHALLOW_LAYERS), hidden, skips, embedding, context)
    return _finish(unet, features, skips, embedding, context), features


def evaluate_reusing(
    unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor, context: Tensor | Sequence[Tensor], features: Tensor
) -> Tensor:
    """Evaluates the shallow part; with this sample's own deep features, the prediction is that of the whole.

    Args:
        unet: As for `evaluate_keeping`, and so what follows.
        sample: See above.
        timestep: See above.
        context: See above.
        features: (B, D, r, r).

    Returns:
        The prediction (B, 4, r, r).
    """
    embedding = _embed(unet, sample, timestep)
    first, hidden = unet.down_blocks[0], unet.conv_in(sample)
    skips = [hidden]
    attentions = getattr(first, "attentions", [None] * len(first.resnets))
    for resnet, attention in list(zip(first.resnets, attentions, strict=True))[: SHALLOW_LAYERS - 1]:
        hidden = resnet(hidden, embedding)
        if attention is not None:
            hidden = attention(hidden, encoder_hidden_states=context, return_dict=False)[0]
        skips.append(hidden)
    return _finish(unet, features, skips, embedding, context)


def shallow_attention(unet: UNet2DConditionModel) -> list[Attention]:
    """Returns the cross-attention layers of the shallow part, in no order."""
    first, last = unet.down_blocks[0], unet.up_blocks[-1]
    parts = [
        *getattr(first, "attentions", [])[: SHALLOW_LAYERS - 1],
        *getattr(last, "attentions", [])[-SHALLOW_LAYERS:],
    ]
    modules = [module for part in parts for module in part.modules()]
    return [module for module in modules if isinstance(module, Attention) and module.is_cross_attention]


def deep_channels(unet: UNet2DConditionModel) -> int:
    """Returns D, the channels of the deep features."""
    entered: int = unet.up_blocks[-1].resnets[-SHALLOW_LAYERS].in_channels
    return entered - int(unet.config.block_out_channels[0])  # beside those of the skip connection


def _embed(unet: UNet2DConditionModel, sample: Tensor, timestep: Tensor) -> Tensor:
    return unet.time_embedding(unet.get_time_embed(sample=sample, timestep=timestep))


def _finish(
    unet: UNet2DConditionModel, features: Tensor, skips: list[Tensor], embedding: Tensor, context: Any
) -> Tensor:
    last = unet.up_blocks[-1]
    layers = range(len(last.resnets) - SHALLOW_LAYERS, len(last.resnets))
    hidden = _run_layers(last, layers, features, skips[:SHALLOW_LAYERS], embedding, context)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


def _run_layers(
    block: Any, layers: range, hidden: Tensor, skips: list[Tensor], embedding: Tensor, context: Any
) -> Tensor:
    """Runs some layers of an up block; each takes the last skip connection that is left."""
    left = list(skips)
    for layer in layers:
        hidden = block.resnets[layer](torch.cat([hidden, left.pop()], dim=1), embedding)
        if hasattr(block, "attentions"):
            hidden = block.attentions[layer](hidden, encoder_hidden_states=context, return_dict=False)[0]
    return hidden


def _attended(block: Any, context: Any) -> dict[str, Any]:
    return {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
