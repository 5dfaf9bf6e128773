"""From an engine directory's ONNX graphs to TensorRT plans for this machine's GPU."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
from lego_core.config import number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.files import file_sha256, folder_aside
from lego_core.manifest import Manifest
from lego_core.plans import PLANS_FOLDER, Machine, Plan, Plans, Refit, find_plans
from lego_server.engines.profiles import Sizes, serving_profiles

from lego_export.worker import Event, run_worker

WORKER = "lego_export.plan_worker"
_TIMING_CACHE = "timing.cache"
# Kernels, tables and what aligning the weights costs, beside the weights themselves.
_OVERHEAD = 1.1

Announce = Callable[[str, Event], None]


@dataclass(frozen=True)
class PlanOptions:
    """How plans are built.

    Attributes:
        sizes: How large a server's calls may become.
        level: TensorRT's builder optimisation level, 0 to 5: higher searches longer for faster kernels.
        workspace_gb: Most GPU memory, in GB, that one layer may work in; None for all there is.
        refit: See `lego_core.plans.Plan`.
        compare: Whether to compare each plan with its graph in onnxruntime on the CPU.
    """

    sizes: Sizes = field(default_factory=Sizes)
    level: int = 3
    workspace_gb: float | None = None
    refit: Refit = "none"
    compare: bool = True

    def __post_init__(self) -> None:
        whole_number_in_range("level", self.level, 0, 5)
        if self.workspace_gb is not None:
            number_in_range("workspace_gb", self.workspace_gb, 0.01, 10_000)


@dataclass(frozen=True)
class Built:
    """What was made: where, and what a person should know of it."""

    folder: Path
    plans: Plans
    notes: tuple[str, ...]


def probe(worker: str = WORKER) -> Machine:
    """Returns what plans built here would be for.

    Args:
        worker: The module that answers, in a process of its own.

    Raises:
        LegoError: TensorRT or the GPU is absent, or TensorRT is of an unsupported version.
    """
    return Machine(**run_worker(worker, {"kind": "probe"}, "looking for TensorRT")["machine"])


def build_plans(
    directory: Path, options: PlanOptions, announce: Announce = lambda graph, event: None, worker: str = WORKER
) -> Built:
    """Builds a plan of every graph, and puts them into the engine directory's folder for this machine.

    All are made aside and moved there at the end, `plans.json` last; an interruption leaves older plans as they were,
    and what TensorRT has measured so far in the timing cache.

    Args:
        directory: An engine directory.
        options: How.
        announce: Called with a graph's name and TensorRT's progress.
        worker: The module that builds, in a process of its own.

    Raises:
        LegoError: TensorRT, the GPU or room is missing, a graph cannot be built, or its plan differs from it.
    """
    manifest = Manifest.load(directory)
    machine = probe(worker)
    manifest.check_content(directory)
    folder = directory / PLANS_FOLDER / machine.folder
    folder.mkdir(parents=True, exist_ok=True)
    needed = 0 if options.refit == "identical" else plan_bytes(directory, manifest)
    check_room(folder, needed)

    def build(name: str, target: Path) -> tuple[Plan, str]:
        job = _job(directory, manifest, name, target) | {
            "kind": "build",
            "profiles": [asdict(profile) for profile in serving_profiles(name, manifest, options.sizes)],
            "level": options.level,
            "workspace": None if options.workspace_gb is None else int(options.workspace_gb * 1e9),
            "refit": options.refit,
            "compare": options.compare,
            "timing_cache": str(folder / _TIMING_CACHE),
        }
        result = run_worker(worker, job, f"building the plan of {name}", lambda event: announce(name, event))
        plan = Plan(
            target.name, file_sha256(target), manifest.graphs[name].sha256,
            serving_profiles(name, manifest, options.sizes), options.refit, result["layers"], result["error"],
            result["seconds"],
        )  # fmt: skip
        return plan, result["note"]

    return _make(folder, machine, manifest, build)


def refit_plans(
    directory: Path,
    source: Path,
    *,
    compare: bool = True,
    announce: Announce = lambda graph, event: None,
    worker: str = WORKER,
) -> Built:
    """Puts an engine directory's weights into copies of another's plans, which takes seconds instead of a build.

    Args:
        directory: The engine directory whose weights are wanted; the plans go there.
        source: One of the same architecture, with plans for this machine that were built with refit "any".
        compare: Whether to compare each new plan with its graph in onnxruntime on the CPU.
        announce: Called with each graph's name.
        worker: The module that does it, in a process of its own.

    Raises:
        LegoError: The plans take no other weights, the architectures differ, or a new plan differs from its graph.
    """
    manifest, other = Manifest.load(directory), Manifest.load(source)
    machine = probe(worker)
    manifest.check_content(directory)
    plans_folder, plans = find_plans(source, machine, other)
    check_refittable(plans, manifest, other)
    folder = directory / PLANS_FOLDER / machine.folder
    folder.mkdir(parents=True, exist_ok=True)
    check_room(folder, sum((plans_folder / plan.file).stat().st_size for plan in plans.plans.values()))

    def put_in(name: str, target: Path) -> tuple[Plan, str]:
        announce(name, {"phase": "new weights", "done": 0, "total": 1})
        old = plans.plans[name]
        job = _job(directory, manifest, name, target) | {
            "kind": "refit",
            "plan": str((plans_folder / old.file).absolute()),
            "profiles": [asdict(profile) for profile in old.profiles],
            "refit": old.refit,
            "compare": compare,
        }
        result = run_worker(worker, job, f"putting new weights into the plan of {name}")
        digest, graph = file_sha256(target), manifest.graphs[name].sha256
        new = {"sha256": digest, "graph_sha256": graph, "error": result["error"], "seconds": result["seconds"]}
        return replace(old, file=target.name, **new), ""

    return _make(folder, machine, manifest, put_in)


def check_refittable(plans: Plans, manifest: Manifest, other: Manifest) -> None:
    """Checks that another engine directory's plans can take this one's weights.

    Raises:
        LegoError: They cannot.
    """
    if manifest.graph_names != other.graph_names:
        raise LegoError("one of the two engine directories has a student, the other has none: build plans instead")
    for name in manifest.graph_names:
        mine, others = manifest.graphs[name], other.graphs[name]
        if (mine.inputs, mine.outputs) != (others.inputs, others.outputs):
            raise LegoError(f"graph {name} has other tensors than the one the plans are of: build plans instead")
        if plans.plans[name].refit != "any":
            raise LegoError(
                f"the plan of {name} was built with --refit {plans.plans[name].refit} and takes no other weights: "
                "rebuild with lego-export plans --refit any"
            )


def plan_bytes(directory: Path, manifest: Manifest) -> int:
    """Returns about how many bytes the plans will have: each graph's weights at full precision, and some more."""
    numbers = 0
    for name in manifest.graph_names:
        model = onnx.load(directory / manifest.graphs[name].file, load_external_data=False)
        numbers += sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
    return int(4 * numbers * _OVERHEAD)


def check_room(folder: Path, needed: int) -> None:
    """Checks that a disk holds what will be written.

    Raises:
        LegoError: It does not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise LegoError(
            f"the plans take about {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free in {folder}: make room, or "
            "build with --refit identical, which leaves the weights out"
        )


def _job(directory: Path, manifest: Manifest, name: str, target: Path) -> dict[str, Any]:
    spec = manifest.graphs[name]
    return {
        "graph": name, "source": str((directory / spec.file).absolute()), "target": str(target.absolute()),
        "spec": asdict(spec),
    }  # fmt: skip


def _make(folder: Path, machine: Machine, manifest: Manifest, make: Callable[[str, Path], tuple[Plan, str]]) -> Built:
    """Makes every plan in a folder beside the others, moves all into place, and writes `plans.json` last."""
    plans, notes = {}, []
    with folder_aside(folder, "building") as aside:
        for name in manifest.graph_names:
            plans[name], note = make(name, aside / f"{name}.plan")
            notes += [f"{name}: {note}"] if note else []
        for plan in plans.values():
            os.replace(aside / plan.file, folder / plan.file)
    result = Plans(machine, manifest.checkpoint_fingerprint, plans)
    result.save(folder)
    return Built(folder, result, tuple(notes))
