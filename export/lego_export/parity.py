"""How far a graph in onnxruntime is from its torch module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from lego_core.errors import LegoError
from lego_server.engines.onnx_graph import require_providers

from lego_export.graphs import GraphDefinition
from lego_export.samples import Feeds

# A graph with more weights than this is opened in as little memory as they take.
_LARGE_BYTES = 2**30
# And with more than this, as language models have, each weight is widened when its turn comes, and not before.
_HUGE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Parity:
    """The difference between two versions of one tensor.

    Attributes:
        max_abs_error: Largest absolute difference; infinite if the shapes differ or a value of either is not finite.
        mean_abs_error: Mean absolute difference.
        max_abs_value: Largest absolute value of the reference.
    """

    max_abs_error: float
    mean_abs_error: float
    max_abs_value: float

    @property
    def relative(self) -> float:
        """Largest error as a share of the largest value."""
        return self.max_abs_error / max(self.max_abs_value, 1e-6)

    def rounded(self) -> dict[str, float]:
        """Returns the figures to three digits, as the manifest and reports keep them."""
        names = ("max_abs_error", "mean_abs_error", "max_abs_value")
        return {name: float(f"{getattr(self, name):.2e}") for name in names}


def compare(expected: np.ndarray, found: np.ndarray) -> Parity:
    """Compares a tensor with its reference."""
    if not np.isfinite(expected).all():
        # Without a reference there is nothing to agree with; a NaN here would pass every "greater than".
        return Parity(float("inf"), float("inf"), 0.0)
    largest = float(np.abs(expected).max())
    if expected.shape != found.shape or not np.isfinite(found).all():
        return Parity(float("inf"), float("inf"), largest)
    difference = np.abs(expected - found.astype(np.float32))
    return Parity(float(difference.max()), float(difference.mean()), largest)


def open_session(
    graph: Path | bytes, threads: int, weights: Path | None = None, device: str = "cpu", in_order: bool = False
) -> ort.InferenceSession:
    """Opens a graph on the CPU or a GPU; a large one so that it takes little more memory than its weights as stored.

    Args:
        graph: Its file, or what would be in it.
        threads: 0 lets onnxruntime choose.
        weights: The folder that the graph's references start from, if it is not the file's own.
        device: "cpu" or "cuda".
        in_order: Run nodes in the graph's own order. Left to itself, onnxruntime runs what nobody waits for at the end,
            and keeps its inputs until then.

    Raises:
        LegoError: onnxruntime refuses it, or has no such device.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights))
    stored = _weight_bytes(graph)
    if in_order or stored > _HUGE_BYTES:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED  # among nodes that are ready, the first
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # would move nodes to the end
    disabled: list[str] = []
    if stored > _LARGE_BYTES:
        # Folded, a half-precision weight and its Cast are a weight of twice the size; prepacked, there is a copy of it.
        disabled = ["ConstantFolding"]
        options.add_session_config_entry("session.disable_prepacking", "1")
    # TF32 would round every product to 10 bits of mantissa, and hide what is looked for.
    exact = {"CUDAExecutionProvider": {"use_tf32": "0"}}
    providers = [(provider, exact.get(provider, {})) for provider in require_providers(device)]
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = ort.InferenceSession(source, options, providers=providers, disabled_optimizers=disabled)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        what = "a graph" if isinstance(graph, bytes) else graph
        raise LegoError(f"onnxruntime cannot load {what} ({error}): rebuild it with lego-export build") from error
    used, wanted = session.get_providers()[0], providers[0][0]
    if used != wanted:  # it goes on without a provider that finds no GPU or no driver
        raise LegoError(f"onnxruntime runs the graph on {used}, not on {wanted}: check the driver, or --device cpu")
    return session


def _weight_bytes(graph: Path | bytes) -> int:
    try:
        model = ir.from_proto(onnx.ModelProto.FromString(graph)) if isinstance(graph, bytes) else ir.load(graph)
        initializers = model.graph.initializers.values()
    except Exception:  # onnxruntime says better what is wrong with it
        return 0
    return sum(each.const_value.nbytes for each in initializers if each.const_value is not None)


def check_graph(session: ort.InferenceSession, definition: GraphDefinition, inputs: Sequence[Feeds]) -> Parity:
    """Returns the parity of the worst output over all inputs."""
    results = [
        compare(expected, found)
        for feeds in inputs
        for expected, found in zip(
            run_module(definition, feeds), session.run(None, fit_types(session, feeds)), strict=True
        )
    ]
    return max(results, key=lambda parity: parity.relative)


def fit_types(session: ort.InferenceSession, feeds: Feeds) -> dict[str, np.ndarray]:
    """Returns a graph's inputs in the types it takes: some may be float16."""
    halves = {each.name for each in session.get_inputs() if each.type == "tensor(float16)"}
    return {name: value.astype(np.float16) if name in halves else value for name, value in feeds.items()}


def run_module(definition: GraphDefinition, feeds: Feeds) -> list[np.ndarray]:
    """Runs the torch module on a graph's inputs."""
    with torch.inference_mode():
        outputs = definition.module(*(torch.from_numpy(feeds[spec.name]) for spec in definition.inputs))
    return [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]
