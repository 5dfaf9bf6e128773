"""The student's graph: the U-Net's own, with a low-rank change added to each of its weights.

Weights and changes stay references into their files, so a student adds its adapter and nothing else to what is stored.
A runtime puts the sums together once, when it loads the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
from lego_core.errors import LegoError
from lego_model.student import STUDENT, adapter_keys

from lego_export.weights import StoredTensor, read_header, reference, reference_name, weight_files


def student_graph(unet: ir.Model, directory: Path) -> ir.Model:
    """Returns the graph of a U-Net's student.

    Args:
        unet: The U-Net's graph, its weights shared (`share_weights`); not changed.
        directory: Where the weight files are.

    Raises:
        LegoError: The adapter changes a weight that the graph does not have.
    """
    model = ir.from_proto(ir.to_proto(unet))
    changes = {each.key: each for each in _stored(directory, STUDENT)}
    for weight in _stored(directory, "unet"):
        keys = adapter_keys(weight.key.removesuffix(".weight"))
        if weight.key.endswith(".weight") and keys[0] in changes:
            _change(model.graph, weight, *(changes.pop(key) for key in keys))
    if changes:
        raise LegoError(f"the student changes {min(changes)}, which the U-Net does not have; distil again")
    model.graph.sort()
    return model


def _stored(directory: Path, part: str) -> list[StoredTensor]:
    return [each for file in weight_files(directory, (part,)) for each in read_header(directory, file)]


def _change(graph: ir.Graph, weight: StoredTensor, down: StoredTensor, up: StoredTensor) -> None:
    """Adds `up @ down`, in the weight's shape, to a weight wherever the graph computes with it."""
    name = reference_name(weight)
    if name not in graph.initializers:
        raise LegoError(f"the U-Net's graph does not refer to {name}, which its student changes; distil again")
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
    change = add("MatMul", factor(up, [-1, rank]), factor(down, [rank, -1]))
    if len(weight.shape) > 2:
        change = add("Reshape", change, add("Constant", value_ints=list(weight.shape)))
    stored = graph.initializers[name]
    # Half precision is widened by a Cast of its own wherever the weight is used.
    used = [stored] if weight.dtype == "F32" else [node.outputs[0] for node in stored.consumers()]
    for value in used:
        uses = list(value.uses())
        total = add("Add", value, change)
        for node, place in uses:
            node.replace_input_with(place, total)
    graph.insert_before(graph[0], nodes)
