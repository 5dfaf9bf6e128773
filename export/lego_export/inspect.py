"""What each graph of an engine directory is and takes: tensors, weights, operations, memory and time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from lego_core.errors import LegoError
from lego_core.manifest import GraphSpec, Manifest, TensorSpec
from lego_core.plans import Profile
from lego_server.engines.profiles import Sizes, serving_profiles

from lego_export.parity import open_session
from lego_export.plan_parity import random_feeds
from lego_export.precision import DTYPES, constant_values, infer_types

_ROUNDS = 5


@dataclass(frozen=True)
class GraphCost:
    """One call of one graph, at the sizes that a server with one query asks for.

    Attributes:
        graph: Its name.
        call: What the call is, such as "prefill".
        inputs: Name, dtype and shape of each.
        outputs: Likewise.
        weight_bytes: As stored.
        flops: Floating-point operations of sums of products, two to a multiply-add.
        activation_bytes: Most that values between operators take at once, if each is freed after its last use.
        seconds: Median of some calls by onnxruntime on the CPU, or None if it was not run.
    """

    graph: str
    call: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_bytes: int
    flops: int
    activation_bytes: int
    seconds: float | None


def inspect_engines(
    directory: Path, *, run: bool, threads: int = 0, announce: Callable[[str], None] = lambda graph: None
) -> list[GraphCost]:
    """Looks at every graph of an engine directory.

    Args:
        directory: The engine directory.
        run: Whether to time each call here; half-precision graphs are not run, for a CPU cannot.
        threads: CPU threads; 0 lets onnxruntime choose.
        announce: Called with each graph's name.

    Raises:
        LegoError: It is no engine directory, or a graph of it is damaged.
    """
    manifest = Manifest.load(directory)
    costs = []
    for name in manifest.graph_names:
        announce(name)
        path, spec = directory / manifest.graphs[name].file, manifest.graphs[name]
        runs = run and manifest.precision_of(name).compute not in DTYPES
        session = open_session(path, threads) if runs else None
        for profile in serving_profiles(name, manifest, Sizes()):
            graph = _with_sizes(path, name, spec, profile)
            seconds = None
            if session is not None:
                feeds = dict(random_feeds(name, spec, profile, seed=0))
                seconds = _median_seconds(lambda session=session, feeds=feeds: session.run(None, feeds))  # type: ignore[misc]
            costs.append(
                GraphCost(
                    name, profile.name,
                    tuple(_words(name, each, profile) for each in spec.inputs),
                    tuple(_words(name, each, profile) for each in spec.outputs),
                    sum(tensor.nbytes for value in graph.initializers.values() if (tensor := value.const_value)),
                    count_flops(graph), peak_activation_bytes(graph), seconds,
                )
            )  # fmt: skip
    return costs


def save_costs(costs: Sequence[GraphCost], path: Path) -> None:
    """Writes the figures as JSON."""
    path.write_text(json.dumps([asdict(each) for each in costs], indent=2) + "\n")


def count_flops(graph: ir.Graph) -> int:
    """Returns the floating-point operations of a graph's sums of products; its shapes must be known."""
    constants = constant_values(graph)
    return sum(_flops(node) for node in graph if not all(value is None or value in constants for value in node.inputs))


def peak_activation_bytes(graph: ir.Graph) -> int:
    """Returns the most that a graph's values take at once, in the order of its nodes; its shapes must be known."""
    constants = constant_values(graph)
    left = {value: len(value.uses()) for node in graph for value in node.outputs if value not in constants}
    left |= {value: len(value.uses()) for value in graph.inputs}
    alive = sum(_bytes(value) for value in graph.inputs)
    peak = alive
    for node in graph:
        produced = [value for value in node.outputs if value in left]
        alive += sum(_bytes(value) for value in produced)
        peak = max(peak, alive)
        for value in dict.fromkeys(value for value in node.inputs if value in left):
            assert value is not None
            left[value] -= sum(user is node for user, _ in value.uses())
            if left[value] == 0 and not value.is_graph_output():
                alive -= _bytes(value)
    return peak


def _with_sizes(path: Path, name: str, spec: GraphSpec, profile: Profile) -> ir.Graph:
    """Reads a graph, with every dimension a number: what the profile calls usual."""
    try:
        model = ir.load(path)
    except Exception as error:  # onnx's own exceptions share no base class
        raise LegoError(f"{path} is no graph ({error}): rebuild it with lego-export build") from error
    if {str(value.name) for value in model.graph.inputs} != {each.name for each in spec.inputs}:
        raise LegoError(f"{path} has other inputs than its manifest says: rebuild it with lego-export build")
    shapes = {each.name: profile.shapes(name, each)[1] for each in spec.inputs}
    for value in model.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    for value in model.graph.outputs:
        value.shape = None
    return ir.from_proto(infer_types(ir.to_proto(model), propagate_values=True)).graph


def _flops(node: ir.Node) -> int:
    match node.op_type:
        case "MatMul":
            return 2 * _size(node.outputs[0]) * _shape(node.inputs[0])[-1]
        case "MatMulNBits":
            return 2 * _size(node.outputs[0]) * node.attributes["K"].as_int()
        case "Gemm":
            transposed = "transA" in node.attributes and bool(node.attributes["transA"].as_int())
            return 2 * _size(node.outputs[0]) * _shape(node.inputs[0])[0 if transposed else 1]
        case "Conv":
            return 2 * _size(node.outputs[0]) * math.prod(_shape(node.inputs[1])[1:])
        case "ConvTranspose":
            return 2 * _size(node.inputs[0]) * math.prod(_shape(node.inputs[1])[1:])
        case "Attention":  # scores, and sums weighted by them
            query, value = _shape(node.inputs[0]), _shape(node.inputs[2])
            length = (
                value[-2] if len(node.inputs) < 6 or node.inputs[5] is None else value[-2] + _shape(node.inputs[5])[-2]
            )
            return 2 * _size(node.inputs[0]) * length + 2 * math.prod(query[:-1]) * length * value[-1]
    return 0


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None or not value.shape.is_static():
        raise LegoError(f"the shape of {value.name if value else 'a tensor'} cannot be told: rebuild the engines")
    return tuple(value.shape.numpy())


def _size(value: ir.Value | None) -> int:
    return math.prod(_shape(value))


def _bytes(value: ir.Value) -> int:
    return _size(value) * (value.dtype.itemsize if value.dtype is not None else 4)  # type: ignore[return-value]


def _words(graph: str, tensor: TensorSpec, profile: Profile) -> str:
    sizes = "x".join(map(str, profile.shapes(graph, tensor)[1]))
    return f"{tensor.name} {tensor.dtype} {sizes}"


def _median_seconds(call: Callable[[], object]) -> float:
    call()  # warms up
    seconds = []
    for _ in range(_ROUNDS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))
