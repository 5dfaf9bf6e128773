"""How far a TensorRT plan is from its own ONNX graph in onnxruntime on the CPU.

`lego-export build` has compared the graph with torch already; this finds what a plan adds: a wrong kernel, a dropped
bias (known of refittable plans up to TensorRT 11.3), weights of another checkpoint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from lego_core.errors import LegoError
from lego_core.manifest import GraphSpec, TensorSpec
from lego_core.plans import Profile
from lego_server.engines.graph import Graph
from lego_server.engines.onnx_graph import OnnxGraph
from numpy.typing import NDArray

from lego_export.checking import spelled_out
from lego_export.parity import compare

# Largest error as a share of the largest value. TensorRT multiplies float32 in TF32, whose 10 bits of mantissa are
# those of float16. Chosen from that; not measured on hardware yet.
PLAN_TOLERANCE = 5e-2
_COMMON_TOKENS = 16  # every vocabulary has as many


def compare_plan(
    graph: str, plan: Path, source: Path, weights: Path | None, spec: GraphSpec, profiles: Sequence[Profile]
) -> float:
    """Runs a plan and its graph on the usual shapes of every profile.

    Args:
        graph: Its name.
        plan: The plan's file.
        source: The ONNX graph.
        weights: The ONNX graph to take weights from, for a plan built without.
        spec: The graph's tensors.
        profiles: The plan's.

    Returns:
        The largest error of any output as a share of its largest value.

    Raises:
        LegoError: It is above `PLAN_TOLERANCE`.
    """
    from lego_server.engines.cuda import Stream
    from lego_server.engines.tensorrt_graph import TensorRTGraph

    runs = TensorRTGraph(graph, plan, Stream(), weights=weights)
    # Beside the graph, whose weights it refers to. A CPU does not round where a half-precision graph says it should.
    with tempfile.NamedTemporaryFile(dir=source.parent, prefix=".checking-", suffix=".onnx") as file:
        file.write(spelled_out(source))
        file.flush()
        reference = OnnxGraph(graph, Path(file.name), "cpu", 0, ["CPUExecutionProvider"])
    error = largest_error(reference, runs, graph, spec, profiles)
    if not error <= PLAN_TOLERANCE:
        raise LegoError(
            f"the plan of graph {graph} differs from the graph by {error:.1e} of its largest value, more than "
            f"{PLAN_TOLERANCE:g}: build with --refit none, with another version of TensorRT, or in another precision"
        )
    return float(f"{error:.2e}")


def largest_error(reference: Graph, found: Graph, graph: str, spec: GraphSpec, profiles: Sequence[Profile]) -> float:
    """Returns the largest error between two runtimes of one graph, as a share of the largest value."""
    errors = []
    for seed, profile in enumerate(profiles):
        feeds = random_feeds(graph, spec, profile, seed)
        expected, results = reference.run(feeds), found.run(feeds)
        errors += [compare(value, results[name]).relative for name, value in expected.items()]
    return max(errors)


def random_feeds(graph: str, spec: GraphSpec, profile: Profile, seed: int) -> Mapping[str, NDArray[np.generic]]:
    """Returns inputs of a profile's usual shapes: unit noise, and what only makes sense with some order in it."""
    generator = np.random.default_rng(seed)
    return {tensor.name: _fill(tensor, profile.shapes(graph, tensor)[1], generator) for tensor in spec.inputs}


def _fill(tensor: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.generic]:
    if tensor.name == "attention_mask":  # (B, 1, T, P + T): causal, as the server's
        rows, columns = shape[-2:]
        mask = np.triu(np.full((rows, columns), np.finfo(tensor.dtype).min), k=columns - rows + 1)
        return np.broadcast_to(mask, shape).astype(tensor.dtype)
    if tensor.name == "position_ids":
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(tensor.dtype)
    if tensor.dtype.startswith("int"):
        return generator.integers(0, _COMMON_TOKENS, shape).astype(tensor.dtype)
    if tensor.name == "timestep":
        return generator.uniform(1, 999, shape).astype(tensor.dtype)
    return generator.standard_normal(shape).astype(tensor.dtype)
