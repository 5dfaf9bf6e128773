"""The precision a graph computes in: half-precision floats, with islands that stay in float32.

Strongly typed runtimes (TensorRT 11, onnxruntime on a GPU) compute in the types that the graph states, so lowering is a
rewrite of the graph: `lower` gives every value a type and puts a Cast where two types meet.

onnxruntime's CPU provider cannot show what that does to the numbers. It has no half-precision kernels for most
operators (none at all in bfloat16), computes float16 graphs in float32, and drops the roundings between neighbours,
with every optimisation turned off too: 100 * 1000 * 0.001 in float16 gives 100 there, where the graph says infinity. No
session option changes that. Casts that a graph spells out are kept at every optimisation level, though. So `spell_out`
makes a graph for checking: every operator computes in float32, and its result is rounded to half precision and back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from lego_core.errors import LegoError
from lego_core.manifest import TensorSpec
from numpy.typing import NDArray
from onnx.inliner import inline_selected_functions
from onnx_ir.passes.common import RemoveUnusedNodesPass

HalfPrecision = Literal["fp16", "bf16"]
DTYPES: dict[HalfPrecision, ir.DataType] = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
LARGEST: dict[HalfPrecision, float] = {  # that is finite
    "fp16": float(np.finfo(np.float16).max),
    "bf16": float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
}
_SPEC_DTYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
_ONNX_NAMES = {ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}

# Operators that only pass numbers on: theirs is the precision of what surrounds them.
MOVEMENT = frozenset({"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
                      "Unsqueeze"})  # fmt: skip
# Operators that sum products, and whose speed half precision is for.
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_READ_ANY_TYPE = frozenset({"Cast", "CastLike", "Shape", "Size"})
_MASK = 3  # which input of Attention is added to its scores


def lower(
    model: ir.Model,
    precision: HalfPrecision,
    *,
    islands: Collection[str] = (),
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
) -> ir.Model:
    """Returns a float32 graph lowered to half precision.

    Every operator computes in half precision, except islands, operators that ONNX does not define in it, inputs that
    ONNX fixes to float32 (the scales of Resize), and sums of stored weights (a student's), which are rounded once, at
    their end. A value is cast at most once to each type; stored half-precision weights reach their operators without a
    detour over float32. Attention masks stop at half of the largest finite number: added to a score they must not
    become infinite, for a row of nothing but minus infinity has no softmax. Softmax within Attention stays in float32.

    Args:
        model: As `lego_export.onnx_graph.convert` and `share_weights` leave it; not changed.
        precision: Of everything else.
        islands: Names of nodes that go on in float32.
        inputs: The graph's inputs, if any has another type than the model's: float32 or float16.
        outputs: Likewise.

    Raises:
        LegoError: The graph has subgraphs, or a constant is too large for an operator that is lowered.
    """
    lowered = typed(model)
    _Lowering(lowered, precision, frozenset(islands)).run(inputs, outputs)
    RemoveUnusedNodesPass()(lowered)
    for node in lowered.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = value.type = None
    return lowered


def spell_out(model: ir.Model) -> ir.Model:
    """Returns a graph that does in float32 what a lowered graph says, every rounding included, on any provider.

    Each operator computes in float32 (sums of products too, as tensor cores do) and rounds its result once. Attention
    is taken apart into its definition, so that its scores and weights are rounded as well; fused kernels round less.
    """
    checked = typed(model, inline=[("", "Attention")])
    graph = checked.graph
    halves = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    widened: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        if node.op_type in _READ_ANY_TYPE or not any(_dtype(value) in halves for value in node.inputs if value):
            continue
        for place, value in enumerate(node.inputs):
            if value is None or _dtype(value) not in halves:
                continue
            if value not in widened:
                cast = _cast(value, ir.DataType.FLOAT, f"{value.name}.wide")
                graph.insert_before(node, cast)
                widened[value] = cast.outputs[0]
            node.replace_input_with(place, widened[value])
        for value in node.outputs:
            if _dtype(value) in halves:
                _round_output(graph, node, value)
    return checked


def typed(model: ir.Model, inline: Sequence[tuple[str, str]] = ()) -> ir.Model:
    """Returns a copy in which every value has its type.

    Args:
        model: Any.
        inline: Operators (domain, name) to replace by their definition.
    """
    proto = infer_types(ir.to_proto(model))
    if inline and any(node.op_type in {name for _, name in inline} for node in proto.graph.node):
        version = proto.ir_version
        proto = inline_selected_functions(proto, list(inline), False, True)
        proto.ir_version = version
        proto = infer_types(proto)
    return ir.from_proto(proto)


def infer_types(proto: onnx.ModelProto, propagate_values: bool = False) -> onnx.ModelProto:
    """Returns a copy with the type and, where it can be told, the shape of every value.

    Args:
        proto: Changed only while this works.
        propagate_values: Work out shapes that the graph computes, too.

    Raises:
        LegoError: A type cannot be told, or two types meet that may not.
    """
    # onnx 1.23 infers nothing for these; what gives the same types and shapes stands in for them meanwhile.
    originals = {
        place: onnx.NodeProto.FromString(node.SerializeToString())
        for place, node in enumerate(proto.graph.node)
        if node.op_type in ("GroupNormalization", "MatMulNBits")
    }
    inputs = len(proto.graph.input)
    for place in originals:
        _stand_in(proto.graph, proto.graph.node[place])
    try:
        inferred = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=propagate_values
        )
    except onnx.shape_inference.InferenceError as error:
        raise LegoError(f"the graph's types do not fit: {error}") from error
    finally:
        _put_back(proto.graph, originals, inputs)
    _put_back(inferred.graph, originals, inputs)
    return inferred


def _stand_in(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    if node.op_type == "GroupNormalization":
        node.op_type = "InstanceNormalization"  # has the same inputs, and passes types on
        return
    size = {attribute.name: attribute.i for attribute in node.attribute}
    weight = f"{node.output[0]}.weight"
    graph.input.append(onnx.helper.make_tensor_value_info(weight, onnx.TensorProto.FLOAT, [size["K"], size["N"]]))
    node.op_type, node.domain = "MatMul", ""
    del node.input[1:], node.attribute[:]
    node.input.append(weight)


def _put_back(graph: onnx.GraphProto, originals: Mapping[int, onnx.NodeProto], inputs: int) -> None:
    for place, node in originals.items():
        graph.node[place].CopyFrom(node)
    del graph.input[inputs:]


def is_float(value: ir.Value | None) -> bool:
    """Says whether a value of a typed graph is float32."""
    return value is not None and _dtype(value) == ir.DataType.FLOAT


def constant_values(graph: ir.Graph) -> set[ir.Value]:
    """Returns the values that depend on no input of the graph: weights, and what is made of weights alone."""
    constants = set(graph.initializers.values())
    for node in graph:
        if all(value is None or value in constants for value in node.inputs):
            constants.update(node.outputs)
    return constants


def mask_values(graph: ir.Graph) -> set[ir.Value]:
    """Returns everything that attention masks are made of, from the graph's input or constants on."""
    starts = []
    for node in graph:
        if node.op_type == "Attention" and len(node.inputs) > _MASK:
            starts.append(node.inputs[_MASK])
        if node.op_type == "Add" and any(user.op_type == "Softmax" for user in node.outputs[0].consumers()):
            starts += [value for value in node.inputs if not any(n.op_type in PRODUCTS for n in _ancestors(value))]
    found: set[ir.Value] = set()
    for start in starts:
        if start is not None and is_float(start):
            found.add(start)
            for node in _ancestors(start):
                if node.op_type not in PRODUCTS:
                    found.update(
                        value for value in (*node.inputs, *node.outputs) if value is not None and is_float(value)
                    )
    return found


class _Lowering:
    """One rewrite. The graph is walked once, in order; `_current` says what stands for each of its float32 values."""

    def __init__(self, model: ir.Model, precision: HalfPrecision, islands: frozenset[str]) -> None:
        self._graph = model.graph
        self._opset = model.opset_imports[""]
        self._low, self._precision = DTYPES[precision], precision
        self._masks = mask_values(self._graph)
        self._constants = constant_values(self._graph)
        self._wide = self._stay_wide(islands)
        self._current: dict[ir.Value, ir.Value] = {}
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        wanted: dict[str | None, ir.DataType | None] = {
            spec.name: _SPEC_DTYPES.get(spec.dtype) for spec in (*inputs, *outputs)
        }
        values = {value for node in self._graph for value in (*node.inputs, *node.outputs) if value is not None}
        floats = {value for value in (*values, *self._graph.inputs) if is_float(value)}
        for value in self._graph.inputs:
            if is_float(value):
                value.type = ir.TensorType(wanted.get(value.name) or ir.DataType.FLOAT)
        for node in list(self._graph):
            if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
                   for attribute in node.attributes.values()):  # fmt: skip
                raise LegoError(f"node {node.name} ({node.op_type}) holds a subgraph; build with --precision fp32")
            if node.op_type == "Cast" and is_float(node.outputs[0]):
                # Whoever needs the float32 asks for it; others take the source as it is, or cast it themselves.
                source = node.inputs[0]
                assert source is not None
                self._current[node.outputs[0]] = self._current.get(source, source)
            else:
                self._retype(node, floats)
        for index, value in enumerate(self._graph.outputs):
            if value in floats:
                self._place_output(index, value, wanted.get(value.name) or ir.DataType.FLOAT)

    def _retype(self, node: ir.Node, floats: set[ir.Value]) -> None:
        lowered_inputs, lowered_outputs = self._lowerable(node)
        for place, value in enumerate(node.inputs):
            if value is None or value not in floats:
                continue
            current = self._current.get(value, value)
            if node.op_type not in _READ_ANY_TYPE:
                dtype = self._low if place in lowered_inputs else ir.DataType.FLOAT
                current = self._as(current, dtype, node, is_mask=value in self._masks)
            if current is not node.inputs[place]:
                node.replace_input_with(place, current)
        if not lowered_outputs:
            return
        for place in lowered_outputs:
            node.outputs[place].type = ir.TensorType(self._low)
        if node.op_type == "Attention" and "softmax_precision" not in node.attributes:
            node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", ir.DataType.FLOAT.value)

    def _as(self, value: ir.Value, dtype: ir.DataType, before: ir.Node | None, is_mask: bool = False) -> ir.Value:
        """Returns a value in a type, cast where it is first needed."""
        if _dtype(value) == dtype:
            return value
        if (value, dtype) not in self._casts:
            tensor = value.const_value
            if value.is_initializer() and not isinstance(tensor, ir.ExternalTensor) and is_float(value):
                self._casts[value, dtype] = self._converted(value, dtype, is_mask)
            else:
                source = self._clipped(value, before) if is_mask and is_float(value) else value
                cast = _cast(source, dtype, f"{value.name}.{_ONNX_NAMES.get(dtype, 'float32')}")
                self._insert(cast, before)
                self._casts[value, dtype] = cast.outputs[0]
        return self._casts[value, dtype]

    def _insert(self, node: ir.Node, before: ir.Node | None) -> None:
        if before is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(before, node)

    def _clipped(self, value: ir.Value, before: ir.Node | None) -> ir.Value:
        limit = np.float32(LARGEST[self._precision] / 2)
        bounds = [self._initializer(f"{value.name}.{name}", np.array(bound, np.float32), ir.DataType.FLOAT)
                  for name, bound in (("least", -limit), ("most", limit))]  # fmt: skip
        clip = ir.node("Clip", [value, *bounds], name=f"{value.name}.clip")
        _name_output(clip, f"{value.name}.finite", ir.DataType.FLOAT)
        self._insert(clip, before)
        return clip.outputs[0]

    def _converted(self, value: ir.Value, dtype: ir.DataType, is_mask: bool) -> ir.Value:
        tensor = value.const_value
        assert tensor is not None
        numbers, largest = tensor.numpy(), LARGEST[self._precision]
        too_large = np.abs(numbers) > largest
        if too_large.any() and not is_mask:
            raise LegoError(
                f"constant {value.name} holds {np.abs(numbers).max():g}, and {self._precision} ends at {largest:g}: "
                "the operators that use it must be islands"
            )
        numbers = np.where(too_large, np.sign(numbers) * largest / 2, numbers)
        return self._initializer(f"{value.name}.{_ONNX_NAMES[dtype]}", numbers, dtype)

    def _initializer(self, name: str, numbers: NDArray[np.float32], dtype: ir.DataType) -> ir.Value:
        tensor = ir.tensor(numbers.astype(dtype.numpy()), dtype=dtype, name=name)
        value = ir.Value(name=name, shape=ir.Shape(numbers.shape), type=ir.TensorType(dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def _place_output(self, index: int, value: ir.Value, dtype: ir.DataType) -> None:
        name, shape = value.name, value.shape
        result = self._as(self._current.get(value, value), dtype, None)
        if result is not value:
            value.name = f"{name}.inner"
            if result.producer() is None or result.is_graph_output():  # a weight or an input, or given out already
                identity = ir.node("Identity", [result], name=f"{name}.identity")
                self._graph.append(identity)
                result = identity.outputs[0]
            result.name, result.shape, result.type = name, shape, ir.TensorType(dtype)
            self._graph.outputs[index] = result

    def _lowerable(self, node: ir.Node) -> tuple[set[int], set[int]]:
        """Returns the places of the inputs and outputs that shall be, and by ONNX may be, in half precision."""
        if node in self._wide:
            return set(), set()
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        except onnx.defs.SchemaError:  # an operator of some runtime's own
            return set(), set()
        name = f"tensor({_ONNX_NAMES[self._low]})"
        allowed = {each.type_param_str for each in schema.type_constraints if name in each.allowed_type_strs}

        formals = schema.outputs
        outputs = {
            place for place, value in enumerate(node.outputs)
            if is_float(value) and formals[min(place, len(formals) - 1)].type_str in allowed
        }  # fmt: skip
        if node.op_type == "LayerNormalization":
            outputs &= {0}  # mean and deviation keep the precision they are computed in (stash_type)
        if not outputs:  # a comparison, say: there is nothing to gain
            return set(), set()
        # The values given in may be lowered already, so their types say nothing here.
        formals = schema.inputs
        return {p for p in range(len(node.inputs)) if formals[min(p, len(formals) - 1)].type_str in allowed}, outputs

    def _stay_wide(self, islands: frozenset[str]) -> set[ir.Node]:
        wide = {
            node for node in self._graph
            if node.name in islands
            or (node.op_type not in MOVEMENT and all(v is None or v in self._constants for v in node.inputs))
        }  # fmt: skip
        surrounded = []  # movement all of whose results go to islands
        leading: set[ir.Node] = set()
        for node in reversed(list(self._graph)):
            users = [user for value in node.outputs for user in value.consumers()]
            if node.op_type in MOVEMENT and users and all(user in wide or user in leading for user in users):
                leading.add(node)
                surrounded.append(node)
        for node in reversed(surrounded):
            source = node.inputs[0]
            assert source is not None
            if source in self._constants or source.producer() is None or source.producer() in wide:
                wide.add(node)
        return wide


def _round_output(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Lets a node give float32, and rounds it to the type that `value` had."""
    dtype = value.dtype
    assert dtype is not None
    cast = _cast(value, dtype, f"{value.name}.rounded")
    graph.insert_after(node, cast)
    rounded = cast.outputs[0]
    for user, place in list(value.uses()):
        if user is not cast:
            user.replace_input_with(place, rounded)
    for index, output in enumerate(graph.outputs):
        if output is value:
            value.name, name = f"{value.name}.exact", value.name
            rounded.name, rounded.shape = name, value.shape
            graph.outputs[index] = rounded
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype.value}, name=name)
    _name_output(node, name, dtype)
    return node


def _name_output(node: ir.Node, name: str, dtype: ir.DataType) -> None:
    node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(dtype)


def _dtype(value: ir.Value) -> ir.DataType | None:
    return value.const_value.dtype if value.const_value is not None else value.dtype


def _ancestors(value: ir.Value | None) -> Iterator[ir.Node]:
    """Yields the nodes a value comes from, up to and including sums of products."""
    seen: set[ir.Node] = set()
    waiting = [value]
    while waiting:
        current = waiting.pop()
        node = None if current is None else current.producer()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            if node.op_type not in PRODUCTS:
                waiting += node.inputs
