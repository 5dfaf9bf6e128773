"""σ, μ and π of the paper: the VLLM's embeddings on their way into the U-Net's cross-attention (section 3.3, eq. 1).

Shapes and semantics follow lego-reference A1, A5 and A6. B batch, N text tokens, M image tokens, D VLLM width,
C context width.
"""

from __future__ import annotations

from typing import Literal

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear as _AttentionOutput

Start = Literal["xavier", "torch"]


class Conditioner(ModelMixin, ConfigMixin):
    """Builds the U-Net's context [CLIP text (N) | σ(VLLM image) (M) | π(μ(VLLM text)) (N)].

    Args:
        vllm_width: D, 5120 for the released 13B model.
        context_width: C, 768 for Stable Diffusion 1.x.
        mixer_heads: Attention heads of π.
        mixer_feed_forward: Hidden width of π's feed-forward layers (2048, torch's default, in the released model).
        mixer_layers: Layers of π.
    """

    @register_to_config
    def __init__(
        self,
        vllm_width: int = 5120,
        context_width: int = 768,
        mixer_heads: int = 8,
        mixer_feed_forward: int = 2048,
        mixer_layers: int = 2,
    ) -> None:
        super().__init__()
        self.image_projection = nn.Linear(vllm_width, context_width)
        self.text_projection = nn.Linear(vllm_width, context_width)
        layer = nn.TransformerEncoderLayer(
            context_width, mixer_heads, mixer_feed_forward, 0.1, activation="relu", batch_first=True, norm_first=True
        )
        self.text_mixer = nn.TransformerEncoder(layer, mixer_layers, enable_nested_tensor=False)
        self.start_anew("xavier")

    @torch.no_grad()
    def start_anew(self, start: Start) -> None:
        """Draws all weights anew from torch's generator.

        Args:
            start: "xavier", as the paper says, every layer its own. "torch" is the released code's: the default of each
                kind of layer, and all layers of π the same (lego-reference A3).
        """
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.out_proj.reset_parameters()
                module._reset_parameters()
            elif isinstance(module, nn.LayerNorm | nn.Linear) and not isinstance(module, _AttentionOutput):
                module.reset_parameters()
        if start == "torch":
            first, *others = self.text_mixer.layers
            for layer in others:
                layer.load_state_dict(first.state_dict())
            return
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self, text_hidden_states: Tensor, image_embeddings: Tensor | None, text_states: Tensor | None
    ) -> Tensor:
        """Returns the context, (B, 2N + M, C) with all three blocks.

        No masks anywhere: zero rows of `text_states` become μ's bias and take part, as in the original.

        Args:
            text_hidden_states: CLIP's last hidden state of the description, (B, N, C).
            image_embeddings: The VLLM projector's output, (B, M, D); None leaves the block out.
            text_states: The VLLM's last-layer states of the description, zero rows up to N, (B, N, D); None leaves the
                block out.
        """
        blocks = [text_hidden_states]
        if image_embeddings is not None:
            blocks.append(self.image_projection(image_embeddings))
        if text_states is not None:
            blocks.append(self.text_mixer(self.text_projection(text_states)))
        return torch.cat(blocks, dim=1)


def null_context(empty_text_hidden_states: Tensor, projected_tokens: int) -> Tensor:
    """Returns the context of "no condition", (B, N + projected_tokens, C).

    CLIP of the empty sentence, then zeros *after* the projections; the length stays (lego-reference A5).

    Args:
        empty_text_hidden_states: CLIP's last hidden state of "", (B, N, C).
        projected_tokens: `LegoConfig.projected_tokens`, M + N with all three blocks.
    """
    batch, _, width = empty_text_hidden_states.shape
    zeros = empty_text_hidden_states.new_zeros(batch, projected_tokens, width)
    return torch.cat([empty_text_hidden_states, zeros], dim=1)


def pad_text_states(states: Tensor, text_tokens: int) -> Tensor:
    """Truncates or zero-pads VLLM text states (T, D) to (N, D), before μ (lego-reference A6)."""
    states = states[:text_tokens]
    return torch.cat([states, states.new_zeros(text_tokens - states.shape[0], states.shape[1])])
