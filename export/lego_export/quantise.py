"""int8 weights for CPUs: matrix products read a quarter of the bytes, and multiply in int8.

onnxruntime's MatMulNBits with 8 bits is used: every `BLOCK` weights of a column have a scale of their own, and so have
activations, at run time. On lego-nano's decoder (one token, one thread, AVX-512 VNNI) it takes 0.73 ms where float32
takes 1.14, and is off by 1.3 % of the largest value; onnxruntime's dynamic quantisation, with one scale to a column,
takes 0.83 ms and is off by 2.4 %. Convolutions stay in float32, and so do networks that are mostly convolutions: the
U-Net takes 84 ms with such products and 66 without.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from lego_core.manifest import GraphPrecision
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from safetensors.torch import load_file
from torch import from_numpy

from lego_export.graphs import GraphDefinition
from lego_export.parity import check_graph, open_session
from lego_export.precision import PRODUCTS, constant_values, typed
from lego_export.samples import Feeds
from lego_export.weights import QUANTISED, StoredTensor, read_header, reference, save_weights, weight_files

TOLERANCE = 2e-2  # as float16's: what an error does to a picture does not depend on where it comes from
# Of one network: the quantiser takes a graph with its weights in float32, and no such file may exceed 2 GiB.
INT8_NUMBERS = 500_000_000
BLOCK = 32
# A graph is quantised if matrix products hold this share of the weights that activations are multiplied by.
SHARE = 0.9
_INT8_PRODUCTS = 4  # MatMulNBits' accuracy_level; the default multiplies in float32: the decoder's token took 4.6 ms


def quantise(
    name: str, model: ir.Model, definition: GraphDefinition, feeds: Sequence[Feeds], directory: Path
) -> tuple[ir.Model, GraphPrecision]:
    """Gives a graph int8 weights, if it is made of matrix products and the error allows it.

    Args:
        name: Of the graph.
        model: The float32 graph; not changed.
        definition: What it was made from.
        feeds: Realistic inputs.
        directory: The engine directory, in which the int8 weights become the file `int8/NAME.safetensors`.

    Returns:
        The graph, quantised or the float32 graph itself, and what was found.
    """
    graph = typed(model).graph
    matrices, weights = _weights(graph, {"MatMul"}, rank=2), _weights(graph, PRODUCTS)
    if not matrices or _size(matrices) < SHARE * _size(weights):
        return model, GraphPrecision()
    quantised = ir.from_proto(with_integer_weights(model, directory))
    file = Path(QUANTISED) / f"{name}.safetensors"
    _store(quantised, directory, file)
    session = open_session(ir.to_proto(quantised).SerializeToString(), threads=1, weights=directory)
    error = float(f"{check_graph(session, definition, feeds).relative:.2e}")
    products = sum(node.op_type == "MatMulNBits" for node in quantised.graph)
    found = GraphPrecision(
        compute="int8", tolerance=TOLERANCE, nodes=len(graph), island_nodes=len(graph) - products, error=error,
        error_without_islands=error,
    )  # fmt: skip
    if error <= TOLERANCE:
        return quantised, found
    (directory / file).unlink()
    return model, replace(
        found, compute="fp32", tolerance=GraphPrecision.tolerance, island_nodes=len(graph), error=None
    )


def with_integer_weights(model: ir.Model, directory: Path, bits: int = 8) -> onnx.ModelProto:
    """Returns a graph whose matrix products have weights of so many bits, 4 or 8, within the graph itself.

    Args:
        model: The float32 graph; not changed.
        directory: The engine directory, to whose weights it refers.
        bits: Of a weight.
    """
    matrices = _weights(typed(model).graph, {"MatMul"}, rank=2)
    return _multiply_in_integers(_with_numbers(model, matrices, directory), bits)


def keep_used_weights(directory: Path, graphs: Iterable[str]) -> None:
    """Removes from a directory's weight files what no graph refers to, and corrects the references.

    Args:
        directory: The engine directory.
        graphs: The names of all its `.onnx` files.
    """
    models = {directory / name: ir.load(directory / name) for name in graphs}
    used = {_place(tensor) for model in models.values() for _, tensor in _references(model)}
    moved: dict[tuple[str, int], StoredTensor] = {}
    for file in weight_files(directory):
        stored = read_header(directory, file)
        kept = {each.key: each.offset for each in stored if (file.as_posix(), each.offset) in used}
        if not kept:
            (directory / file).unlink()
        elif len(kept) < len(stored):
            tensors = load_file(directory / file)
            smaller = directory / file.with_suffix(".kept")
            save_weights({key: tensors[key].clone() for key in kept}, smaller)
            smaller.replace(directory / file)  # never written to: it may be a hard link to the checkpoint's
            moved |= {(file.as_posix(), kept[each.key]): each for each in read_header(directory, file)}
    for path, model in models.items():
        for value, tensor in _references(model):
            if _place(tensor) in moved:
                value.const_value = reference(moved[_place(tensor)]).const_value
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _weights(graph: ir.Graph, operators: Iterable[str], rank: int | None = None) -> list[ir.Value]:
    """Returns what activations are multiplied by, each once."""
    constants = constant_values(graph)
    found: dict[ir.Value, None] = {}
    for node in graph:
        if node.op_type in operators and node.inputs[0] not in constants and node.inputs[1] in constants:
            weight = node.inputs[1]
            if weight is not None and weight.shape is not None and rank in (None, len(weight.shape)):
                found[weight] = None
    return list(found)


def _size(weights: Iterable[ir.Value]) -> int:
    return sum(math.prod(weight.shape.numpy()) for weight in weights if weight.shape is not None)


def _with_numbers(model: ir.Model, weights: Sequence[ir.Value], directory: Path) -> onnx.ModelProto:
    """Returns a graph that holds the numbers of some weights, widened and transposed, for the quantiser to read."""
    names = [str(weight.name) for weight in weights]
    result = typed(model)
    values = {value.name: value for node in result.graph for value in (*node.inputs, *node.outputs) if value}
    for name, numbers in zip(names, _evaluate(model, names, directory), strict=True):
        tensor = ir.tensor(numbers, name=f"{name}.numbers")
        plain = ir.Value(
            name=f"{name}.numbers", shape=ir.Shape(numbers.shape), type=values[name].type, const_value=tensor
        )
        result.graph.register_initializer(plain)
        for node, place in list(values[name].uses()):
            if node.op_type == "MatMul":
                node.replace_input_with(place, plain)
    RemoveUnusedNodesPass()(result)
    return ir.to_proto(result)


def _evaluate(model: ir.Model, names: Sequence[str], directory: Path) -> list[NDArray[np.float32]]:
    """Works out some of a graph's constants."""
    constants = typed(model)
    graph = constants.graph
    values = {value.name: value for node in graph for value in (*node.inputs, *node.outputs) if value}
    graph.inputs.clear()
    graph.outputs.clear()
    for name in names:
        copy = ir.node("Identity", [values[name]], name=f"{name}.copy")
        result = copy.outputs[0]
        result.name, result.type, result.shape = f"{name}.copy", values[name].type, values[name].shape
        graph.append(copy)
        graph.outputs.append(result)
    RemoveUnusedNodesPass()(constants)
    session = open_session(ir.to_proto(constants).SerializeToString(), threads=1, weights=directory)
    results: list[NDArray[np.float32]] = session.run(None, {})
    return results


def _multiply_in_integers(proto: onnx.ModelProto, bits: int) -> onnx.ModelProto:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    root.handlers, root.level = handlers, level  # the import turns on every library's messages
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK, is_symmetric=True, accuracy_level=_INT8_PRODUCTS, bits=bits
    )  # fmt: skip
    quantiser = MatMulNBitsQuantizer(proto, algo_config=config)
    quantiser.process()
    return quantiser.model.model


def _store(model: ir.Model, directory: Path, file: Path) -> None:
    """Moves the int8 weights and their scales into a file."""
    graph = model.graph
    names = [
        str(value.name) for node in graph if node.op_type == "MatMulNBits"
        for value in node.inputs[1:] if value is not None
    ]  # fmt: skip
    tensors = {}
    for name in dict.fromkeys(names):
        tensor = graph.initializers[name].const_value
        assert tensor is not None
        tensors[name] = from_numpy(np.array(tensor.numpy()))
    (directory / file).parent.mkdir(exist_ok=True)
    save_weights(tensors, directory / file)
    for stored in read_header(directory, file):
        graph.initializers[stored.key].const_value = reference(stored).const_value


def _place(tensor: ir.ExternalTensor) -> tuple[str, int]:
    return str(tensor.location), tensor.offset or 0


def _references(model: ir.Model) -> Iterator[tuple[ir.Value, ir.ExternalTensor]]:
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value, value.const_value
