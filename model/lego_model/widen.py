"""Networks that are kept in the half precision they are stored in, and compute in float32.

A 7B VLLM takes 27 GB in float32 and 13.5 as stored; loaded in its stored precision its weights are not even copied into
memory but mapped from the file. Widening a layer's weights only while it computes needs room for that one layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Widen(nn.Module):
    """A weight in float32."""

    def forward(self, weight: Tensor) -> Tensor:
        """Any shape and floating dtype -> float32."""
        return weight.float()


def widen(network: nn.Module) -> None:
    """Makes every half-precision weight of a network read as float32; the weights themselves stay as they are.

    The network is for inference from then on, and not to be saved: its weights have other names.
    """
    network.requires_grad_(False)
    for layer in list(network.modules()):
        for name, weight in list(layer.named_parameters(recurse=False)):
            if weight.dtype in (torch.float16, torch.bfloat16):
                parametrize.register_parametrization(layer, name, Widen(), unsafe=True)  # unsafe: it changes the dtype
