"""One ONNX graph on one device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_server.engines.graph import refuse_if_out_of_memory

# What each --device asks onnxruntime for, in order. Later providers take the operators that the first cannot run.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
_PACKAGES = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
}
Provider = str | tuple[str, dict[str, str]]

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}


def require_providers(device: str) -> list[str]:
    """Returns the providers of a device.

    Raises:
        LegoError: The device is unknown, or this onnxruntime has no such provider (it would silently use the CPU).
    """
    if device not in PROVIDERS:
        raise LegoError(f"device is {device!r}; choose one of {', '.join(PROVIDERS)}")
    available = ort.get_available_providers()
    wanted = PROVIDERS[device][0]
    if wanted not in available:
        raise LegoError(
            f"device {device} needs onnxruntime's {wanted}, which is not installed here "
            f"(there are {', '.join(available)}): install {_PACKAGES[device]}, or choose another --device"
        )
    return [provider for provider in PROVIDERS[device] if provider in available]


class OnnxGraph:
    """See `lego_server.engines.graph.Graph`."""

    def __init__(self, name: str, path: Path, device: str, threads: int, providers: Sequence[Provider]) -> None:
        """Loads the graph.

        Args:
            name: The graph's.
            path: The file.
            device: A key of `PROVIDERS`.
            threads: CPU threads; 0 lets the runtime choose.
            providers: The device's, with their options.

        Raises:
            LegoError: The file is no graph this onnxruntime can run, or the device's provider refused it.
        """
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Each graph has its own threads: idle ones must not spin on the cores the next graph needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if name == "unet" else "0")
        # And between two of its own calls they leave the cores to what has to be done there.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 4  # what goes wrong is raised; a log line beside it would only repeat it
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # onnxruntime's exceptions share no public base class
            refuse_if_out_of_memory(path, error)
            reason = " ".join(str(error).split())  # it may have several lines
            raise LegoError(
                f"onnxruntime cannot load {path.name} or its weights ({reason}): rebuild it with lego-export build"
            ) from error
        self._session.disable_fallback()
        used, wanted = self._session.get_providers()[0], PROVIDERS[device][0]
        if used != wanted:
            raise LegoError(
                f"graph {name} runs on {used}, not on {wanted}: check the driver, or choose another --device"
            )
        self.name = name
        self._memory = "cuda" if device in ("cuda", "tensorrt") else "cpu"
        self._dtypes = {tensor.name: self._dtype(tensor.type) for tensor in self._session.get_inputs()}
        self._outputs = [tensor.name for tensor in self._session.get_outputs()]

    def inputs(self) -> dict[str, tuple[object, ...]]:
        """Returns the shape of each input; a dynamic dimension is no int."""
        return {tensor.name: tuple(tensor.shape) for tensor in self._session.get_inputs()}

    def outputs(self) -> dict[str, tuple[object, ...]]:
        """Returns the shape of each output; a dynamic dimension is no int."""
        return {tensor.name: tuple(tensor.shape) for tensor in self._session.get_outputs()}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Returns the dtype of an input."""
        return np.dtype(self._dtypes[name])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph on arrays of any float type; half-precision outputs come back as float32."""
        results = self._session.run(self._outputs, {name: self._cast(name, value) for name, value in feeds.items()})
        return {name: _widen(value) for name, value in zip(self._outputs, results, strict=True)}

    def run_keeping(
        self, feeds: Mapping[str, NDArray[Any]], kept: Mapping[str, ort.OrtValue], keep: Collection[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, ort.OrtValue]]:
        """Runs the graph with some tensors never leaving the device.

        Args:
            feeds: Inputs as arrays.
            kept: Further inputs, kept from an earlier run.
            keep: Outputs to keep.

        Returns:
            The other outputs as arrays, and the kept ones.
        """
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, self._cast(name, value))
        for name, tensor in kept.items():
            binding.bind_ortvalue_input(name, tensor)
        for name in self._outputs:
            binding.bind_output(name, self._memory if name in keep else "cpu")
        self._session.run_with_iobinding(binding)
        results = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        arrays = {name: _widen(value.numpy()) for name, value in results.items() if name not in keep}
        return arrays, {name: results[name] for name in keep}

    def place(self, name: str, value: NDArray[Any]) -> ort.OrtValue:
        """Puts an array where an input can be fed from without copying."""
        return ort.OrtValue.ortvalue_from_numpy(self._cast(name, value), self._memory)

    def _cast(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(value, self._dtypes[name])

    def _dtype(self, onnx_type: str) -> str:
        if onnx_type not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise LegoError(f"graph {self.name} has an input of type {onnx_type}, not of {known}: rebuild the engines")
        return _DTYPES[onnx_type]


def _widen(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value
