"""The graphs of an engine directory: what each computes, and the tensors that go in and out.

Letters as everywhere: B batch, R resolution, r latent side, V vision size, N text tokens, M image tokens, D VLLM width,
C context width, T new tokens, P tokens in the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from lego_core.manifest import CACHE_GRAPH, TensorSpec
from lego_model.checkpoint import LegoCheckpoint
from lego_model.feature_cache import deep_channels, evaluate_keeping, evaluate_reusing, shallow_attention
from lego_model.student import STUDENT
from torch import Tensor, nn
from transformers import DynamicCache

# Names of the dynamic dimensions; "total" is P + T.
BATCH, TOKENS, PAST, TOTAL = "batch", "tokens", "past", "total"


@dataclass(frozen=True)
class GraphDefinition:
    """One graph before its export.

    Attributes:
        module: Takes `inputs` in order, gives `outputs` in order.
        inputs: Specs; a dimension that is a name may have any size.
        outputs: Likewise.
        parts: Checkpoint folders whose weights it holds.
    """

    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parts: tuple[str, ...]


class TextEncoder(nn.Module):
    """CLIP's last hidden state of a padded description."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        super().__init__()
        self.text_encoder = checkpoint.text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, C)."""
        return self.text_encoder(input_ids).last_hidden_state


class FrameEncoder(nn.Module):
    """Everything that depends on the frame alone: its latent, and the image tokens the VLLM reads."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        super().__init__()
        self.vae = checkpoint.vae
        self.vision_tower = checkpoint.vllm.model.vision_tower
        self.projector = checkpoint.vllm.model.multi_modal_projector
        layer = checkpoint.vllm.config.vision_feature_layer
        self.layers = [layer] if isinstance(layer, int) else list(layer)
        self.drops_class_token = checkpoint.vllm.config.vision_feature_select_strategy == "default"

    def forward(self, pixels: Tensor, vision_pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, R, R), (B, 3, V, V) -> the posterior's mode, not scaled, (B, 4, r, r), and (B, M, D)."""
        states = self.vision_tower(vision_pixels, output_hidden_states=True).hidden_states
        # transformers' get_image_features does the same, but returns a list over the batch, which fixes its size.
        features = torch.cat([states[layer] for layer in self.layers], dim=-1)
        if self.drops_class_token:
            features = features[:, 1:]
        return self.vae.encode(pixels).latent_dist.mode(), self.projector(features)


class TokenEmbedding(nn.Module):
    """The VLLM's input embedding."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        super().__init__()
        self.embedding = checkpoint.vllm.get_input_embeddings()

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D)."""
        return self.embedding(input_ids)


class Decoder(nn.Module):
    """The VLLM's language model over a key-value cache handed in and out as plain tensors."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        super().__init__()
        self.language_model = checkpoint.vllm.model.language_model
        self.lm_head = checkpoint.vllm.lm_head

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Reads T more tokens.

        Args:
            inputs_embeds: (B, T, D).
            attention_mask: (B, 1, T, P + T), added to the attention scores: 0 keeps, a large negative number drops.
            position_ids: (B, T) int64.
            past: Key and value of each layer in turn, each (B, H, P, d); P may be 0.

        Returns:
            Logits (B, T, vocabulary), states after the final norm (B, T, D), and the grown keys and values.
        """
        cache = DynamicCache(tuple(zip(past[::2], past[1::2], strict=True)))
        # A mask of four dimensions goes straight through to the attention (transformers' create_causal_mask).
        states = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, cache=cache,
            use_cache=True,
        ).last_hidden_state  # fmt: skip
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return self.lm_head(states), states, *present


class KeysValues(nn.Module):
    """The keys and values of every cross-attention layer: of the U-Net, all that depends on the context alone.

    The context is the same at every denoising step, so they are computed once a query and handed to each evaluation.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, context: Tensor) -> tuple[Tensor, ...]:
        """(B, 2N + M, C) -> key and value of each layer in turn, each (B, H, 2N + M, d)."""
        return tuple(
            _by_head(projection(context), layer.heads)
            for layer in _cross_attention(self.unet) for projection in (layer.to_k, layer.to_v)
        )  # fmt: skip


class Unet(nn.Module):
    """One evaluation of the denoiser, or of its student."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = _given_keys_values(unet)

    def forward(self, sample: Tensor, timestep: Tensor, *keys_values: Tensor) -> Tensor:
        """(B, 8, r, r), (B,), as `KeysValues` gives them -> the raw prediction (B, 4, r, r)."""
        return self.unet(sample, timestep, keys_values).sample


class KeepingUnet(nn.Module):
    """One evaluation of the denoiser, with the deep features that `ShallowUnet` takes."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = _given_keys_values(unet)

    def forward(self, sample: Tensor, timestep: Tensor, *keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """As `Unet` -> the raw prediction (B, 4, r, r) and the deep features (B, D, r, r)."""
        return evaluate_keeping(self.unet, sample, timestep, keys_values)


class ShallowUnet(nn.Module):
    """One evaluation of the denoiser without its deep layers.

    Attributes:
        layers: Which of the cross-attention layers are left, by their numbers in the whole.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = _given_keys_values(unet)
        left = {id(layer) for layer in shallow_attention(self.unet)}
        self.layers = [index for index, layer in enumerate(_cross_attention(self.unet)) if id(layer) in left]
        for place, index in enumerate(self.layers):
            _cross_attention(self.unet)[index].set_processor(_GivenKeysValues(place))

    def forward(self, sample: Tensor, timestep: Tensor, deep_features: Tensor, *keys_values: Tensor) -> Tensor:
        """(B, 8, r, r), (B,), (B, D, r, r), keys and values of `layers` -> the raw prediction (B, 4, r, r)."""
        return evaluate_reusing(self.unet, sample, timestep, keys_values, deep_features)


def _given_keys_values(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Returns a copy with the same weights that takes keys and values: the caller's own goes on taking a context."""
    unet = copy.deepcopy(unet, {id(each): each for each in (*unet.parameters(), *unet.buffers())})
    for index, layer in enumerate(_cross_attention(unet)):
        layer.set_processor(_GivenKeysValues(index))
    return unet


class _GivenKeysValues:
    """An attention processor whose keys and values are given, in place of the states they are computed from."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __call__(
        self, attention: Attention, hidden_states: Tensor, encoder_hidden_states: Sequence[Tensor], *_: Any, **__: Any
    ) -> Tensor:
        key, value = encoder_hidden_states[2 * self._index : 2 * self._index + 2]
        query = _by_head(attention.to_q(hidden_states), attention.heads)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        project, dropout = attention.to_out
        return dropout(project(attended.transpose(1, 2).flatten(2)))


def _cross_attention(unet: UNet2DConditionModel) -> list[Attention]:
    """The cross-attention layers, in the order in which the U-Net's modules are named."""
    return [each for each in unet.modules() if isinstance(each, Attention) and each.is_cross_attention]


def _by_head(states: Tensor, heads: int) -> Tensor:
    """(B, L, H d) -> (B, H, L, d)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


class VaeDecoder(nn.Module):
    """From a latent, already divided by the scaling factor, to the picture."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        super().__init__()
        self.vae = checkpoint.vae

    def forward(self, latent: Tensor) -> Tensor:
        """(B, 4, r, r) -> (B, 3, R, R), about [-1, 1]."""
        return self.vae.decode(latent).sample


def define_graphs(checkpoint: LegoCheckpoint) -> dict[str, GraphDefinition]:
    """Returns every graph of the model by name; `lego_core.manifest.graph_names` lists them."""
    lego, language = checkpoint.config, checkpoint.vllm.config.text_config
    resolution, vision = lego.resolution, lego.vision.size
    side = resolution // latent_factor(checkpoint)
    channels, width, hidden = checkpoint.vae.config.latent_channels, checkpoint.conditioner.config.context_width, (
        language.hidden_size
    )  # fmt: skip
    text, image = lego.text_tokens, lego.image_tokens
    latent = (BATCH, channels, side, side)
    pixels = TensorSpec("pixels", "float32", (BATCH, 3, resolution, resolution))
    text_hidden_states = TensorSpec("text_hidden_states", "float32", (BATCH, text, width))
    image_embeddings = TensorSpec("image_embeddings", "float32", (BATCH, image, hidden))
    context = TensorSpec("context", "float32", (BATCH, 2 * text + image, width))
    inputs_embeds = TensorSpec("inputs_embeds", "float32", (BATCH, TOKENS, hidden))

    def cache(kind: str, length: str) -> tuple[TensorSpec, ...]:
        shape = (BATCH, language.num_key_value_heads, length, head_dim(checkpoint))
        return tuple(
            TensorSpec(f"{kind}_{tensor}.{layer}", "float32", shape)
            for layer in range(language.num_hidden_layers) for tensor in ("key", "value")
        )  # fmt: skip

    definitions = {
        "text_encoder": GraphDefinition(
            TextEncoder(checkpoint),
            (TensorSpec("input_ids", "int64", (BATCH, text)),),
            (text_hidden_states,),
            ("text_encoder",),
        ),
        "frame_encoder": GraphDefinition(
            FrameEncoder(checkpoint),
            (pixels, TensorSpec("vision_pixels", "float32", (BATCH, 3, vision, vision))),
            (TensorSpec("image_latent", "float32", latent), image_embeddings),
            ("vae", "vllm"),
        ),
        "token_embedding": GraphDefinition(
            TokenEmbedding(checkpoint),
            (TensorSpec("input_ids", "int64", (BATCH, TOKENS)),),
            (inputs_embeds,),
            ("vllm",),
        ),
        "decoder": GraphDefinition(
            Decoder(checkpoint),
            (
                inputs_embeds,
                TensorSpec("attention_mask", "float32", (BATCH, 1, TOKENS, TOTAL)),
                TensorSpec("position_ids", "int64", (BATCH, TOKENS)),
                *cache("past", PAST),
            ),
            (
                TensorSpec("logits", "float32", (BATCH, TOKENS, language.vocab_size)),
                TensorSpec("hidden_states", "float32", (BATCH, TOKENS, hidden)),
                *cache("present", TOTAL),
            ),
            ("vllm",),
        ),
        "conditioner": GraphDefinition(
            checkpoint.conditioner,
            (text_hidden_states, image_embeddings, TensorSpec("text_states", "float32", (BATCH, text, hidden))),
            (context,),
            ("conditioner",),
        ),
        **denoiser_graphs(checkpoint.unet, side, 2 * text + image, ("unet",)),
        **caching_graphs(checkpoint.unet, side, 2 * text + image, ("unet",)),
        "vae_decoder": GraphDefinition(
            VaeDecoder(checkpoint), (TensorSpec("latent", "float32", latent),), (pixels,), ("vae",)
        ),
    }  # fmt: skip
    if checkpoint.student is not None:
        definitions |= denoiser_graphs(checkpoint.student, side, 2 * text + image, ("unet", STUDENT), "_student")
    return definitions


def denoiser_graphs(
    unet: UNet2DConditionModel, side: int, length: int, parts: tuple[str, ...], suffix: str = ""
) -> dict[str, GraphDefinition]:
    """Returns the two graphs of a U-Net: the keys and values of a context, and one evaluation with them.

    Args:
        unet: The U-Net, or its student.
        side: r, of the latent.
        length: 2N + M, of the context.
        parts: Checkpoint folders of its weights.
        suffix: Of the graphs' names.
    """
    channels, layers = unet.config.out_channels, _cross_attention(unet)
    context = TensorSpec("context", "float32", (BATCH, length, unet.config.cross_attention_dim))
    computed = tuple(
        TensorSpec(f"{tensor}.{index}", "float32", (BATCH, layer.heads, length, layer.inner_dim // layer.heads))
        for index, layer in enumerate(layers)
        for tensor in ("key", "value")
    )
    sample = TensorSpec("sample", "float32", (BATCH, unet.config.in_channels, side, side))
    timestep = TensorSpec("timestep", "float32", (BATCH,))
    prediction = TensorSpec("prediction", "float32", (BATCH, channels, side, side))
    return {
        f"keys_values{suffix}": GraphDefinition(KeysValues(unet), (context,), computed, parts),
        f"unet{suffix}": GraphDefinition(Unet(unet), (sample, timestep, *computed), (prediction,), parts),
    }


def caching_graphs(
    unet: UNet2DConditionModel, side: int, length: int, parts: tuple[str, ...]
) -> dict[str, GraphDefinition]:
    """Returns the U-Net's graph with deep features to keep, in place of the plain one, and the graph that reuses them.

    Args:
        unet: As for `denoiser_graphs`, and so what follows.
        side: See above.
        length: See above.
        parts: See above.
    """
    whole = denoiser_graphs(unet, side, length, parts)["unet"]
    features = TensorSpec("deep_features", "float32", (BATCH, deep_channels(unet), side, side))
    sample, timestep, *computed = whole.inputs
    shallow = ShallowUnet(unet)
    left = [spec for layer in shallow.layers for spec in computed[2 * layer : 2 * layer + 2]]
    return {
        "unet": GraphDefinition(KeepingUnet(unet), whole.inputs, (*whole.outputs, features), parts),
        CACHE_GRAPH: GraphDefinition(shallow, (sample, timestep, features, *left), whole.outputs, parts),
    }


def latent_factor(checkpoint: LegoCheckpoint) -> int:
    """Returns how many pixels one side of a latent cell covers."""
    return 2 ** (len(checkpoint.vae.config.block_out_channels) - 1)


def head_dim(checkpoint: LegoCheckpoint) -> int:
    """Returns the width of one attention head of the VLLM's language model."""
    language = checkpoint.vllm.config.text_config
    return getattr(language, "head_dim", None) or language.hidden_size // language.num_attention_heads
