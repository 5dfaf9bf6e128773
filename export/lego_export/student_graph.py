"""The student's graphs: the U-Net's own, with a low-rank change added to each of their weights.

Weights and changes stay references into their files, so a student adds its adapter and nothing else to what is stored.
A runtime puts the sums together once, when it loads the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from lego_core.errors import LegoError
from lego_model.student import STUDENT, adapter_keys

from lego_export.weights import StoredTensor, read_header, reference, reference_name, weight_files


@dataclass(frozen=True)
class Change:
    """What a student adds to one weight: `up @ down`, in the weight's shape."""

    weight: StoredTensor
    down: StoredTensor
    up: StoredTensor


def read_adapter(directory: Path) -> dict[str, Change]:
    """Returns what the student of a directory's weights changes, by the name that a graph refers to the weight by.

    Raises:
        LegoError: It changes a weight that the U-Net does not have.
    """
    factors = {each.key: each for each in _stored(directory, STUDENT)}
    changes = {}
    for weight in _stored(directory, "unet"):
        down, up = adapter_keys(weight.key.removesuffix(".weight"))
        if weight.key.endswith(".weight") and down in factors:
            changes[reference_name(weight)] = Change(weight, factors.pop(down), factors.pop(up))
    if factors:
        raise LegoError(f"the student changes {min(factors)}, which the U-Net does not have; distil again")
    return changes


def student_graph(model: ir.Model, adapter: Mapping[str, Change], outputs: Collection[str]) -> ir.Model:
    """Returns a graph of the U-Net's student.

    Args:
        model: The same graph of the U-Net, its weights shared (`share_weights`); not changed.
        adapter: From `read_adapter`.
        outputs: Those of the U-Net's that the student has.
    """
    student = ir.from_proto(ir.to_proto(model))
    for value in [each for each in student.graph.outputs if each.name not in outputs]:
        student.graph.outputs.remove(value)
        value.shape = value.type = None
    for name in list(student.graph.initializers):
        if name in adapter:
            _add(student.graph, name, adapter[name])
    student.graph.sort()
    return student


def _stored(directory: Path, part: str) -> list[StoredTensor]:
    return [each for file in weight_files(directory, (part,)) for each in read_header(directory, file)]


def _add(graph: ir.Graph, name: str, change: Change) -> None:
    """Adds a change to a weight wherever the graph computes with it."""
    weight, down, up = change.weight, change.down, change.up
    nodes: list[ir.Node] = []

    def add(operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(operator, inputs, attributes, name=f"student.{weight.key}.{len(nodes)}"))
        return nodes[-1].outputs[0]

    def factor(stored: StoredTensor, shape: list[int]) -> ir.Value:
        value = reference(stored)
        graph.register_initializer(value)
        if stored.dtype != "F32":
            value = add("Cast", value, to=ir.DataType.FLOAT.value)
        return value if len(stored.shape) == 2 else add("Reshape", value, add("Constant", value_ints=shape))

    rank = down.shape[0]
    product = add("MatMul", factor(up, [-1, rank]), factor(down, [rank, -1]))
    if len(weight.shape) > 2:
        product = add("Reshape", product, add("Constant", value_ints=list(weight.shape)))
    stored = graph.initializers[name]
    # Half precision is widened by a Cast of its own wherever the weight is used.
    used = [stored] if weight.dtype == "F32" else [node.outputs[0] for node in stored.consumers()]
    for value in used:
        uses = list(value.uses())
        total = add("Add", value, product)
        for node, place in uses:
            node.replace_input_with(place, total)
    graph.insert_before(graph[0], nodes)
