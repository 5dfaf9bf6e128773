"""Which parts of a lowered graph stay in float32: found by measurement on realistic inputs.

Two kinds of nodes are islands before anything is tried, because the inputs at hand cannot show what others would do:
those with a number near the end of the half-precision range, and those that make the angles of position and timestep
embeddings (float16 holds no odd number above 2048, bfloat16 none above 256). Of the rest, classes of nodes are tried,
and kept for as long as it is worth it (`choose_islands`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from lego_core.manifest import GraphPrecision

from lego_export.graphs import GraphDefinition
from lego_export.parity import Parity, compare, fit_types, open_session, run_module
from lego_export.precision import (
    LARGEST,
    PRODUCTS,
    HalfPrecision,
    constant_values,
    is_float,
    lower,
    mask_values,
    spell_out,
    typed,
)
from lego_export.samples import Feeds

# Largest error of a graph as a share of its output's largest value. Rounding to float16 once is off by up to 2**-11
# (4.9e-4), to bfloat16 by 2**-8 (3.9e-3); the tolerances leave room for it to add up over a graph's layers about 40
# and 15 times. bfloat16 gets no more, though its roundings are 8 times as large: beyond that a picture shows it.
TOLERANCE: dict[HalfPrecision, float] = {"fp16": 2e-2, "bf16": 6e-2}

# Other inputs may be larger than those at hand by this factor.
HEADROOM = 4.0

# An island costs speed. Once a graph is within its tolerance, one is worth it only if it divides the error by this; and
# none is tried any more once the error is below this share of the tolerance.
WORTHWHILE = 2.0
SETTLED = 0.2

_CLASSES: dict[str, frozenset[str]] = {
    "normalisation": frozenset({"GroupNormalization", "InstanceNormalization", "LayerNormalization",
                                "RMSNormalization"}),
    "attention": frozenset({"Attention", "RotaryEmbedding", "Softmax"}),
    "activations": frozenset({"Elu", "Erf", "Gelu", "HardSwish", "Relu", "Sigmoid", "Softplus", "Tanh"}),
    "resampling": frozenset({"Resize"}),
}  # fmt: skip
_ANGLES = "embedding angles"
_OVERFLOW = "near overflow"
EVERYTHING = "everything"


@dataclass(frozen=True)
class Peak:
    """A value's largest absolute number over all inputs."""

    name: str
    value: float


def choose_islands(
    model: ir.Model,
    precision: HalfPrecision,
    definition: GraphDefinition,
    feeds: Sequence[Feeds],
    folder: Path,
) -> tuple[ir.Model, GraphPrecision]:
    """Lowers a graph with the islands that measurement says it needs.

    The error is that of the worst output against the torch module in float32, as a share of its largest value. Classes
    are added one by one, each time the one that lowers the error most: while the error is above `TOLERANCE`, if it
    helps at all, and then if it divides the error by `WORTHWHILE`, until the error is below `SETTLED` of the tolerance.
    Half-precision graphs run with every rounding spelled out (`lego_export.precision.spell_out`).

    Args:
        model: The float32 graph; not changed.
        precision: Of everything but islands.
        definition: What it was made from, with the types its inputs and outputs shall have.
        feeds: Realistic inputs.
        folder: Where the weights are.

    Returns:
        The graph, and what was found. If no choice of islands is within the tolerance, all of it stays in float32.
    """
    expected = [run_module(definition, each) for each in feeds]
    graph = typed(model).graph
    ir.external_data.set_base_dir(graph, folder)  # weights stored in float32 are looked at: one may be too large
    peaks = measure_peaks(model, feeds, folder)
    largest = max(peaks.values(), key=lambda peak: peak.value, default=Peak("", 0.0))
    fixed = {_ANGLES: angle_nodes(graph), _OVERFLOW: overflowing_nodes(graph, peaks, precision)}
    classes = {name: nodes for name, nodes in island_classes(graph).items() if nodes}

    def attempt(islands: Collection[str]) -> tuple[ir.Model, float]:
        lowered = lower(model, precision, islands=islands, inputs=definition.inputs, outputs=definition.outputs)
        return lowered, measure_error(lowered, expected, feeds, folder)

    # Constants beyond the range cannot be lowered at all, so even the comparison keeps what overflows.
    _, error_without = attempt(fixed[_OVERFLOW])
    names = [name for name, nodes in fixed.items() if nodes]
    islands = frozenset().union(*fixed.values())
    lowered, error = attempt(islands)
    while classes and error > SETTLED * TOLERANCE[precision]:
        attempts = {name: attempt(islands | nodes) for name, nodes in classes.items() if not nodes <= islands}
        if not attempts:
            break
        best = min(attempts, key=lambda name: attempts[name][1])
        improved = attempts[best][1]
        if not (improved < error and (error > TOLERANCE[precision] or improved * WORTHWHILE <= error)):
            break
        lowered, error = attempts[best]
        islands |= classes.pop(best)
        names.append(best)
    measured = GraphPrecision(
        compute=precision,
        tolerance=TOLERANCE[precision],
        islands=tuple(names),
        nodes=len(graph),
        island_nodes=len(islands),
        error=_digits(error),
        error_without_islands=_digits(error_without),
        largest_activation=_digits(largest.value),
        largest_activation_at=largest.name,
    )
    if error <= TOLERANCE[precision]:
        return lowered, measured
    everything = [str(node.name) for node in graph]
    wide, error = attempt(everything)
    return wide, replace(
        measured, compute="fp32", tolerance=GraphPrecision.tolerance, islands=(EVERYTHING,), island_nodes=len(graph),
        error=_digits(error),
    )  # fmt: skip


def measure_error(
    model: ir.Model, expected: Sequence[Sequence[np.ndarray]], feeds: Sequence[Feeds], folder: Path
) -> float:
    """Returns the largest relative error of a graph's outputs over all inputs; infinite if one is not finite."""
    outputs = _run(spell_out(model), feeds, folder)
    results: list[Parity] = [
        compare(wanted, found)
        for each, given in zip(expected, outputs, strict=True) for wanted, found in zip(each, given, strict=True)
    ]  # fmt: skip
    return max(parity.relative for parity in results)


def measure_peaks(model: ir.Model, feeds: Sequence[Feeds], folder: Path) -> dict[str, Peak]:
    """Returns the largest absolute number of every float value of a graph but its weights, by the value's name.

    The graph itself reduces each to one number as soon as it is there, so activations are never all in memory.
    """
    measured = typed(model)
    graph = measured.graph
    constants = constant_values(graph)
    values = [value for node in graph for value in node.outputs if is_float(value) and value not in constants]
    graph.outputs.clear()
    for value in values:
        magnitude = ir.node("Abs", [value], name=f"{value.name}.magnitude")
        peak = ir.node("ReduceMax", [magnitude.outputs[0]], {"keepdims": 0}, name=f"{value.name}.peak")
        magnitude.outputs[0].name, peak.outputs[0].name = f"{value.name}.magnitude", f"{value.name}.peak"
        peak.outputs[0].type, peak.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
        producer = value.producer()
        assert producer is not None
        graph.insert_after(producer, [magnitude, peak])
        graph.outputs.append(peak.outputs[0])
    runs = _run(measured, feeds, folder, in_order=True) if values else []
    peaks = {
        str(value.name): Peak(str(value.name), max(float(run[place]) for run in runs))
        for place, value in enumerate(values)
    }  # fmt: skip
    for value in graph.inputs:
        if is_float(value):
            name = str(value.name)
            peaks[name] = Peak(name, max(float(np.abs(each[name]).max(initial=0)) for each in feeds))
    masks = {value.name for value in mask_values(graph)}
    return {name: peak for name, peak in peaks.items() if name not in masks}


def overflowing_nodes(graph: ir.Graph, peaks: dict[str, Peak], precision: HalfPrecision) -> frozenset[str]:
    """Returns the nodes that read or give a number so large that half precision might not hold it."""
    limit = LARGEST[precision] / HEADROOM
    masks = mask_values(graph)
    large = {name for name, peak in peaks.items() if not peak.value <= limit}

    def is_large(value: ir.Value | None) -> bool:
        if value is None or not is_float(value) or value in masks:
            return False
        if value.is_initializer() and value.const_value is not None:
            return bool(np.abs(value.const_value.numpy()).max(initial=0) > limit)
        return value.name in large

    return frozenset(
        str(node.name) for node in graph if any(is_large(value) for value in (*node.inputs, *node.outputs))
    )


def angle_nodes(graph: ir.Graph) -> frozenset[str]:
    """Returns the sines and cosines, and what their arguments are computed with."""
    found: set[ir.Node] = set()
    waiting = [node for node in graph if node.op_type in ("Cos", "Sin")]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [producer for value in node.inputs if value and (producer := value.producer())]
    return frozenset(str(node.name) for node in found if any(is_float(value) for value in node.outputs))


def island_classes(graph: ir.Graph) -> dict[str, frozenset[str]]:
    """Returns the classes of nodes that may become islands, named; they may overlap.

    By operator: normalisation, attention, activations (with the product of a SiLU), resampling. By place: sums of the
    residual stream; what depends on the position or timestep alone; the first sums of products, and the last two before
    each output with everything after them. The other sums of products are no candidates: half precision is for them.
    """
    constants = constant_values(graph)
    classes = {name: {node for node in graph if node.op_type in types} for name, types in _CLASSES.items()}
    classes["activations"] |= {
        node for node in graph
        if node.op_type == "Mul" and any(
            producer.op_type == "Sigmoid" for value in node.inputs if value and (producer := value.producer())
        )
    }  # fmt: skip
    classes["residual sums"] = {
        node for node in graph if node.op_type == "Add" and not any(value in constants for value in node.inputs)
    }
    classes["timestep and position"] = _embedded(graph, constants)
    classes["first layers"] = _within(graph, constants, from_inputs=True, products=1)
    classes["last layers"] = _within(graph, constants, from_inputs=False, products=2)
    return {
        name: frozenset(str(node.name) for node in nodes if not all(v is None or v in constants for v in node.inputs))
        for name, nodes in classes.items()
    }


def _embedded(graph: ir.Graph, constants: set[ir.Value]) -> set[ir.Node]:
    """Returns what depends on those of the graph's inputs alone that reach a sine."""
    reached: dict[ir.Value, frozenset[str]] = {value: frozenset({str(value.name)}) for value in graph.inputs}
    angles = {str(value.name) for value in graph.inputs}
    for node in graph:
        sources = frozenset[str]().union(*(reached.get(value, frozenset()) for value in node.inputs if value))
        reached |= dict.fromkeys(node.outputs, sources)
        if node.op_type in ("Cos", "Sin"):
            angles &= sources
    if not any(node.op_type in ("Cos", "Sin") for node in graph):
        return set()
    return {node for node in graph if reached[node.outputs[0]] and reached[node.outputs[0]] <= angles}


def _within(graph: ir.Graph, constants: set[ir.Value], *, from_inputs: bool, products: int) -> set[ir.Node]:
    """Returns the nodes with fewer than `products` sums of products on any way to the graph's inputs or outputs."""
    passed: dict[ir.Node, int] = {}
    for node in graph if from_inputs else reversed(list(graph)):
        if from_inputs:
            near = [value.producer() for value in node.inputs if value and value not in constants]
        else:
            near = [user for value in node.outputs for user in value.consumers()]
        passed[node] = max((passed[other] + (other.op_type in PRODUCTS) for other in near if other), default=0)
    return {node for node, number in passed.items() if number < products}


def _run(model: ir.Model, feeds: Sequence[Feeds], folder: Path, in_order: bool = False) -> list[list[np.ndarray]]:
    """Runs a graph beside its weights."""
    session = open_session(ir.to_proto(model).SerializeToString(), threads=1, weights=folder, in_order=in_order)
    return [session.run(None, fit_types(session, each)) for each in feeds]


def _digits(value: float) -> float | None:
    """Three digits; None for what JSON has no number for."""
    return float(f"{value:.2e}") if math.isfinite(value) else None
