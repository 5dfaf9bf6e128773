"""The engine calls a query is made of, as values: the engine loop runs them, alone or several alike at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lego_core.branches import Branch
from numpy.typing import NDArray

from lego_server.engines.base import Array, Condition, DecoderCache, DeepFeatures, Engine, FrameFeatures
from lego_server.texts import PromptTokens


@dataclass(frozen=True)
class EncodeFrame:
    """Gives the `FrameFeatures` of a frame."""

    pixels: Array
    vision_pixels: Array


@dataclass(frozen=True)
class Prefill:
    """Gives the `DecoderStep` after a prompt."""

    frame: FrameFeatures
    prompt: PromptTokens


@dataclass(frozen=True)
class Extend:
    """Gives the `DecoderStep` after further tokens."""

    cache: DecoderCache
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class BuildCondition:
    """Gives the `Condition` of a described frame."""

    frame: FrameFeatures
    clip_ids: NDArray[np.int64]
    text_states: Array


@dataclass(frozen=True)
class Denoise:
    """Gives the (branches, 4, r, r) predictions of one U-Net evaluation."""

    latent: Array
    timestep: float
    condition: Condition
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class DenoiseKeeping(Denoise):
    """Gives the predictions, and the `DeepFeatures` for steps that follow."""


@dataclass(frozen=True)
class DenoiseReusing(Denoise):
    """Gives the predictions of an evaluation without the deep layers."""

    features: DeepFeatures


@dataclass(frozen=True)
class DecodeLatent:
    """Gives the (3, R, R) pixels of a latent."""

    latent: Array


Work = EncodeFrame | Prefill | Extend | BuildCondition | Denoise | DecodeLatent


def batch_key(work: Work) -> tuple[type, Hashable] | None:
    """Returns a key that two pieces of work share if one engine call can do both; None if it never can."""
    match work:
        case Extend():
            return Extend, len(work.token_ids)
        case Denoise():
            return type(work), work.branches  # a call runs one graph
        case EncodeFrame() | DecodeLatent():
            return type(work), None
        case Prefill() | BuildCondition():
            return None


def run(engine: Engine, batch: Sequence[Work]) -> list[Any]:
    """Runs work that shares a `batch_key` (or a single piece) in one engine call; results in the same order."""
    items: Any = batch
    match batch[0]:
        case EncodeFrame():
            return list(engine.encode_frames([w.pixels for w in items], [w.vision_pixels for w in items]))
        case Prefill(frame, prompt):
            return [engine.prefill(frame, prompt)]
        case Extend():
            return list(engine.extend([w.cache for w in items], [w.token_ids for w in items]))
        case BuildCondition(frame, clip_ids, text_states):
            return [engine.condition(frame, clip_ids, text_states)]
        case Denoise(branches=branches):
            rows = [w.latent for w in items], [w.timestep for w in items], [w.condition for w in items]
            match batch[0]:
                case DenoiseKeeping():
                    return list(engine.denoise_keeping(*rows, branches))
                case DenoiseReusing():
                    return list(engine.denoise_reusing(*rows, branches, [w.features for w in items]))
            return list(engine.denoise(*rows, branches))
        case DecodeLatent():
            return list(engine.decode_latents([w.latent for w in items]))
