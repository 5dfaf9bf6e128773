"""The U-Net's shallow part stands for the whole as long as the deep features are its own."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from lego_model.feature_cache import deep_channels, evaluate_keeping, evaluate_reusing

ATTENTION, PLAIN = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D"), ("DownBlock2D", "UpBlock2D")


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kinds", [(ATTENTION, ATTENTION, PLAIN), (PLAIN, ATTENTION, ATTENTION), (PLAIN, ATTENTION)])
@pytest.mark.parametrize("side", [8, 6])
@torch.inference_mode()
def test_the_whole_is_diffusers_own_and_the_shallow_part_gives_the_same(
    layers: int, kinds: tuple[tuple[str, str], ...], side: int
) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=side, in_channels=8, out_channels=4, block_out_channels=(16, 32, 48)[: len(kinds)],
        layers_per_block=layers, down_block_types=tuple(down for down, _ in kinds),
        up_block_types=tuple(up for _, up in reversed(kinds)), cross_attention_dim=16, attention_head_dim=2,
        norm_num_groups=4,
    ).eval()  # fmt: skip
    sample, context = torch.randn(3, 8, side, side), torch.randn(3, 5, 16)
    timestep = torch.tensor([999.0, 400.5, 0.0])

    plain = unet(sample, timestep, context).sample
    whole, features = evaluate_keeping(unet, sample, timestep, context)

    assert features.shape == (3, deep_channels(unet), side, side)
    torch.testing.assert_close(whole, plain, rtol=0, atol=0)
    shallow = evaluate_reusing(unet, sample, timestep, context, features)
    torch.testing.assert_close(shallow, plain, rtol=0, atol=0)
    assert not torch.equal(evaluate_reusing(unet, sample, timestep, context, features.roll(1, dims=0)), plain)
