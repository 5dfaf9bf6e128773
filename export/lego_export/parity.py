"""How far a graph in onnxruntime is from its torch module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from lego_core.errors import LegoError
from lego_server.engines.onnx_graph import require_providers

from lego_export.graphs import GraphDefinition
from lego_export.samples import Feeds

# Largest error of a graph as a share of its output's largest value. float32 sums taken in another order differ by
# about 1e-6; a wrong operator or a weight in the wrong place is beyond 1e-2.
GRAPH_TOLERANCE = 1e-3


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
    difference = np.abs(expected - found)
    return Parity(float(difference.max()), float(difference.mean()), largest)


def open_session(path: Path, threads: int, device: str = "cpu") -> ort.InferenceSession:
    """Opens a graph on the CPU or a GPU ("cuda").

    Raises:
        LegoError: onnxruntime refuses it, or has no such device.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # TF32 would round every product to 10 bits of mantissa, and hide what is looked for.
    exact = {"CUDAExecutionProvider": {"use_tf32": "0"}}
    providers = [(provider, exact.get(provider, {})) for provider in require_providers(device)]
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise LegoError(f"onnxruntime cannot load {path} ({error}): rebuild it with lego-export build") from error


def check_graph(session: ort.InferenceSession, definition: GraphDefinition, inputs: Sequence[Feeds]) -> Parity:
    """Returns the parity of the worst output over all inputs."""
    results = [
        compare(expected, found)
        for feeds in inputs
        for expected, found in zip(run_module(definition, feeds), session.run(None, feeds), strict=True)
    ]
    return max(results, key=lambda parity: parity.relative)


def run_module(definition: GraphDefinition, feeds: Feeds) -> list[np.ndarray]:
    """Runs the torch module on a graph's inputs."""
    with torch.inference_mode():
        outputs = definition.module(*(torch.from_numpy(feeds[spec.name]) for spec in definition.inputs))
    return [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]
