"""From a torch module to a small, reproducible ONNX graph."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import onnx_ir as ir
import torch
from lego_core.manifest import TensorSpec

from lego_export.graphs import BATCH, PAST, TOKENS, TOTAL, GraphDefinition

# Opset 23 has GroupNormalization, RMSNormalization, RotaryEmbedding and Attention as operators of their own, which
# TensorRT maps to its fused layers. On the CPU it costs nothing: lego-nano's U-Net takes 75 ms at batch 3 with one
# thread in opsets 18, 20 and 23 alike (onnxruntime 1.32); its decoder takes 0.50 ms a token instead of 0.64.
OPSET = 23

# Sizes to trace with. A size of 1 would be baked in as broadcasting; unequal sizes keep the dimensions apart.
_EXAMPLE_SIZES = {BATCH: 2, TOKENS: 3, PAST: 5, TOTAL: 8}


def convert(definition: GraphDefinition) -> ir.Model:
    """Exports a graph; its named dimensions stay dynamic.

    Returns:
        The model with the definition's tensor and dimension names and nothing that only a debugger would read.
    """
    inputs = tuple(_example(spec) for spec in definition.inputs)
    # torch's fused encoder layer has no ONNX operator; without it the layer's plain operators are exported.
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                definition.module,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name for spec in definition.inputs],
                output_names=[spec.name for spec in definition.outputs],
                dynamic_shapes=_dynamic_shapes(definition),
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    assert program is not None
    model: ir.Model = program.model
    _strip(model)
    _declare(model.graph.inputs, definition.inputs)
    _declare(model.graph.outputs, definition.outputs)
    return model


def _example(spec: TensorSpec) -> torch.Tensor:
    shape = [_EXAMPLE_SIZES[size] if isinstance(size, str) else size for size in spec.shape]
    return torch.zeros(shape, dtype=getattr(torch, spec.dtype))


def _dynamic_shapes(definition: GraphDefinition) -> list[object]:
    shapes: list[object] = [
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in definition.inputs
    ]
    # torch.export wants one entry per parameter of `forward`: what `*past` takes is one nested tuple.
    named = definition.module.forward.__code__.co_argcount - 1
    return shapes if len(shapes) == named else [*shapes[:named], tuple(shapes[named:])]


def _strip(model: ir.Model) -> None:
    """Drops stack traces, comments and the shapes between nodes: most of a graph's bytes, none of its meaning."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None
            if not value.is_graph_output():
                value.shape = value.type = None
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None


def _declare(values: Sequence[ir.Value], specs: Sequence[TensorSpec]) -> None:
    """Names the dynamic dimensions as the manifest does."""
    for value, spec in zip(values, specs, strict=True):
        assert value.name == spec.name
        value.shape = ir.Shape(spec.shape)
