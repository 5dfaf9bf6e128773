"""An engine under watch: every call is counted, timed, and known while it lasts."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from lego_core.branches import Branch
from numpy.typing import NDArray

from lego_server.engines.base import Array, Condition, DecoderCache, DecoderStep, DeepFeatures, Engine, FrameFeatures
from lego_server.metrics import Metrics
from lego_server.texts import PromptTokens

_T = TypeVar("_T")


@dataclass(frozen=True)
class EngineCall:
    """An engine call, under way or over.

    Attributes:
        name: The engine's method.
        rows: How many rows it has.
        began: `time.perf_counter()`.
        ended: The same; None while it lasts.
    """

    name: str
    rows: int
    began: float
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return (time.perf_counter() if self.ended is None else self.ended) - self.began


class WatchedEngine:
    """See `lego_server.engines.base.Engine`; calls go on to the engine it watches."""

    def __init__(self, engine: Engine, metrics: Metrics, call_seconds: float) -> None:
        """Puts an engine under watch.

        Args:
            engine: The engine.
            metrics: Told of every call.
            call_seconds: Longest a call may take.
        """
        self.name, self.manifest, self.texts = engine.name, engine.manifest, engine.texts
        self._engine = engine
        self._metrics = metrics
        self._call_seconds = call_seconds
        self._lock = threading.Lock()
        self._calls: dict[int, EngineCall] = {}  # under way, by thread
        self._failed = False
        self._last = threading.local()

    @property
    def last_call(self) -> EngineCall | None:
        """The call of this thread that came back last."""
        return getattr(self._last, "call", None)

    @property
    def hung(self) -> EngineCall | None:
        """A call under way that is over its deadline. Safe from any thread, as is `failed`."""
        with self._lock:
            return next((call for call in self._calls.values() if call.seconds > self._call_seconds), None)

    @property
    def failed(self) -> bool:
        """Whether the last call that ended raised an error."""
        return self._failed

    def encode_frames(self, pixels: Sequence[Array], vision_pixels: Sequence[Array]) -> list[FrameFeatures]:
        """See `Engine.encode_frames`."""
        return self._watch("encode_frames", len(pixels), lambda: self._engine.encode_frames(pixels, vision_pixels))

    def prefill(self, frame: FrameFeatures, prompt: PromptTokens) -> DecoderStep:
        """See `Engine.prefill`."""
        return self._watch("prefill", 1, lambda: self._engine.prefill(frame, prompt))

    def extend(self, caches: Sequence[DecoderCache], token_ids: Sequence[Sequence[int]]) -> list[DecoderStep]:
        """See `Engine.extend`."""
        return self._watch("extend", len(caches), lambda: self._engine.extend(caches, token_ids))

    def condition(self, frame: FrameFeatures, clip_ids: NDArray[np.int64], text_states: Array) -> Condition:
        """See `Engine.condition`."""
        return self._watch("condition", 1, lambda: self._engine.condition(frame, clip_ids, text_states))

    def denoise(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[Array]:  # fmt: skip
        """See `Engine.denoise`."""
        return self._watch(
            "denoise", len(latents), lambda: self._engine.denoise(latents, timesteps, conditions, branches),
            rows=len(latents) * len(branches),
        )  # fmt: skip

    def denoise_keeping(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[tuple[Array, DeepFeatures]]:  # fmt: skip
        """See `Engine.denoise_keeping`; counted as long as they are held."""
        kept = self._watch(
            "denoise_keeping", len(latents),
            lambda: self._engine.denoise_keeping(latents, timesteps, conditions, branches),
            rows=len(latents) * len(branches),
        )  # fmt: skip
        for _, features in kept:
            self._metrics.features_kept()
            weakref.finalize(features, self._metrics.features_freed)
        return kept

    def denoise_reusing(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...], features: Sequence[DeepFeatures],
    ) -> list[Array]:  # fmt: skip
        """See `Engine.denoise_reusing`."""
        return self._watch(
            "denoise_reusing", len(latents),
            lambda: self._engine.denoise_reusing(latents, timesteps, conditions, branches, features),
            rows=len(latents) * len(branches),
        )  # fmt: skip

    def decode_latents(self, latents: Sequence[Array]) -> list[Array]:
        """See `Engine.decode_latents`."""
        return self._watch("decode_latents", len(latents), lambda: self._engine.decode_latents(latents))

    def _watch(self, name: str, queries: int, call: Callable[[], _T], rows: int = 0) -> _T:
        under_way = EngineCall(name, rows or queries, time.perf_counter())
        with self._lock:
            self._calls[threading.get_ident()] = under_way
        failed = True
        try:
            result = call()
            failed = False
        finally:
            over = self._last.call = EngineCall(name, under_way.rows, under_way.began, time.perf_counter())
            with self._lock:
                del self._calls[threading.get_ident()]
                self._failed = failed
            if failed:
                self._metrics.engine_call_failed(name)
            else:
                self._metrics.engine_called(name, queries, over.rows, over.seconds)
        return result
