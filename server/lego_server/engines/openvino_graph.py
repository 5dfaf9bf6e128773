"""One ONNX graph on a CPU by OpenVINO, in float32 or, where the processor has it, bfloat16."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_server.engines.graph import refuse_if_out_of_memory

FP32, BF16 = "openvino", "openvino-bf16"
OPENVINO_DEVICES = (FP32, BF16)
# What a picture is painted by. The VLLM stays in float32: a word chosen otherwise would be another description.
_IN_BF16 = ("unet", "unet_shallow", "unet_student", "vae_decoder")


def require_openvino(device: str) -> None:
    """Checks that OpenVINO is installed, and that this processor computes as the device says.

    Raises:
        LegoError: It is not, or does not.
    """
    try:
        import openvino
    except ImportError as error:
        raise LegoError(
            f"device {device} needs the package openvino: pip install lego-ar[server-openvino], or choose another "
            "--device"
        ) from error
    if device == BF16 and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise LegoError(
            f"device {device} needs a processor that multiplies bfloat16 (AVX512-BF16 or AMX), which this one does "
            f"not: use --device {FP32}"
        )


class OpenVINOGraph:
    """See `lego_server.engines.graph.Graph`. Calls from several threads run at the same time, one for each lane."""

    def __init__(self, name: str, path: Path, device: str, threads: int, lanes: int) -> None:
        """Compiles the graph.

        Args:
            name: The graph's.
            path: The file.
            device: One of `OPENVINO_DEVICES`, there according to `require_openvino`.
            threads: CPU threads of one call; 0 lets the runtime choose.
            lanes: Calls at the same time.

        Raises:
            LegoError: OpenVINO cannot run the graph.
        """
        import openvino as ov

        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": lanes,
            "INFERENCE_PRECISION_HINT": "bf16" if device == BF16 and name in _IN_BF16 else "f32",
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads * lanes
        try:
            # OpenVINO gives the thread that compiles a stack for signals of its own, and takes it back from whichever
            # thread lets go of the model: the main thread's would then lie in memory that is freed, and the next
            # signal would end the process.
            with ThreadPoolExecutor(1) as aside:
                self._model = aside.submit(ov.Core().compile_model, path, "CPU", options).result()
        except (RuntimeError, MemoryError) as error:
            refuse_if_out_of_memory(path, error)
            reason = " ".join(str(error).split())
            raise LegoError(
                f"OpenVINO cannot load {path.name} ({reason:.300}): rebuild it with lego-export build, or use "
                "--device cpu"
            ) from error
        self.name = name
        self._own = threading.local()  # each thread's request: what it computes in is not shared
        self._dtypes = {each.any_name: np.dtype(each.element_type.to_dtype()) for each in self._model.inputs}
        self._outputs = [each.any_name for each in self._model.outputs]

    def inputs(self) -> dict[str, tuple[object, ...]]:
        """Returns the shape of each input; a dynamic dimension is no int."""
        return {each.any_name: _shape(each.partial_shape) for each in self._model.inputs}

    def outputs(self) -> dict[str, tuple[object, ...]]:
        """Returns the shape of each output; a dynamic dimension is no int."""
        return {each.any_name: _shape(each.partial_shape) for each in self._model.outputs}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Returns the dtype of an input."""
        return self._dtypes[name]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph on arrays of any float type; half-precision outputs come back as float32."""
        return self.run_keeping(feeds, {}, ())[0]

    def run_keeping(
        self, feeds: Mapping[str, NDArray[Any]], kept: Mapping[str, Any], keep: Collection[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """See `Graph.run_keeping`; what is kept lies in host memory, as everything does."""
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._model.create_infer_request()
        placed = {name: self.place(name, value) for name, value in feeds.items()} | dict(kept)
        try:
            request.infer({name: each.tensor for name, each in placed.items()})
        except RuntimeError as error:
            raise RuntimeError(f"OpenVINO failed in graph {self.name}: {' '.join(str(error).split()):.300}") from error
        # Copied: the request computes the next call in the same place.
        arrays = {name: np.array(request.get_tensor(name).data) for name in self._outputs}
        return (
            {name: _widen(value) for name, value in arrays.items() if name not in keep},
            {name: _Kept(arrays[name]) for name in keep},
        )

    def place(self, name: str, value: NDArray[Any]) -> _Kept:
        """Puts an array where an input can be fed from without copying."""
        return _Kept(np.ascontiguousarray(value, self._dtypes[name]))


class _Kept:
    """An array, and OpenVINO's view of the same memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        import openvino as ov

        self._array = array
        self.tensor = ov.Tensor(array, shared_memory=array.size > 0)

    def numpy(self) -> NDArray[Any]:
        """Returns a copy in host memory."""
        return self._array.copy()


def _shape(shape: Any) -> tuple[object, ...]:
    return tuple(each.get_length() if each.is_static else str(each) for each in shape)


def _widen(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value
