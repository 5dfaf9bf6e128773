"""`plans.json`: TensorRT plans beside an engine directory's graphs, and the machine they were built for.

Export writes it, the server reads it. A plan runs on one GPU model with one TensorRT version and holds the weights of
one checkpoint; with anything else it would fail or, worse, answer with older weights, so all of it is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from lego_core.config import whole_number_in_range
from lego_core.errors import LegoError
from lego_core.files import file_sha256, read_json, write_whole
from lego_core.manifest import Manifest, TensorSpec

PLANS_FOLDER = "plans"
FORMAT_VERSION = 1
Refit = Literal["none", "identical", "any"]
_REBUILD = "build plans here with lego-export plans"
_LARGEST = 2**31 - 1  # TensorRT's own limit of a dimension


@dataclass(frozen=True)
class Range:
    """The sizes a dynamic dimension may have, and the one to be fastest at."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        for name in ("min", "opt", "max"):
            whole_number_in_range(name, getattr(self, name), 0, _LARGEST)
        if not self.min <= self.opt <= self.max:
            raise LegoError(f"range {self.min}, {self.opt}, {self.max} is out of order; give smallest, usual, largest")


@dataclass(frozen=True)
class Profile:
    """One optimisation profile of a graph.

    Attributes:
        name: What the sizes are those of, such as "prefill".
        sizes: The range of every dynamic dimension of the graph's inputs.
    """

    name: str
    sizes: Mapping[str, Range]

    def shapes(self, graph: str, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Returns an input's smallest, usual and largest shape.

        Raises:
            LegoError: The input has a dynamic dimension without a range.
        """
        ranges = []
        for size in spec.shape:
            if isinstance(size, str) and size not in self.sizes:
                raise LegoError(
                    f"graph {graph} has input {spec.name} with a dynamic dimension {size!r}, which profile {self.name} "
                    f"gives no range (it has {', '.join(self.sizes) or 'none'}): rebuild it with lego-export build"
                )
            ranges.append(self.sizes[size] if isinstance(size, str) else Range(size, size, size))
        return (
            tuple(each.min for each in ranges), tuple(each.opt for each in ranges), tuple(each.max for each in ranges),
        )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One graph's plan.

    Attributes:
        file: Its name, in the folder of `plans.json`.
        sha256: Of that file.
        graph_sha256: Of the ONNX graph it was built from.
        profiles: The shapes it takes; the runtime knows them by their number.
        refit: Which weights may be put in later: "none"; "identical", which the plan leaves out and the server puts in;
            "any", those of another checkpoint of the same architecture.
        layers: How many of its layers write each data type, as TensorRT reports them.
        error: Largest error against onnxruntime on the CPU as a share of the largest value; None if not compared.
        seconds: How long the build took.
    """

    file: str
    sha256: str
    graph_sha256: str
    profiles: tuple[Profile, ...]
    refit: Refit
    layers: Mapping[str, int]
    error: float | None
    seconds: float

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise LegoError(f"file is {self.file!r}; it must be a name without a folder")
        if self.refit not in get_args(Refit):
            raise LegoError(f"refit is {self.refit!r}; choose one of {', '.join(get_args(Refit))}")


@dataclass(frozen=True)
class Machine:
    """What a plan is tied to, and the driver for the record.

    Attributes:
        gpu: Its name, such as "NVIDIA H100 80GB HBM3".
        compute_capability: Such as "9.0".
        tensorrt: The whole version, such as "11.4.0.106".
        driver: The newest CUDA version that the driver supports, such as "13.0".
    """

    gpu: str
    compute_capability: str
    tensorrt: str
    driver: str

    @property
    def folder(self) -> str:
        """Returns the name of the folder for this machine's plans, such as "sm90-trt11.4"."""
        return f"sm{self.compute_capability.replace('.', '')}-trt{'.'.join(self.tensorrt.split('.')[:2])}"


@dataclass(frozen=True)
class Plans:
    """The plans of one machine.

    Attributes:
        machine: Where they were built.
        checkpoint_fingerprint: Whose weights they hold.
        plans: One per graph.
    """

    machine: Machine
    checkpoint_fingerprint: str
    plans: Mapping[str, Plan]

    def save(self, folder: Path) -> None:
        """Writes `plans.json`, whole or not at all."""
        text = json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"
        write_whole(folder / "plans.json", text.encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `plans.json`.

        Raises:
            LegoError: It is missing, damaged or of another format.
        """
        path = folder / "plans.json"
        if not path.is_file():
            raise LegoError(f"{folder} holds no TensorRT plans: {_REBUILD}")
        try:
            values: dict[str, Any] = read_json(path)
            version = values.pop("format_version", None)
            if version != FORMAT_VERSION:
                raise LegoError(f"format_version is {version!r}, this software reads {FORMAT_VERSION}")
            return cls(
                Machine(**values["machine"]),
                values["checkpoint_fingerprint"],
                {
                    name: Plan(**{**plan, "profiles": read_profiles(plan["profiles"])})
                    for name, plan in values["plans"].items()
                },
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise LegoError(f"{path} is not a valid list of plans ({error}): {_REBUILD}") from error

    def check(self, folder: Path, machine: Machine, manifest: Manifest) -> None:
        """Checks that every plan is whole, for this machine, and of the graphs and weights beside it.

        Args:
            folder: Where the plans are.
            machine: The running one.
            manifest: The engine directory's.

        Raises:
            LegoError: One is not; the message says what to rebuild.
        """
        for what, built, here in (
            ("GPU", self.machine.gpu, machine.gpu),
            ("compute capability", self.machine.compute_capability, machine.compute_capability),
            ("TensorRT", self.machine.tensorrt, machine.tensorrt),
        ):
            if built != here:
                raise LegoError(f"the plans in {folder} are for {what} {built}, here is {here}: {_REBUILD}")
        if self.checkpoint_fingerprint != manifest.checkpoint_fingerprint:
            raise LegoError(
                f"the plans in {folder} hold the weights of checkpoint {self.checkpoint_fingerprint[:12]}, the engine "
                f"directory those of {manifest.checkpoint_fingerprint[:12]}: {_REBUILD}, or put the new weights in "
                "with lego-export refit"
            )
        for name in manifest.graph_names:
            if name not in self.plans:
                raise LegoError(f"{folder} has no plan of graph {name}: {_REBUILD}")
            plan, path = self.plans[name], folder / self.plans[name].file
            if plan.graph_sha256 != manifest.graphs[name].sha256:
                raise LegoError(f"{path} was built from another graph {name} than the one beside it: {_REBUILD}")
            if not path.is_file():
                raise LegoError(f"{folder} lacks {plan.file}: {_REBUILD}")
            if file_sha256(path) != plan.sha256:
                raise LegoError(f"{path} is not the file that plans.json describes: {_REBUILD}")


def find_plans(directory: Path, machine: Machine, manifest: Manifest) -> tuple[Path, Plans]:
    """Returns the folder and the checked plans of an engine directory for the running machine.

    Raises:
        LegoError: There are none that fit; the message says for which machines there are some.
    """
    folder = directory / PLANS_FOLDER / machine.folder
    if not (folder / "plans.json").is_file():
        others = sorted(path.parent.name for path in (directory / PLANS_FOLDER).glob("*/plans.json"))
        there_are = f"only for {', '.join(others)}" if others else "nor for any other"
        raise LegoError(
            f"{directory} has no TensorRT plans for this machine, {machine.folder} ({there_are}): {_REBUILD}"
        )
    plans = Plans.load(folder)
    plans.check(folder, machine, manifest)
    return folder, plans


def read_profiles(values: Sequence[Mapping[str, Any]]) -> tuple[Profile, ...]:
    """Returns the profiles that `dataclasses.asdict` made plain values of."""
    return tuple(
        Profile(profile["name"], {name: Range(**sizes) for name, sizes in profile["sizes"].items()})
        for profile in values
    )
