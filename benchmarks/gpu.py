"""What a query's calls take on a GPU, by whatever is installed to run them.

    python -m benchmarks.gpu --json out/gpu.json
    python -m benchmarks.gpu --device cpu --size nano --json out/gpu_cpu.json

A model of the released size (Stable Diffusion 1.5, a VLLM of 7B) with random weights, which cost what trained ones do;
no file of weights is needed. Every call that the server makes is timed, in half precision, and compared with float32:

- eager: as torch runs it; channels-last: the same with convolutions in the layout that tensor cores read;
- compiled: torch.compile with CUDA graphs, channels-last, the guidance branches mixed in the same call;
- onnxruntime, TensorRT (as onnxruntime's provider): the exported graph; its first output comes to the host, where the
  server needs it, and torch's stays on the GPU.

With `--engines DIR` a built engine directory runs as well, by the server's own engine on `--engine-devices`. It keeps
to `--budget` seconds: what does not fit, or lacks its package, is left out, and why is said. Figures are written after
every call, so a run that is killed keeps what it has. Not yet run on a GPU.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, cast

import matplotlib as mpl
import numpy as np
import torch
import typer
from lego_core.errors import LegoError
from lego_core.files import write_whole
from lego_core.manifest import TensorSpec
from lego_export.graphs import (
    Decoder,
    FrameEncoder,
    GraphDefinition,
    KeysValues,
    TextEncoder,
    Unet,
    VaeDecoder,
    head_dim,
)
from lego_export.graphs import latent_factor as factor_of
from lego_export.onnx_graph import convert
from lego_export.parity import compare
from lego_model.checkpoint import LegoCheckpoint
from lego_model.create import train_tokenizer
from lego_model.skeleton import read_skeleton
from lego_server.engines import load_engine
from lego_server.engines.onnx_graph import OnnxGraph, Provider, require_providers
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.call_times import measure_calls
from benchmarks.random_checkpoint import random_weight
from benchmarks.replay import measure_rest

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZES = {"released": "lego-sd15-llava7b.yaml", "nano": "nano.yaml"}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# The most important first, as time may run out; the language model's together, as there is room for one group only.
KINDS = ("Denoise", "DecodeLatent", "EncodeFrame", "BuildCondition", "Extend", "Prefill")
LANGUAGE = ("Extend", "Prefill")
ALONE = ("Prefill", "BuildCondition")  # the server makes these for one query at a time
RUNNERS = ("eager", "channels-last", "compiled", "onnxruntime", "tensorrt")
# Calls that are made of convolutions, and how many of their inputs, the first, are pictures.
CONVOLUTIONS = {"Denoise": 2, "DecodeLatent": 1, "EncodeFrame": 2}
# Of the largest value; what is further from float32 is told, and not used to predict. Guidance multiplies differences
# between branches by its scale, and their rounding with them.
TOLERANCE = 1e-1
# Seconds that preparing a network of the released size may take before its first call, the language model twice as
# many; less being left, it is left out.
_PREPARING = {"compiled": 75.0, "onnxruntime": 60.0, "tensorrt": 150.0}
_LARGE = 100_000_000
_WORDS, _TOKENS = 24, 20  # of a prompt beside its image, and of a description
_SCALES = (7.5, 1.5)  # text, image
_LEAST_SECONDS, _WARM_UP = 0.3, 3


@dataclass(frozen=True)
class Row:
    """One call, run in one way.

    Attributes:
        kind: Of call.
        runner: One of `RUNNERS`, or `engine:DEVICE`.
        dtype: One of `DTYPES`.
        batch: Queries in it.
        seconds: The median; None if it was not measured.
        error: Largest difference from float32, as a share of the largest value; None if there was no reference.
        gigabytes: Most memory of the GPU that tensors took; None without a GPU.
        reason: Why it was not measured.
    """

    kind: str
    runner: str
    dtype: str
    batch: int
    seconds: float | None = None
    error: float | None = None
    gigabytes: float | None = None
    reason: str = ""


class Guided(nn.Module):
    """A guided denoising step in one call: three branches of every query, and their mixture."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latent: Tensor, image_latent: Tensor, timestep: Tensor, *keys_values: Tensor) -> Tensor:
        """(B, 4, r, r) twice, (B,), keys and values of 3 B rows -> the guided prediction (B, 4, r, r)."""
        image = torch.cat([image_latent, image_latent, torch.zeros_like(image_latent)])
        sample = torch.cat([latent.repeat(3, 1, 1, 1), image], dim=1)
        conditional, image_only, null = self.unet(sample, timestep.repeat(3), *keys_values).chunk(3)
        text_scale, image_scale = _SCALES
        return null + image_scale * (image_only - null) + text_scale * (conditional - image_only)


class Conditioning(nn.Module):
    """Description ids and the VLLM's states to the context, as the server's one call does it."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        super().__init__()
        self.text_encoder, self.conditioner = TextEncoder(checkpoint), checkpoint.conditioner

    def forward(self, input_ids: Tensor, image_embeddings: Tensor, text_states: Tensor) -> Tensor:
        """(B, N) int64, (B, M, D), (B, N, D) -> (B, 2N + M, C)."""
        return self.conditioner(self.text_encoder(input_ids), image_embeddings, text_states)


class Networks:
    """A model of random weights, of which only those networks are in memory that are at work."""

    def __init__(self, architecture: str, device: str) -> None:
        self._skeleton = read_skeleton(architecture)
        self._tokenizer = train_tokenizer(["The person opens the drawer with the right hand."], 300)
        self._device = device
        self._held: tuple[str, torch.dtype, LegoCheckpoint] | None = None
        self.lego = self._skeleton.config
        self.parameters = {
            name: sum(each.numel() for each in part.parameters()) for name, part in vars(self._skeleton.parts).items()
        }

    def module(self, kind: str, dtype: torch.dtype) -> nn.Module:
        """Returns what a kind of call computes; the same weights for any dtype, but for their rounding."""
        checkpoint = self._checkpoint("language" if kind in LANGUAGE else "painting", dtype)
        module: nn.Module
        match kind:
            case "EncodeFrame":
                module = FrameEncoder(checkpoint)
            case "Prefill" | "Extend":
                module = Decoder(checkpoint)
            case "BuildCondition":
                module = Conditioning(checkpoint)
            case "Denoise":
                module = Guided(Unet(checkpoint.unet))
            case _:
                module = VaeDecoder(checkpoint)
        return module.eval()

    @torch.inference_mode()
    def inputs(self, kind: str, batch: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Returns what a call is given; the same for any dtype, but for its rounding."""
        lego, vllm = self.lego, self._skeleton.parts.vllm.config.text_config
        side = lego.resolution // factor_of(self._outline)
        prompt = lego.image_tokens + _WORDS
        generator = torch.Generator(self._device).manual_seed(batch)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=self._device).to(dtype)

        def read(tokens: int, past: int) -> tuple[Tensor, ...]:
            heads, width = vllm.num_key_value_heads, head_dim(self._outline)
            mask = torch.full((tokens, tokens), torch.finfo(dtype).min, device=self._device).triu(1)
            mask = torch.cat([torch.zeros(tokens, past, device=self._device), mask], dim=1).to(dtype)
            positions = torch.arange(past, past + tokens, device=self._device).expand(batch, -1)
            cache = [normal(batch, heads, past, width) for _ in range(2 * vllm.num_hidden_layers)]
            return normal(batch, tokens, vllm.hidden_size), mask.expand(batch, 1, -1, -1), positions, *cache

        match kind:
            case "EncodeFrame":
                vision = lego.vision.size
                return normal(batch, 3, lego.resolution, lego.resolution), normal(batch, 3, vision, vision)
            case "Prefill":
                return read(prompt, 0)
            case "Extend":
                return read(1, prompt + _TOKENS // 2)
            case "BuildCondition":
                ids = torch.arange(lego.text_tokens, device=self._device).expand(batch, -1)
                width = vllm.hidden_size
                return ids, normal(batch, lego.image_tokens, width), normal(batch, lego.text_tokens, width)
            case "Denoise":
                context = normal(3 * batch, 2 * lego.text_tokens + lego.image_tokens, self._context_width)
                keys_values = KeysValues(self._checkpoint("painting", dtype).unet)(context)
                timesteps = torch.linspace(999, 1, batch, device=self._device)  # bfloat16 has no 999
                return normal(batch, 4, side, side), normal(batch, 4, side, side), timesteps, *keys_values
            case _:
                return (normal(batch, 4, side, side),)

    @property
    def _outline(self) -> LegoCheckpoint:
        return self._assemble(self._skeleton.parts)

    @property
    def _context_width(self) -> int:
        return int(self._skeleton.parts.unet.config.cross_attention_dim)

    def _assemble(self, parts: Any) -> LegoCheckpoint:
        return LegoCheckpoint(
            self.lego, parts.unet, parts.vae, parts.text_encoder, parts.conditioner, parts.vllm,
            cast(Any, None), self._tokenizer, self._tokenizer,
        )  # fmt: skip

    def _checkpoint(self, group: str, dtype: torch.dtype) -> LegoCheckpoint:
        """Returns the networks of a group; all others stay without memory, and so does what was held before."""
        if self._held is None or self._held[:2] != (group, dtype):
            self._held = None
            if self._device.startswith("cuda"):
                torch.cuda.empty_cache()
            parts = self._skeleton.parts
            if group == "painting":
                names = ("unet", "vae", "text_encoder", "conditioner")
                made = {name: self._new(getattr(parts, name), dtype) for name in names}
                # Of the VLLM only what looks at the frame: one layer of its language model is as good as none.
                config = copy.deepcopy(parts.vllm.config)
                config.text_config.num_hidden_layers = 1
                made["vllm"] = self._new(type(parts.vllm), dtype, config)
            else:
                made = {"vllm": self._new(parts.vllm, dtype)}
            self._held = group, dtype, self._assemble(replace(parts, **made))
        return self._held[2]

    @torch.no_grad()
    def _new(self, part: Any, dtype: torch.dtype, config: Any = None) -> Any:
        """Builds a network on the device, in its precision from the start: a VLLM may fit in no other."""
        torch.set_default_dtype(dtype)
        try:
            with torch.device(self._device):
                if config is not None:
                    network = part(config)
                else:
                    hugging = isinstance(part, PreTrainedModel)
                    network = type(part)(part.config) if hugging else type(part).from_config(part.config)
        finally:
            torch.set_default_dtype(torch.float32)
        generator = torch.Generator(self._device).manual_seed(0)
        for name, parameter in network.named_parameters():
            parameter.copy_(random_weight(name, parameter, generator))
        return network.eval()


class Bench:
    """Runs calls until the time is used up.

    Args:
        networks: What is run.
        device: On which.
        seconds: The time.
        noted: Called after each row.
    """

    def __init__(self, networks: Networks, device: str, seconds: float, noted: Callable[[], None]) -> None:
        self.networks = networks
        self._device = device
        self._noted = noted
        self._until = time.monotonic() + seconds
        self._references: dict[tuple[str, int], np.ndarray | str] = {}
        self.rows: list[Row] = []

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._until - time.monotonic()

    def refer(self, kind: str, batch: int) -> None:
        """Has float32 make a call once, to compare with; notes why there is nothing to compare with, if so."""
        try:
            with torch.inference_mode():
                module = self.networks.module(kind, torch.float32)
                inputs = self.networks.inputs(kind, batch, torch.float32)
                self._references[kind, batch] = _array(_as_tuple(module(*inputs))[0])
        except torch.OutOfMemoryError:
            self._references[kind, batch] = "float32 does not fit in this GPU's memory, so nothing to compare with"
        except Exception as error:
            self._references[kind, batch] = _told(error)

    def has(self, runner: str) -> bool:
        """Returns whether there is what runs it; says why not."""
        try:
            if runner in ("onnxruntime", "tensorrt"):
                require_providers(self._provider(runner))
        except LegoError as error:
            self._leave_out(Row("all", runner, "", 0), error)
            return False
        return True

    def run(self, kind: str, runner: str, dtype: str, batch: int) -> None:
        """Times a kind of call in one way, or says why not."""
        row = Row(kind, runner, dtype, batch)
        try:
            self._check(row)
            row = self._measured(row)
        except Exception as error:  # each library has its own, and what cannot run here must not end the rest
            row = replace(row, reason=_told(error))
        finally:
            if runner == "compiled":
                torch._dynamo.reset()  # gives back memory; and after a few shapes of a module torch runs it uncompiled
        self._note(row)

    def engine(self, directory: Path, device: str, batches: Sequence[int]) -> None:
        """Times an engine directory, run by the server's own engine."""
        name = f"engine:{device}"
        try:
            engine = load_engine(directory, device, max_batch=max(batches))
            samples = measure_calls(engine, 1, batches, max(1.0, min(10.0, self.left)))[1]
        except Exception as error:  # a package that is missing, a GPU that is not there, plans of another
            self._leave_out(Row("all", name, "", 0), error)
            return
        dtype = engine_dtype(directory)
        for kind in KINDS:
            for batch, taken in samples.get(kind, {}).items():
                self._note(Row(kind, name, dtype, batch, float(np.median(taken)), reason="see lego-export verify"))

    def _check(self, row: Row) -> None:
        kind, runner, dtype = row.kind, row.runner, row.dtype
        large = self.networks.parameters["unet"] > _LARGE
        if self.left <= (_PREPARING.get(runner, 0.0) * (1 + (kind in LANGUAGE)) if large else 0.0):
            raise LegoError(f"{max(0, self.left):.0f} s are left of --budget, too few for this")
        if runner in ("onnxruntime", "tensorrt") and dtype == "bf16":
            raise LegoError("onnxruntime takes no bfloat16 from NumPy; see fp16")
        if runner == "onnxruntime" and self._device == "cpu" and dtype != "fp32":
            raise LegoError("onnxruntime computes in float32 on a CPU")
        if runner == "channels-last" and kind not in CONVOLUTIONS:
            raise LegoError("it has no convolutions")

    def _measured(self, row: Row) -> Row:
        """Times a call and compares what it gives with float32's; nothing of it stays in memory."""
        self._forget_peak()
        with torch.inference_mode(), self._prepared(row.kind, row.runner, row.dtype, row.batch) as call:
            output = _array(call()[0])
            row = replace(row, seconds=self._time(call), gigabytes=self._peak())
        reference = self._references[row.kind, row.batch]
        if isinstance(reference, str):
            return replace(row, reason=reference)
        reason = ""
        if row.runner == "compiled" and torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]:
            reason = "not as a CUDA graph, or not all of it"
        return replace(row, error=compare(reference, output).relative, reason=reason)

    @contextlib.contextmanager
    def _prepared(self, kind: str, runner: str, dtype: str, batch: int) -> Iterator[Callable[[], Sequence[Any]]]:
        """Yields what makes the call."""
        module = self.networks.module(kind, DTYPES[dtype])
        inputs = self.networks.inputs(kind, batch, DTYPES[dtype])
        if runner in ("onnxruntime", "tensorrt"):
            with tempfile.TemporaryDirectory() as folder:
                yield self._exported(kind, runner, module, inputs, Path(folder))
            return
        if runner != "eager" and kind in CONVOLUTIONS:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            inputs = tuple(
                each.contiguous(memory_format=torch.channels_last) if number < CONVOLUTIONS[kind] else each
                for number, each in enumerate(inputs)
            )
        else:
            module = module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if runner == "compiled":
            torch._dynamo.utils.counters.clear()
            mode = "reduce-overhead" if self._device.startswith("cuda") else "default"  # the former: CUDA graphs
            module = cast(nn.Module, torch.compile(module, mode=mode, dynamic=False))

        def call() -> Sequence[Tensor]:
            if runner == "compiled" and self._device.startswith("cuda"):
                torch.compiler.cudagraph_mark_step_begin()
            return _as_tuple(module(*inputs))

        yield call

    def _exported(
        self, kind: str, runner: str, module: nn.Module, inputs: tuple[Tensor, ...], folder: Path
    ) -> Callable[[], Sequence[Any]]:
        outputs = _as_tuple(module(*inputs))
        definition = GraphDefinition(module, _specs("input", inputs), _specs("output", outputs), ())
        with torch.device(self._device):
            torch.onnx.ONNXProgram(convert(definition), None).save(folder / "graph.onnx", external_data=True)
        device = self._provider(runner)
        providers: list[Provider] = [*require_providers(device)]
        if runner == "tensorrt" and inputs[0].dtype == torch.float16:  # until TensorRT 11 it asks for permission
            providers[0] = "TensorrtExecutionProvider", {"trt_fp16_enable": "True"}
        graph = OnnxGraph(kind, folder / "graph.onnx", device, 0, providers)
        # Placed beforehand, as the server's engine has what is large: a query's keys and values, its caches.
        kept = {
            spec.name: graph.place(spec.name, _array(each))
            for spec, each in zip(definition.inputs, inputs, strict=True)
        }
        names = [spec.name for spec in definition.outputs]

        def call() -> Sequence[Any]:
            arrays, _ = graph.run_keeping({}, kept, keep=names[1:])
            return [arrays[names[0]]]

        return call

    def _provider(self, runner: str) -> str:
        return runner if runner == "tensorrt" else self._device.partition(":")[0]

    def _leave_out(self, row: Row, error: Exception) -> None:
        self._note(replace(row, reason=_told(error)))

    def _note(self, row: Row) -> None:
        self.rows.append(row)
        _say(row)
        self._noted()

    def _time(self, call: Callable[[], Sequence[Any]]) -> float:
        for _ in range(_WARM_UP):
            call()
        taken: list[float] = []
        while len(taken) < 5 or sum(taken) < min(_LEAST_SECONDS, max(0.0, self.left)):
            self._wait()
            began = time.perf_counter()
            call()
            self._wait()
            taken.append(time.perf_counter() - began)
        return float(np.median(taken))

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()

    def _forget_peak(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()

    def _peak(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self._device.startswith("cuda") else None


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try this out.")] = "cuda",
    size: Annotated[str, typer.Option(help="released or nano.")] = "released",
    dtypes: Annotated[str, typer.Option(help="Precisions, with commas; empty: what suits the device.")] = "",
    batches: Annotated[str, typer.Option(help="Queries in one call, with commas between them.")] = "1,4",
    kinds: Annotated[str, typer.Option(help="Kinds of calls, with commas between them.")] = ",".join(KINDS),
    runners: Annotated[str, typer.Option(help="Ways to run them, with commas between them.")] = ",".join(RUNNERS),
    engines: Annotated[Path | None, typer.Option(help="A built engine directory to run as well.")] = None,
    engine_devices: Annotated[str, typer.Option(help="What runs it, with commas.")] = "cuda,tensorrt-plans",
    rest: Annotated[
        Path, typer.Option(help="Engines with which to measure what a query costs beside its calls.")
    ] = Path("models/lego-nano"),
    budget: Annotated[float, typer.Option(min=0, help="Seconds to keep to.")] = 420.0,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/gpu.json"),
    plot: Annotated[Path | None, typer.Option(help="Where the plot goes; default: beside the figures.")] = None,
) -> None:
    """Measure every call in every way there is, and write figures, plot and call times for `benchmarks.scale`."""
    wanted = _list(dtypes, tuple(DTYPES)) or (["fp16", "bf16"] if device.startswith("cuda") else ["fp32", "bf16"])
    try:
        if size not in SIZES:
            raise LegoError(f"size is {size!r}; choose one of {', '.join(SIZES)}")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise LegoError(
                "there is no NVIDIA GPU that torch can use; check nvidia-smi, or give --device cpu --size nano"
            )
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the reference is float32
        bench = Bench(
            Networks(SIZES[size], device), device, budget, lambda: _write(_figures(bench, device, size), json_file)
        )
        numbers = [int(batch) for batch in batches.split(",")]
        calls = [
            (kind, batch) for batch, kind in product(numbers, _list(kinds, KINDS))
            if kind not in ALONE or batch == numbers[0]
        ]  # fmt: skip
        by_group = sorted(calls, key=lambda call: call[0] in LANGUAGE)
        for call in by_group:
            bench.refer(*call)
        able = [runner for runner in _list(runners, RUNNERS) if bench.has(runner)]
        # First what needs no preparation, of everything; then the most important calls in every other way.
        for runner, dtype, call in product([each for each in able if each not in _PREPARING], wanted, by_group):
            bench.run(call[0], runner, dtype, call[1])
        for dtype, call, runner in product(wanted, calls, [each for each in able if each in _PREPARING]):
            bench.run(call[0], runner, dtype, call[1])
        if engines is not None:
            for each in engine_devices.split(","):
                bench.engine(engines, each, numbers)
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    figures = _figures(bench, device, size)
    _show(figures, bench.rows, plot or json_file.with_suffix(".png"))
    if (times := _call_times(bench.rows, bench.networks)) is not None and rest.is_dir():
        figures |= times | {"rest": measure_rest(rest, 6.0)}
    _write(figures, json_file)
    print(f"figures in {json_file}")


def engine_dtype(directory: Path) -> str:
    """Returns in what an engine directory's U-Net computes, as its manifest says; "" if it has none."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        return str(manifest["graphs"]["unet"].get("precision", {}).get("compute", manifest["precision"]))
    except (OSError, ValueError, KeyError):
        return ""


def _list(text: str, allowed: tuple[str, ...]) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in allowed:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(allowed)}")
    return names


def _specs(stem: str, tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    dtypes = {torch.float32: "float32", torch.float16: "float16", torch.int64: "int64"}
    return tuple(
        TensorSpec(f"{stem}.{number}", dtypes[each.dtype], tuple(each.shape)) for number, each in enumerate(tensors)
    )


def _as_tuple(outputs: Any) -> tuple[Any, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def _array(value: Any) -> np.ndarray:
    if not isinstance(value, Tensor):
        return np.asarray(value)
    return value.detach().to(torch.float32 if value.dtype == torch.bfloat16 else value.dtype).cpu().numpy().copy()


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _say(row: Row) -> None:
    what = ", ".join(each for each in (row.kind, row.runner, row.dtype, row.batch and f"batch {row.batch}") if each)
    if row.seconds is None:
        print(f"{what}: skipped: {row.reason}", flush=True)
        return
    error = "" if row.error is None else f", off by {row.error:.1e}"
    print(f"{what}: {1e3 * row.seconds:.2f} ms{error}", flush=True)


def _figures(bench: Bench, device: str, size: str) -> dict[str, Any]:
    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        "size": size, "parameters": bench.networks.parameters, "torch": torch.__version__,
        "guided_rows": 3, "rows": [asdict(row) for row in bench.rows],
    }  # fmt: skip


def _call_times(rows: Sequence[Row], networks: Networks) -> dict[str, Any] | None:
    """Returns the best of each kind, as `benchmarks.scale --call-times` reads them; None if a kind was not measured."""
    best: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.kind in KINDS and row.seconds is not None and (row.error is None or row.error <= TOLERANCE):
            by_batch = best.setdefault(row.kind, {})
            by_batch[row.batch] = min(row.seconds, by_batch.get(row.batch, math.inf))
    if set(best) != set(KINDS):
        return None
    plan = {
        "EncodeFrame": 1, "Prefill": 1, "Extend": _TOKENS, "BuildCondition": 1,
        "Denoise": networks.lego.guidance.steps, "DecodeLatent": 1,
    }  # fmt: skip
    most = max(best["Denoise"])
    return {"calls": best, "plan": plan, "sharing": {"lanes": 1, "max_active": 64, "max_batch": most}}


def _write(figures: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())


def _show(figures: dict[str, Any], rows: Sequence[Row], plot: Path) -> None:
    table = Table(
        "call", "how", "precision", "batch", "ms", "off by", "GB", title=f"{figures['size']} on {figures['device']}"
    )
    measured = [row for row in rows if row.seconds is not None]
    for row in sorted(measured, key=lambda row: (KINDS.index(row.kind), row.batch, cast(float, row.seconds))):
        table.add_row(
            row.kind, row.runner, row.dtype, str(row.batch), f"{1e3 * cast(float, row.seconds):.2f}",
            "" if row.error is None else f"{row.error:.1e}", "" if row.gigabytes is None else f"{row.gigabytes:.1f}",
        )  # fmt: skip
    Console().print(table)
    if measured:
        _draw(measured, plot)


def _draw(rows: Sequence[Row], path: Path) -> None:
    first = min(row.batch for row in rows)
    shown = [row for row in rows if row.batch == first]
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in shown)]
    figure, axes = plt.subplots(1, len(kinds), figsize=(2.6 * len(kinds), 3), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        own = [row for row in shown if row.kind == kind]
        axis.barh(
            [f"{row.runner}, {row.dtype}" for row in own],
            [1e3 * cast(float, row.seconds) for row in own],
            color="#4878a8",
        )
        axis.set(title=kind, xlabel="ms", xlim=(0, None))
        axis.invert_yaxis()
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
