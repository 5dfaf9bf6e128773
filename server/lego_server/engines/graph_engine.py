"""The engine that runs an engine directory's graphs: with onnxruntime, with OpenVINO, or as TensorRT plans."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, cast

import numpy as np
from lego_core.branches import Branch
from lego_core.errors import LegoError
from lego_core.manifest import CACHE_GRAPH, Manifest
from numpy.typing import NDArray

from lego_server.engines.base import Array, Condition, DecoderCache, DecoderStep, DeepFeatures, FrameFeatures
from lego_server.engines.devices import CPU_DEVICES, open_graphs, require_device
from lego_server.engines.graph import Graph, KeptTensor
from lego_server.engines.interface import check_tensors, expected_interface
from lego_server.engines.onnx_graph import PROVIDERS
from lego_server.engines.prefixes import Prefixes
from lego_server.texts import PromptTokens, Texts

_PREFIXES = 4  # frames of which the VLLM's keys and values are kept; as many as queries share the engine by default


@dataclass(frozen=True)
class _Frame:
    latent: Array  # (4, r, r), unscaled
    embeddings: Array  # (M, D)


@dataclass(frozen=True)
class _Cache:
    tensors: dict[str, KeptTensor]  # past_key.0 ...: (1, heads, length, head_dim)
    length: int


@dataclass(frozen=True)
class _Condition:
    context: Array  # (2N + M, C)
    image_latent: Array  # (4, r, r)
    # By network, once it is asked for: keys and values of its cross-attention layers, key.0 ...: (1, H, 2N + M, d)
    keys_values: dict[str, dict[str, Array]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Features:
    rows: Array  # (branches, D, r, r)


@dataclass(frozen=True)
class _Rows:
    """The keys and values of one U-Net call's batch, put together; the next step's is mostly the same."""

    network: str
    conditions: list[_Condition]
    branches: tuple[Branch, ...]
    tensors: dict[str, dict[str, KeptTensor]] = field(default_factory=dict)  # by graph: each has a memory of its own

    def are_of(self, network: str, conditions: list[_Condition], branches: tuple[Branch, ...]) -> bool:
        same = len(conditions) == len(self.conditions) and all(map(is_, conditions, self.conditions))
        return same and (network, branches) == (self.network, self.branches)


class GraphEngine:
    """See `lego_server.engines.base.Engine`."""

    def __init__(self, manifest: Manifest, texts: Texts, graphs: dict[str, Graph], device: str) -> None:
        """Puts checked parts together; use `load`."""
        self.name = f"onnx-{device}" if device in PROVIDERS else device
        self.manifest = manifest
        self.texts = texts
        self._text_encoder, self._frame_encoder = graphs["text_encoder"], graphs["frame_encoder"]
        self._token_embedding, self._decoder = graphs["token_embedding"], graphs["decoder"]
        self._conditioner, self._vae_decoder = graphs["conditioner"], graphs["vae_decoder"]
        self._denoisers = {
            network: (graphs[f"keys_values{suffix}"], graphs[f"unet{suffix}"])
            for network, suffix in (("teacher", ""), ("student", "_student")) if f"unet{suffix}" in graphs
        }  # fmt: skip
        self._shallow = graphs.get(CACHE_GRAPH)
        layers, kinds = range(manifest.decoder.layers), ("key", "value")
        self._cache_names = [f"{kind}.{layer}" for layer in layers for kind in kinds]
        self._null = _Condition(self._build_null_context(), np.zeros(0, np.float32))
        self._prefixes: Prefixes[DecoderStep] = Prefixes(_PREFIXES)
        self._kept = threading.local()  # the rows of each thread's last U-Net call

    @classmethod
    def load(cls, directory: Path, device: str = "cpu", threads: int = 0, max_batch: int = 1, lanes: int = 1) -> Self:
        """Loads an engine directory.

        Raises:
            LegoError: A file is missing or altered, a graph is of the wrong shape, or the device is not available.
        """
        directory = Path(directory)
        if threads < 0:
            raise LegoError(f"threads is {threads}; give 1 or more, or 0 to let onnxruntime choose")
        require_device(device)
        manifest = Manifest.load(directory)
        check_precision(directory, manifest, device)
        manifest.check_content(directory)
        texts = Texts.load(directory, manifest)
        open_graph = open_graphs(directory, manifest, device, threads, max_batch, lanes)
        graphs: dict[str, Graph] = {}
        for name in manifest.graph_names:
            spec = manifest.graphs[name]
            graph = graphs[name] = open_graph(name)
            expected_inputs, expected_outputs = expected_interface(manifest)[name]
            # Both must hold: what the manifest says of the file, and what the file is.
            for inputs, outputs in (
                ({tensor.name: tensor.shape for tensor in spec.inputs}, {t.name: t.shape for t in spec.outputs}),
                (graph.inputs(), graph.outputs()),
            ):
                check_tensors(name, "input", inputs, expected_inputs)
                check_tensors(name, "output", outputs, expected_outputs)
        return cls(manifest, texts, graphs, device)

    def encode_frames(self, pixels: Sequence[Array], vision_pixels: Sequence[Array]) -> list[FrameFeatures]:
        """See `Engine.encode_frames`."""
        out = self._frame_encoder.run({"pixels": np.stack(pixels), "vision_pixels": np.stack(vision_pixels)})
        pairs = zip(out["image_latent"], out["image_embeddings"], strict=True)
        return [FrameFeatures(_Frame(latent, embeddings)) for latent, embeddings in pairs]

    def prefill(self, frame: FrameFeatures, prompt: PromptTokens) -> DecoderStep:
        """See `Engine.prefill`.

        The image comes before the question, so what is read up to its last token depends on the frame alone. It is read
        in a call of its own, whether that is still known or not, so that no answer depends on what was asked before.
        """
        known = cast(_Frame, frame)
        read = self._prefixes.find(known, prompt.before)
        if read is None:
            embeds = np.concatenate([self._embed(prompt.before), known.embeddings])
            read = _last(self._decode(embeds, self._nothing()))
            self._prefixes.keep(known, prompt.before, read)
        return _last(self._decode(self._embed(prompt.after), cast(_Cache, read.cache))) if prompt.after else read

    def extend(self, caches: Sequence[DecoderCache], token_ids: Sequence[Sequence[int]]) -> list[DecoderStep]:
        """See `Engine.extend`."""
        if len(caches) > 1:
            return self._extend_batch([cast(_Cache, cache) for cache in caches], token_ids)
        return [self._decode(self._embed(token_ids[0]), cast(_Cache, caches[0]))]

    def condition(self, frame: FrameFeatures, clip_ids: NDArray[np.int64], text_states: Array) -> Condition:
        """See `Engine.condition`."""
        features = cast(_Frame, frame)
        rows = np.zeros((self.manifest.lego.text_tokens, text_states.shape[1]), np.float32)
        kept = text_states[: len(rows)]
        rows[: len(kept)] = kept
        out = self._conditioner.run({
            "text_hidden_states": self._encode_text(clip_ids),
            "image_embeddings": features.embeddings[None],
            "text_states": rows[None],
        })  # fmt: skip
        return Condition(_Condition(out["context"][0], features.latent))

    def denoise(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[Array]:  # fmt: skip
        """See `Engine.denoise`."""
        network = "student" if branches == ("student",) else "teacher"
        if network not in self._denoisers or ("student" in branches) != (network == "student"):
            raise LegoError(f"branches are {branches}; the student stands alone, and only where the model has one")
        unet = self._denoisers[network][1]
        unread = [name for name in unet.outputs() if name != "prediction"]  # need not leave the device
        return self._evaluate(unet, network, latents, timesteps, conditions, branches, keep=unread)["prediction"]

    def denoise_keeping(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...],
    ) -> list[tuple[Array, DeepFeatures]]:  # fmt: skip
        """See `Engine.denoise_keeping`."""
        self._require_shallow(branches)
        unet = self._denoisers["teacher"][1]
        out = self._evaluate(unet, "teacher", latents, timesteps, conditions, branches)
        # Copied out of a batch: a part of it would keep the whole in memory.
        kept = [each if len(latents) == 1 else each.copy() for each in out["deep_features"]]
        return [
            (prediction, DeepFeatures(_Features(rows)))
            for prediction, rows in zip(out["prediction"], kept, strict=True)
        ]

    def denoise_reusing(
        self, latents: Sequence[Array], timesteps: Sequence[float], conditions: Sequence[Condition],
        branches: tuple[Branch, ...], features: Sequence[DeepFeatures],
    ) -> list[Array]:  # fmt: skip
        """See `Engine.denoise_reusing`."""
        shallow = self._require_shallow(branches)
        kept = np.concatenate([cast(_Features, each).rows for each in features])
        return self._evaluate(
            shallow, "teacher", latents, timesteps, conditions, branches, {"deep_features": kept}
        )["prediction"]  # fmt: skip

    def _require_shallow(self, branches: tuple[Branch, ...]) -> Graph:
        if self._shallow is None:
            raise LegoError(f"these engines have no graph {CACHE_GRAPH}: rebuild them with lego-export build")
        if "student" in branches:
            raise LegoError(f"branches are {branches}; features are kept of the teacher only")
        return self._shallow

    def _evaluate(
        self, graph: Graph, network: str, latents: Sequence[Array], timesteps: Sequence[float],
        conditions: Sequence[Condition], branches: tuple[Branch, ...],
        feeds: Mapping[str, Array] = MappingProxyType({}), keep: Collection[str] = (),
    ) -> dict[str, list[Array]]:  # fmt: skip
        """Runs a graph of a U-Net, one row for each query's every branch; returns each output, query by query."""
        asked = [cast(_Condition, condition) for condition in conditions]
        samples = [
            np.concatenate([latent, np.zeros_like(each.image_latent) if branch == "null" else each.image_latent])
            for latent, each in zip(latents, asked, strict=True)
            for branch in branches
        ]
        arrays, _ = graph.run_keeping(
            {
                "sample": np.stack(samples),
                "timestep": np.repeat(np.array(timesteps, np.float32), len(branches)),
                **feeds,
            },
            self._gather(graph, network, asked, branches),
            keep,
        )
        queries = len(latents), len(branches)
        return {name: list(rows.reshape(*queries, *rows.shape[1:])) for name, rows in arrays.items()}

    def _gather(
        self, graph: Graph, network: str, conditions: list[_Condition], branches: tuple[Branch, ...]
    ) -> dict[str, KeptTensor]:
        """Returns the keys and values that a graph takes of a batch, one row for each condition's every branch."""
        kept: _Rows | None = getattr(self._kept, "rows", None)
        if kept is None or not kept.are_of(network, conditions, branches):
            kept = self._kept.rows = _Rows(network, conditions, branches)
        if graph.name not in kept.tensors:
            rows = [
                self._keys_values(network, each if branch in ("conditional", "student") else self._null)
                for each in conditions
                for branch in branches
            ]
            taken = [name for name in rows[0] if name in graph.inputs()]
            kept.tensors[graph.name] = {
                name: graph.place(name, np.concatenate([row[name] for row in rows])) for name in taken
            }
        return kept.tensors[graph.name]

    def _keys_values(self, network: str, condition: _Condition) -> dict[str, Array]:
        if network not in condition.keys_values:
            condition.keys_values[network] = self._denoisers[network][0].run({"context": condition.context[None]})
        return condition.keys_values[network]

    def decode_latents(self, latents: Sequence[Array]) -> list[Array]:
        """See `Engine.decode_latents`."""
        scaled = np.stack(latents) / np.float32(self.manifest.latent.scaling_factor)
        return list(self._vae_decoder.run({"latent": scaled})["pixels"])

    def _nothing(self) -> _Cache:
        spec = self.manifest.decoder
        empty = np.zeros((1, spec.key_value_heads, 0, spec.head_dim), np.float32)
        return _Cache({name: self._decoder.place(f"past_{name}", empty) for name in self._cache_names}, 0)

    def _decode(self, embeds: Array, cache: _Cache) -> DecoderStep:
        """Runs the decoder on (T, D) embeddings of one request."""
        arrays, kept = self._decoder.run_keeping(
            {
                "inputs_embeds": embeds[None],
                "attention_mask": self._mask([cache.length], cache.length, len(embeds)),
                "position_ids": np.arange(cache.length, cache.length + len(embeds), dtype=np.int64)[None],
            },
            {f"past_{name}": tensor for name, tensor in cache.tensors.items()},
            keep=[f"present_{name}" for name in self._cache_names],
        )
        grown = _Cache({name: kept[f"present_{name}"] for name in self._cache_names}, cache.length + len(embeds))
        return DecoderStep(int(arrays["logits"][0, -1].argmax()), arrays["hidden_states"][0], DecoderCache(grown))

    def _extend_batch(self, caches: Sequence[_Cache], token_ids: Sequence[Sequence[int]]) -> list[DecoderStep]:
        """Extends caches of unlike lengths together: shorter ones are padded in front, and the padding is masked."""
        tokens, longest = len(token_ids[0]), max(cache.length for cache in caches)
        past = {}
        for name in self._cache_names:
            rows = [_pad_front(cache.tensors[name].numpy(), longest) for cache in caches]
            past[f"past_{name}"] = np.concatenate(rows)
        out = self._decoder.run({
            "inputs_embeds": np.stack([self._embed(ids) for ids in token_ids]),
            "attention_mask": self._mask([cache.length for cache in caches], longest, tokens),
            "position_ids": np.stack([np.arange(c.length, c.length + tokens, dtype=np.int64) for c in caches]),
            **past,
        })  # fmt: skip
        steps = []
        for row, cache in enumerate(caches):
            grown = {}
            for name in self._cache_names:
                present = out[f"present_{name}"][row : row + 1, :, longest - cache.length :]
                grown[name] = self._decoder.place(f"past_{name}", present)
            token_id = int(out["logits"][row, -1].argmax())
            state = DecoderCache(_Cache(grown, cache.length + tokens))
            steps.append(DecoderStep(token_id, out["hidden_states"][row], state))
        return steps

    def _mask(self, lengths: Sequence[int], longest: int, tokens: int) -> Array:
        """Returns the (B, 1, T, longest + T) additive mask: causal, and blind to padding in front of each past."""
        drop = np.finfo(self._decoder.dtype("attention_mask")).min
        mask = np.zeros((len(lengths), 1, tokens, longest + tokens), np.float32)
        mask[..., longest:] = np.triu(np.full((tokens, tokens), drop, np.float32), k=1)
        for row, length in enumerate(lengths):
            mask[row, :, :, : longest - length] = drop
        return mask

    def _embed(self, token_ids: Sequence[int]) -> Array:
        """Returns the (T, D) embeddings of token ids; T may be 0."""
        if not token_ids:
            return np.zeros((0, self.manifest.decoder.hidden_size), np.float32)
        ids = np.array([token_ids], np.int64)
        return cast(Array, self._token_embedding.run({"input_ids": ids})["inputs_embeds"][0])

    def _encode_text(self, clip_ids: NDArray[np.int64]) -> NDArray[Any]:
        return self._text_encoder.run({"input_ids": clip_ids[None]})["text_hidden_states"]

    def _build_null_context(self) -> Array:
        """Returns [CLIP("") | zeros | zeros]: zero after the projections, full length (lego-reference A5)."""
        clip = self._encode_text(self.texts.clip_ids(""))[0]
        lego = self.manifest.lego
        return np.concatenate([clip, np.zeros((lego.image_tokens + lego.text_tokens, clip.shape[1]), np.float32)])


def check_precision(directory: Path, manifest: Manifest, device: str) -> None:
    """Checks that a device computes in what the graphs are made for.

    Raises:
        LegoError: They are in half precision, and it is a CPU.
    """
    half = next(
        (name for name in manifest.graph_names if manifest.precision_of(name).compute in ("fp16", "bf16")), None
    )
    if half is not None and device in CPU_DEVICES:
        # onnxruntime has no bfloat16 on the CPU, and crashes on some float16 graphs; OpenVINO narrows float32 itself.
        raise LegoError(
            f"{directory} computes in {manifest.precision_of(half).compute} ({half}), which is for GPUs: choose "
            "another --device, or build engines with --precision fp32 or int8"
        )


def _last(step: DecoderStep) -> DecoderStep:
    """Returns what was said after the last token only."""
    return replace(step, hidden_states=step.hidden_states[-1:].copy())


def _pad_front(cache: NDArray[Any], length: int) -> NDArray[Any]:
    return np.pad(cache, ((0, 0), (0, 0), (length - cache.shape[2], 0), (0, 0)))
