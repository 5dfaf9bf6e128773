"""One denoising step of the released size (three branches in one U-Net evaluation), on every engine in turns.

What the weights are does not change what they cost, so they are random.
"""

from __future__ import annotations

import copy
import gc
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lego_core.errors import LegoError
from lego_export.graphs import BATCH, denoiser_graphs
from lego_export.onnx_graph import convert
from lego_model.skeleton import read_skeleton
from lego_server.engines.devices import require_device
from lego_server.engines.graph import Graph
from lego_server.engines.onnx_graph import OnnxGraph, require_providers
from lego_server.engines.openvino_graph import OPENVINO_DEVICES, OpenVINOGraph
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.frontier.sides import SIDES, TITLES, TORCH_SIDES
from benchmarks.keys_values import unet_of

ARCHITECTURE = "lego-sd15-llava13b"
STEP_SIDES = ("torch", "torch-bf16", "cpu", "openvino", "openvino-bf16")
BRANCHES = 3
# Weights are in bfloat16 here: autocast would convert them anew for the single step, in a pipeline once for all.
_TITLES = TITLES | {"torch-bf16": "diffusers, bf16", "torch-compile-bf16": "diffusers, torch.compile, bf16"}

Step = Callable[[], NDArray[np.float32]]


def time_steps(architecture: str, sides: Sequence[str], rounds: int, threads: int, path: Path) -> str:
    """Times each side in turns with the first (A B A B ..., A C A C ...): memory does not hold all of them at once.

    The JSON file is written after every side, a Markdown table beside it at the end.

    Returns:
        The table.

    Raises:
        LegoError: No such architecture or side, or this machine cannot run it.
    """
    for name in sides:
        if name not in SIDES:
            raise LegoError(f"--sides has {name!r}; choose from {', '.join(SIDES)}")
        if name not in TORCH_SIDES:
            require_device(name)
    torch.set_num_threads(threads)
    figures: dict[str, Any] = {
        "architecture": architecture, "branches": BRANCHES, "threads": threads,
        "machine": platform.processor() or platform.machine(), "first": sides[0], "sides": {},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        step = Steps(architecture, threads, Path(folder))
        first = step.open(sides[0])
        for name in sides[1:]:
            other = step.open(name)
            wanted, given = first(), other()  # which also warms up
            seconds: dict[str, list[float]] = {"first": [], "seconds": []}
            for _ in track(range(rounds), _TITLES[name]):
                for each, times in zip((first, other), seconds.values(), strict=True):
                    begin = time.perf_counter()
                    each()
                    times.append(time.perf_counter() - begin)
            error = float(np.linalg.norm(given - wanted) / np.linalg.norm(wanted))
            figures["sides"][name] = {**seconds, "relative_error": error}
            path.write_text(json.dumps(figures, indent=2) + "\n")
            del other
            gc.collect()
    table = markdown(figures)
    path.with_suffix(".md").write_text(table)
    return table


def markdown(figures: dict[str, Any]) -> str:
    """Returns the figures of `time_steps` as a table."""
    first = np.concatenate([each["first"] for each in figures["sides"].values()])
    lines = [
        "| side | seconds a step | the first side's in turns with it | times as fast | relative error |",
        "| --- | --- | --- | --- | --- |",
        f"| {_TITLES[figures['first']]} | {_spread(first)} | | 1 | |",
    ]
    for name, each in figures["sides"].items():
        ratio = _spread(np.divide(each["first"], each["seconds"]))
        seconds, beside = _spread(each["seconds"]), _spread(each["first"])
        lines.append(f"| {_TITLES[name]} | {seconds} | {beside} | {ratio} | {each['relative_error']:.1e} |")
    rounds = len(next(iter(figures["sides"].values()))["seconds"])
    lines += [
        "",
        f"{figures['architecture']}, random weights, a batch of {figures['branches']} branches, {figures['threads']} "
        f"threads; medians and quartiles of {rounds} rounds.",
    ]
    return "\n".join(lines) + "\n"


class Steps:
    """Opens a side's U-Net, all with the same weights and the same inputs.

    Args:
        architecture: Whose U-Net; a checkpoint's has its own weights.
        threads: CPU threads of every side.
        folder: Where the graph goes.
    """

    def __init__(self, architecture: str, threads: int, folder: Path) -> None:
        skeleton = read_skeleton(architecture)
        lego, parts = skeleton.config, skeleton.parts
        self._unet, self._threads, self._file = unet_of(Path(architecture), parts.unet), threads, folder / "unet.onnx"
        side = lego.resolution // 2 ** (len(parts.vae.config.block_out_channels) - 1)
        length = 2 * lego.text_tokens + lego.image_tokens
        self._graphs = denoiser_graphs(self._unet, side, length, ("unet",))
        generator = np.random.default_rng(0)
        sample, context = (
            generator.standard_normal([BRANCHES if size == BATCH else int(size) for size in spec.shape], np.float32)
            for spec in (self._graphs["unet"].inputs[0], self._graphs["keys_values"].inputs[0])
        )
        self._inputs = [torch.from_numpy(each) for each in (sample, np.full(BRANCHES, 499, np.float32), context)]

    def open(self, name: str) -> Step:
        """Returns what makes one evaluation on a side."""
        if name in TORCH_SIDES:
            return self._torch(compiled="compile" in name, bf16="bf16" in name)
        if not self._file.exists():
            torch.onnx.ONNXProgram(convert(self._graphs["unet"]), None).save(self._file, external_data=True)
        with torch.inference_mode():
            computed = self._graphs["keys_values"].module(self._inputs[2])
        names = [spec.name for spec in self._graphs["unet"].inputs]
        feeds = {key: each.numpy() for key, each in zip(names, (*self._inputs[:2], *computed), strict=True)}
        graph: Graph
        if name in OPENVINO_DEVICES:
            graph = OpenVINOGraph("unet", self._file, name, self._threads, lanes=1)
        else:
            graph = OnnxGraph("unet", self._file, name, self._threads, require_providers(name))
        return lambda: graph.run(feeds)["prediction"]

    def _torch(self, compiled: bool, bf16: bool) -> Step:
        """A U-Net that is given the context, as diffusers has it."""
        dtype = torch.bfloat16 if bf16 else torch.float32
        own = copy.deepcopy(self._unet).to(dtype) if bf16 else self._unet
        sample, timestep, context = self._inputs
        sample, context = sample.to(dtype), context.to(dtype)  # bfloat16 has not every timestep
        network = torch.compile(own) if compiled else own

        @torch.no_grad()
        def step() -> NDArray[np.float32]:
            predicted: NDArray[np.float32] = network(sample, timestep, context).sample.float().numpy()
            return predicted

        return step


def _spread(values: Any) -> str:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
