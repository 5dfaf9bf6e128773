"""A small deterministic model in NumPy that behaves like an engine: no weights, a call log, and a delay on request."""

from __future__ import annotations

import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from lego_core.branches import Branch
from lego_core.config import GuidanceDefaults, LegoConfig, StudentConfig, VisionInput
from lego_core.manifest import CACHE_GRAPH, DecoderSpec, GraphSpec, LatentSpec, Manifest, NoiseSchedule
from lego_server.engines.base import Array, Condition, DecoderCache, DecoderStep, DeepFeatures, FrameFeatures
from lego_server.texts import PromptTokens, Texts
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

RESOLUTION, SIDE, HIDDEN, TEXT_TOKENS = 64, 8, 16, 12
WORDS = [
    "<unk>", "<bos>", "<eos>", "the", "left", "right", "hand", "opens", "closes", "drawer", "tap", "lid", "with",
    "fingers", "slowly", "at", "pot", ".",
]  # fmt: skip
EOS = WORDS.index("<eos>")
DESCRIPTION_LENGTH = 6


def make_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "<bos>", "<eos>"])
    return tokenizer


def make_manifest(steps: int = 4, caching: bool = False) -> Manifest:
    graphs = {CACHE_GRAPH: GraphSpec("", "", (), ())} if caching else {}
    return Manifest(
        lego=LegoConfig(
            name="fake", resolution=RESOLUTION, text_tokens=TEXT_TOKENS, image_tokens=4, max_description_tokens=10,
            guidance=GuidanceDefaults(steps=steps), vision=VisionInput(size=32), notice="A fake model for tests.",
            student=StudentConfig((999, 499), 7.5, 1.5),
        ),
        schedule=NoiseSchedule(),
        decoder=DecoderSpec(1, 1, 8, HIDDEN, bos_token_id=1, eos_token_id=EOS),
        latent=LatentSpec(channels=4, factor=8, scaling_factor=0.2),
        context_width=HIDDEN, text_pad_token_id=EOS, text_bos_token_id=1, text_eos_token_id=EOS,
        precision="fp32", opset=23, checkpoint_fingerprint="0123456789abcdef", graphs=graphs, files={},
    )  # fmt: skip


class _Handle:
    """Something large the engine holds; counted while it lives."""

    def __init__(self, **values: Any) -> None:
        self.values = values


class FakeEngine:
    """See `lego_server.engines.base.Engine`.

    Attributes:
        calls: Engine calls by method name.
        batches: (method, batch size) of every call in order.
        delay: Seconds each call takes.
        gate: Denoising waits until it is set.
        branches: The branches of every denoising call.
        most_at_once: Calls that ever ran at the same time.
        broken_words: A prompt with one of these words makes `prefill` raise.
    """

    def __init__(self, delay: float = 0.0, steps: int = 4, caching: bool = False) -> None:
        self.name = "fake-cpu"
        self.manifest = make_manifest(steps, caching)
        self.texts = Texts(self.manifest, make_tokenizer(), make_tokenizer())
        self.delay = delay
        self.calls: Counter[str] = Counter()
        self.batches: list[tuple[str, int]] = []
        self.branches: list[tuple[Branch, ...]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken_words: set[str] = set()
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._handles: weakref.WeakSet[_Handle] = weakref.WeakSet()

    @property
    def live_handles(self) -> int:
        return len(self._handles)

    def encode_frames(self, pixels: Sequence[Array], vision_pixels: Sequence[Array]) -> list[FrameFeatures]:
        self._log("encode_frames", len(pixels))
        handles = []
        for picture, vision in zip(pixels, vision_pixels, strict=True):
            assert picture.shape == (3, RESOLUTION, RESOLUTION) and vision.shape == (3, 32, 32)
            blocks = picture.reshape(3, SIDE, 8, SIDE, 8).mean(axis=(2, 4))
            latent = np.concatenate([blocks, blocks.mean(axis=0, keepdims=True)])
            handles.append(FrameFeatures(self._hold(latent=latent)))
        return handles

    def prefill(self, frame: FrameFeatures, prompt: PromptTokens) -> DecoderStep:
        self._log("prefill", 1)
        history = (*prompt.before, *prompt.after)
        for word in self.broken_words:
            if WORDS.index(word) in history:
                raise RuntimeError("the engine stumbled over a prompt")
        return self._decoder_step(history, 0, tokens=1)

    def extend(self, caches: Sequence[DecoderCache], token_ids: Sequence[Sequence[int]]) -> list[DecoderStep]:
        self._log("extend", len(caches))
        steps = []
        for handle, ids in zip(caches, token_ids, strict=True):
            cache = cast(_Handle, handle).values
            steps.append(self._decoder_step((*cache["history"], *ids), cache["written"] + len(ids), len(ids)))
        return steps

    def condition(self, frame: FrameFeatures, clip_ids: NDArray[np.int64], text_states: Array) -> Condition:
        self._log("condition", 1)
        assert clip_ids.shape == (TEXT_TOKENS,) and text_states.shape[1] == HIDDEN
        strength = np.float32(clip_ids.sum() / 100.0 + text_states.mean())
        return Condition(self._hold(latent=cast(_Handle, frame).values["latent"], strength=strength))

    def denoise(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[Array]:  # fmt: skip
        self._log("denoise", len(latents))
        self.branches.append(branches)
        assert self.gate.wait(30)
        predictions = []
        for latent, timestep, handle in zip(latents, timesteps, conditions, strict=True):
            condition = cast(_Handle, handle).values
            rows = {
                "conditional": latent - condition["latent"] * condition["strength"],
                "image_only": latent - condition["latent"],
                "null": latent,
                "student": latent - condition["latent"] * 2,
            }
            predictions.append(np.stack([rows[branch] for branch in branches]) * np.float32(1 - timestep / 2000))
        return predictions

    def denoise_keeping(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[tuple[Array, DeepFeatures]]:  # fmt: skip
        predictions = self.denoise(latents, timesteps, conditions, branches)
        self._log("denoise_keeping", len(latents))
        return [
            (prediction, DeepFeatures(self._hold(deep=prediction - latent * np.float32(0.5))))
            for prediction, latent in zip(predictions, latents, strict=True)
        ]

    def denoise_reusing(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...], features: Sequence[DeepFeatures],
    ) -> list[Array]:  # fmt: skip
        self._log("denoise_reusing", len(latents))
        self.branches.append(branches)
        assert self.gate.wait(30)
        kept = [cast(_Handle, each).values["deep"] for each in features]
        assert all(len(deep) == len(branches) for deep in kept)
        return [deep + latent * np.float32(0.5) for latent, deep in zip(latents, kept, strict=True)]

    def decode_latents(self, latents: Sequence[Array]) -> list[Array]:
        self._log("decode_latents", len(latents))
        return [np.tanh(np.repeat(np.repeat(latent[:3], 8, axis=1), 8, axis=2)) for latent in latents]

    def _decoder_step(self, history: tuple[int, ...], written: int, tokens: int) -> DecoderStep:
        # The next word depends on all that was read, as a model's would.
        digest = zlib.crc32(bytes(history))
        prefixes = [bytes(history[: len(history) - after]) for after in reversed(range(tokens))]
        token_id = EOS if written >= DESCRIPTION_LENGTH else 3 + digest % (len(WORDS) - 3)
        rows = [np.random.default_rng(zlib.crc32(p)).standard_normal(HIDDEN, dtype=np.float32) for p in prefixes]
        return DecoderStep(token_id, np.stack(rows), DecoderCache(self._hold(history=history, written=written)))

    def _hold(self, **values: Any) -> _Handle:
        handle = _Handle(**values)
        self._handles.add(handle)
        return handle

    def _log(self, method: str, size: int) -> None:
        with self._lock:
            self.calls[method] += 1
            self.batches.append((method, size))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay)
        with self._lock:
            self._at_once -= 1
