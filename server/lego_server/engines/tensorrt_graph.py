"""One TensorRT plan on the first GPU, with the surface of `lego_server.engines.graph.Graph`.

Import it only after `require_tensorrt`. Everything runs on one stream, which is what makes it safe to reuse buffers
from call to call: a copy into one waits for the kernels that read it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import tensorrt as trt
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_server.engines.cuda import CudaError, CudaGraph, DeviceBuffer, PinnedBuffer, Stream
from lego_server.engines.graph import KeptTensor

Shapes = dict[str, tuple[int, ...]]

_log = logging.getLogger(__name__)
_NUMPY: dict[trt.DataType, np.dtype[Any]] = {
    trt.DataType.FLOAT: np.dtype(np.float32),
    trt.DataType.HALF: np.dtype(np.float16),
    trt.DataType.INT64: np.dtype(np.int64),
    trt.DataType.INT32: np.dtype(np.int32),
}


class Logger(trt.ILogger):
    """Sends TensorRT's messages to `logging` and keeps its errors, which its calls do not return."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any of its threads."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(msg)
        elif severity == trt.ILogger.Severity.WARNING:
            _log.info("TensorRT: %s", msg)

    def explain(self) -> str:
        """Returns the last error, in one line."""
        return " ".join(self.errors[-1].split()) if self.errors else "TensorRT gives no reason"


class DeviceTensor:
    """A tensor in device memory of its own."""

    def __init__(self, stream: Stream, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Allocates it; its values are undefined."""
        self.shape = shape
        self.dtype = dtype
        self.size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self.buffer = DeviceBuffer(stream, self.size)
        self._stream = stream

    def numpy(self) -> NDArray[Any]:
        """Returns a copy in host memory."""
        staging = PinnedBuffer()
        array = staging.view(self.shape, self.dtype)
        if self.size:
            self._stream.download(staging, self.buffer.address, self.size)
            self._stream.wait()
        return array.copy()


class TensorRTGraph:
    """A plan that takes and gives NumPy arrays, or keeps outputs on the GPU. Calls are made from one thread only."""

    def __init__(
        self, name: str, plan: Path, stream: Stream, *, weights: Path | None = None, cuda_graphs: bool = True
    ) -> None:
        """Loads a plan.

        Args:
            name: The graph's.
            plan: The file.
            stream: Shared by every graph that hands tensors to another.
            weights: The ONNX graph whose weights to put in, for a plan built without.
            cuda_graphs: Record the kernels of shapes that repeat and replay them, which spares the CPU their launches.

        Raises:
            LegoError: TensorRT refuses the file, the weights do not fit, or the GPU's memory is full.
        """
        self.name = name
        self._logger = Logger()
        self._stream = stream
        # Kept: an engine must not outlive the runtime that made it.
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise LegoError(
                f"TensorRT cannot load {plan} ({self._logger.explain()}): rebuild it with lego-export plans"
            )
        if weights is not None:
            refit(engine, weights, self._logger)
        self._engine = engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._inputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.INPUT]
        self._outputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.OUTPUT]
        self._dtypes = {each: self._numpy_dtype(each) for each in names}
        self._buffers = {each: DeviceBuffer(stream) for each in names}
        self._staging = {each: PinnedBuffer() for each in names}
        self._executions = [
            _Execution(engine, index, self._inputs, stream, self._logger, cuda_graphs)
            for index in range(engine.num_optimization_profiles)
        ]

    def inputs(self) -> dict[str, tuple[object, ...]]:
        """See `Graph.inputs`."""
        return {name: self._declared(name) for name in self._inputs}

    def outputs(self) -> dict[str, tuple[object, ...]]:
        """See `Graph.outputs`."""
        return {name: self._declared(name) for name in self._outputs}

    def dtype(self, name: str) -> np.dtype[Any]:
        """See `Graph.dtype`."""
        return self._dtypes[name]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """See `Graph.run`."""
        return self.run_keeping(feeds, {}, ())[0]

    def run_keeping(
        self, feeds: Mapping[str, NDArray[Any]], kept: Mapping[str, KeptTensor], keep: Collection[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, KeptTensor]]:
        """See `Graph.run_keeping`.

        Raises:
            LegoError: A shape lies outside every profile of the plan, or the GPU's memory is full.
            CudaError: The GPU or TensorRT failed.
        """
        tensors = {name: cast(DeviceTensor, tensor) for name, tensor in kept.items()}
        shapes = {name: value.shape for name, value in feeds.items()}
        shapes |= {name: tensor.shape for name, tensor in tensors.items()}
        execution = self._choose(shapes)
        addresses = {name: tensor.buffer.address for name, tensor in tensors.items()}
        for name, value in feeds.items():
            addresses[name] = self._upload(name, value)
        execution.set_shapes(shapes)
        results = {name: DeviceTensor(self._stream, execution.shape(name), self._dtypes[name]) for name in keep}
        for name in self._outputs:
            if name in results:
                addresses[name] = results[name].buffer.address
            else:
                self._buffers[name].reserve(self._size(name, execution.shape(name)))
                addresses[name] = self._buffers[name].address
        execution.run(addresses)
        arrays = {}
        for name in self._outputs:
            if name not in results:
                shape = execution.shape(name)
                arrays[name] = self._staging[name].view(shape, self._dtypes[name])
                if arrays[name].size:
                    self._stream.download(self._staging[name], addresses[name], self._size(name, shape))
        self._stream.wait()
        kept_results: dict[str, KeptTensor] = dict(results)
        return {name: _own(value) for name, value in arrays.items()}, kept_results

    def place(self, name: str, value: NDArray[Any]) -> KeptTensor:
        """See `Graph.place`."""
        tensor = DeviceTensor(self._stream, value.shape, self._dtypes[name])
        if tensor.size:
            staging = PinnedBuffer()
            staging.view(value.shape, tensor.dtype)[...] = value
            self._stream.upload(tensor.buffer.address, staging, tensor.size)
            self._stream.wait()
        return tensor

    def _upload(self, name: str, value: NDArray[Any]) -> int:
        size = self._size(name, value.shape)
        self._buffers[name].reserve(size)
        # The staging memory is free: every run ends by waiting for the stream.
        self._staging[name].view(value.shape, self._dtypes[name])[...] = value
        if size:
            self._stream.upload(self._buffers[name].address, self._staging[name], size)
        return self._buffers[name].address

    def _choose(self, shapes: Shapes) -> _Execution:
        for execution in self._executions:
            if execution.takes(shapes):
                return execution
        ranges = "; ".join(execution.ranges() for execution in self._executions)
        told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items() if not name.startswith("past_"))
        raise LegoError(
            f"graph {self.name} was asked for {told}, its plan takes {ranges}: build plans for larger sizes with "
            "lego-export plans (--max-batch, --query-tokens, --description-tokens)"
        )

    def _declared(self, name: str) -> tuple[object, ...]:
        # TensorRT says -1 for a dynamic dimension; the contract of `Graph` wants something that is no size.
        return tuple(size if size >= 0 else "dynamic" for size in self._engine.get_tensor_shape(name))

    def _size(self, name: str, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape, dtype=np.int64)) * self._dtypes[name].itemsize

    def _numpy_dtype(self, name: str) -> np.dtype[Any]:
        dtype = self._engine.get_tensor_dtype(name)
        if dtype not in _NUMPY:
            known = ", ".join(each.name for each in _NUMPY)
            raise LegoError(
                f"graph {self.name} has tensor {name} of type {dtype.name}, not of {known}: rebuild the engines"
            )
        if self._engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise LegoError(
                f"the plan of graph {self.name} wants {name} in host memory, because shapes depend on its values: "
                "rebuild the engines"
            )
        return _NUMPY[dtype]


class _Execution:
    """One profile of a plan with the memory it works in, and the recording of its last shapes."""

    def __init__(
        self, engine: trt.ICudaEngine, profile: int, inputs: list[str], stream: Stream, logger: Logger, records: bool
    ) -> None:
        context = engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, stream.handle):
            raise LegoError(
                f"TensorRT cannot make room to run a plan ({logger.explain()}): end other programs on the GPU, or "
                "build plans for smaller sizes with lego-export plans"
            )
        stream.wait()
        self._context = context
        self._stream = stream
        self._logger = logger
        self._bounds = {}
        for name in inputs:
            low, _, high = engine.get_tensor_profile_shape(name, profile)
            self._bounds[name] = (tuple(low), tuple(high))
        self._shapes: Shapes = {}
        self._addresses: dict[str, int] = {}
        self._records = records
        self._recording: CudaGraph | None = None

    def takes(self, shapes: Shapes) -> bool:
        """Returns whether every input's shape lies within the profile's bounds."""
        return all(
            len(shapes[name]) == len(low)
            and all(least <= size <= most for least, size, most in zip(low, shapes[name], high, strict=True))
            for name, (low, high) in self._bounds.items()
        )

    def ranges(self) -> str:
        """Returns the bounds in words, without the caches', which are many and alike."""
        return ", ".join(
            f"{name} {list(low)} to {list(high)}"
            for name, (low, high) in self._bounds.items() if not name.startswith("past_")
        )  # fmt: skip

    def set_shapes(self, shapes: Shapes) -> None:
        """Tells TensorRT the inputs' shapes, where they changed."""
        if shapes == self._shapes:
            return
        self._shapes, self._addresses, self._recording = {}, {}, None  # a recording is of one set of shapes
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise CudaError(f"TensorRT refuses shape {shape} of {name}: {self._logger.explain()}")
        unknown = self._context.infer_shapes()
        if unknown:
            raise CudaError(f"TensorRT cannot work out shapes without {', '.join(unknown)}")
        self._shapes = dict(shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape, once those of the inputs are set."""
        return tuple(self._context.get_tensor_shape(name))

    def run(self, addresses: dict[str, int]) -> None:
        """Gives the work to the stream: as a recording where shapes and addresses are those of the run before."""
        if addresses == self._addresses and self._recording is not None:
            self._stream.replay(self._recording)
            return
        repeats = addresses == self._addresses
        self._recording = None
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise CudaError(f"TensorRT refuses the memory of {name}: {self._logger.explain()}")
        # The first run after a change of shapes prepares things that cannot be recorded, so only a second one is.
        if repeats and self._records:
            self._recording = self._stream.capture(self._enqueue)
            if self._recording is not None:
                self._stream.replay(self._recording)
                return
            _log.info(
                "TensorRT's work cannot be recorded as a CUDA graph (%s); it is launched each time",
                self._logger.explain(),
            )
            self._records = False
        if not self._enqueue():
            raise CudaError(f"TensorRT failed to run: {self._logger.explain()}")
        self._addresses = dict(addresses)

    def _enqueue(self) -> bool:
        return self._context.execute_async_v3(self._stream.handle)


def refit(engine: trt.ICudaEngine, weights: Path, logger: Logger) -> None:
    """Puts an ONNX graph's weights into an engine.

    Raises:
        LegoError: The engine was built for other weights, of another architecture, or not to be refitted.
    """
    if not engine.refittable:
        raise LegoError(f"the plan takes no weights of {weights}: it was built with --refit none; rebuild it")
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(weights)):
        problems = [parser.get_error(index).desc() for index in range(parser.num_errors)] or [logger.explain()]
        raise LegoError(f"the weights of {weights} do not fit the plan ({'; '.join(problems)}): rebuild it")
    missing = refitter.get_missing_weights()
    if missing:
        raise LegoError(f"{weights} lacks weights that the plan wants, such as {missing[0]}: rebuild it")
    if not refitter.refit_cuda_engine():
        raise LegoError(f"TensorRT cannot put the weights of {weights} into the plan ({logger.explain()}): rebuild it")


def _own(value: NDArray[Any]) -> NDArray[Any]:
    """Returns a copy that outlives the staging memory, half precision widened."""
    return value.astype(np.float32) if value.dtype == np.float16 else value.copy()
