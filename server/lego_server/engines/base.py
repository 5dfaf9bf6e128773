"""What a server asks of a model: the `Engine` protocol.

Small things (latents, predictions, one hidden state) cross it as NumPy arrays. Large things (frame features, decoder
caches, contexts, deep features) stay with the engine, behind handles that only the engine that made them can read.
Engine calls block; they are made from one thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np
from lego_core.branches import Branch
from lego_core.manifest import Manifest
from numpy.typing import NDArray

from lego_server.texts import PromptTokens, Texts

Array = NDArray[np.float32]
FrameFeatures = NewType("FrameFeatures", object)
DecoderCache = NewType("DecoderCache", object)
Condition = NewType("Condition", object)
DeepFeatures = NewType("DeepFeatures", object)


@dataclass(frozen=True)
class DecoderStep:
    """What the VLLM says after reading some tokens.

    Attributes:
        token_id: The likeliest next token.
        hidden_states: (T, D) float32, after the final norm, of the T tokens just read; after a prompt only of its
            last position, T = 1 (the rows that lego-reference C7 keeps).
        cache: Everything read so far; to be handed to `Engine.extend`.
    """

    token_id: int
    hidden_states: Array
    cache: DecoderCache


class Engine(Protocol):
    """A loaded LEGO model.

    Methods that take sequences run them as one batch; all items must have equal shapes. Letters as in the manifest:
    R resolution, r latent side, V vision size, N text tokens, M image tokens, D hidden size, C context width.

    Attributes:
        name: Kind and device, such as "onnx-cpu".
        manifest: What was loaded.
        texts: The model's tokenizers.
    """

    name: str
    manifest: Manifest
    texts: Texts

    def encode_frames(self, pixels: Sequence[Array], vision_pixels: Sequence[Array]) -> list[FrameFeatures]:
        """Encodes frames, each (3, R, R) in [-1, 1] and (3, V, V) normalised, into latent and image tokens."""

    def prefill(self, frame: FrameFeatures, prompt: PromptTokens) -> DecoderStep:
        """Reads a prompt with the frame's image tokens in its place."""

    def extend(self, caches: Sequence[DecoderCache], token_ids: Sequence[Sequence[int]]) -> list[DecoderStep]:
        """Reads further tokens, equally many (one or more) for each cache. A cache may be extended only once."""

    def condition(self, frame: FrameFeatures, clip_ids: NDArray[np.int64], text_states: Array) -> Condition:
        """Builds what the U-Net attends to.

        Args:
            frame: The encoded input frame.
            clip_ids: (N,) ids of the description for the CLIP text encoder.
            text_states: (T, D) hidden states of the description, T from 1 up; the first N are used, zero rows fill up.
        """

    def denoise(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[Array]:  # fmt: skip
        """Evaluates the U-Net once for several requests, each at its own timestep.

        Args:
            latents: Noisy latents (4, r, r), already scaled to unit variance.
            timesteps: Fractional timesteps.
            conditions: One per latent.
            branches: Which guidance branches to ask for.

        Returns:
            Per request (len(branches), 4, r, r) float32 raw predictions.
        """

    def denoise_keeping(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[tuple[Array, DeepFeatures]]:  # fmt: skip
        """As `denoise`, and keeps what the U-Net's deep layers gave. Only where there is the graph `CACHE_GRAPH`."""

    def denoise_reusing(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...], features: Sequence[DeepFeatures],
    ) -> list[Array]:  # fmt: skip
        """As `denoise`, without the deep layers: in their place stand features that were kept of the same branches.

        Args:
            latents: As for `denoise`, and so the three below.
            timesteps: See above.
            conditions: See above.
            branches: See above.
            features: One per latent; they can be used again.
        """

    def decode_latents(self, latents: Sequence[Array]) -> list[Array]:
        """Decodes clean latents (4, r, r), as sampled, into pixels (3, R, R) nominally in [-1, 1]."""
