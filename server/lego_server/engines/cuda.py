"""The few CUDA calls that running a TensorRT plan needs, each checked: devices, a stream, memory, graphs.

`cuda.bindings` mirrors the C API: every call returns an error code and then its results. Nothing outside this module
sees that.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import runtime
from lego_core.errors import LegoError
from lego_core.plans import Machine
from numpy.typing import NDArray

_KEEP_ALL = ctypes.c_uint64(2**64 - 1)


class CudaError(RuntimeError):
    """A CUDA call failed while a graph was running."""


def read_machine(tensorrt: str) -> Machine:
    """Returns what plans are tied to, of the first GPU.

    Args:
        tensorrt: The installed TensorRT's version.

    Raises:
        LegoError: There is no GPU, or no driver for it.
    """
    error, *_ = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess:
        raise LegoError(
            f"no NVIDIA GPU can be used here ({_explain(error)}): check nvidia-smi, or choose a device that needs none"
        )
    properties = _call(runtime.cudaGetDeviceProperties, 0)
    driver = _call(runtime.cudaDriverGetVersion)
    return Machine(
        gpu=properties.name.decode().rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        tensorrt=tensorrt,
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
    )


class Stream:
    """One CUDA stream: everything given to it happens in order."""

    def __init__(self) -> None:
        """Opens it on the first GPU.

        Raises:
            CudaError: It cannot be.
        """
        _call(runtime.cudaSetDevice, 0)
        self._stream = _call(runtime.cudaStreamCreateWithFlags, runtime.cudaStreamNonBlocking)
        self.handle = int(self._stream)
        # A query's caches may be dropped by another thread; nothing of that may get into a recording.
        self._lock = threading.RLock()
        # Freed memory stays in the pool for the next allocation: a decoder allocates two caches a layer at every token.
        pool = _call(runtime.cudaDeviceGetDefaultMemPool, 0)
        threshold = runtime.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        _call(runtime.cudaMemPoolSetAttribute, pool, threshold, ctypes.addressof(_KEEP_ALL))

    def wait(self) -> None:
        """Blocks until everything given to the stream is done."""
        _call(runtime.cudaStreamSynchronize, self._stream)

    def allocate(self, size: int) -> int:
        """Returns the address of new device memory, valid for what the stream does from now on."""
        return int(_call(runtime.cudaMallocAsync, size, self._stream))

    def free(self, address: int) -> None:
        """Gives memory back after what the stream has been given so far; any thread may."""
        with self._lock:
            _call(runtime.cudaFreeAsync, address, self._stream)

    def upload(self, target: int, source: PinnedBuffer, size: int) -> None:
        """Copies host memory to the device."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _call(runtime.cudaMemcpyAsync, target, source.address, size, kind, self._stream)

    def download(self, target: PinnedBuffer, source: int, size: int) -> None:
        """Copies device memory to the host; the stream must be waited for before it is read."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call(runtime.cudaMemcpyAsync, target.address, source, size, kind, self._stream)

    def capture(self, work: Callable[[], bool]) -> CudaGraph | None:
        """Records what `work` gives to the stream, without doing it.

        Returns:
            The recording; None if `work` says that it failed or did what cannot be recorded.
        """
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        with self._lock:
            _call(runtime.cudaStreamBeginCapture, self._stream, mode)
            succeeded = work()
            error, graph = runtime.cudaStreamEndCapture(self._stream)
        if error != runtime.cudaError_t.cudaSuccess:
            return None
        if not succeeded:
            _call(runtime.cudaGraphDestroy, graph)
            return None
        recording = _call(runtime.cudaGraphInstantiate, graph, 0)
        _call(runtime.cudaGraphDestroy, graph)
        return CudaGraph(recording)

    def replay(self, graph: CudaGraph) -> None:
        """Does what was recorded."""
        _call(runtime.cudaGraphLaunch, graph.recording, self._stream)


class CudaGraph:
    """A recording of work; see `Stream.capture`."""

    def __init__(self, recording: object) -> None:
        """Takes what CUDA instantiated."""
        self.recording = recording

    def __del__(self) -> None:
        runtime.cudaGraphExecDestroy(self.recording)  # nobody is there to raise to


class DeviceBuffer:
    """Device memory that grows when more is needed and is given back when nobody holds it."""

    def __init__(self, stream: Stream, size: int = 1) -> None:
        """Allocates at least one byte: TensorRT wants an address for an empty tensor too."""
        self._stream = stream
        self.size = max(size, 1)
        self.address = stream.allocate(self.size)

    def reserve(self, size: int) -> None:
        """Makes room for `size` bytes; what was there is lost if there was less."""
        if size > self.size:
            self._stream.free(self.address)
            self.address = 0  # nothing to free should the next line fail
            self.address = self._stream.allocate(size)
            self.size = size

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self._stream.free(self.address)


class PinnedBuffer:
    """Host memory that the GPU reads and writes by itself; grows when more is needed."""

    def __init__(self) -> None:
        self.address = 0
        self._size = 0

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Returns the buffer's memory as an array, valid until the next call."""
        count = int(np.prod(shape, dtype=np.int64))
        size = count * dtype.itemsize
        if size > self._size:
            self._free()
            self.address = int(_call(runtime.cudaHostAlloc, size, runtime.cudaHostAllocDefault))
            self._size = size
        if not count:
            return np.empty(shape, dtype)
        memory = memoryview((ctypes.c_uint8 * size).from_address(self.address))
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def _free(self) -> None:
        if self.address:
            runtime.cudaFreeHost(self.address)
            self.address = self._size = 0

    def __del__(self) -> None:
        self._free()


def _call(function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
    """Returns a CUDA call's result.

    Raises:
        LegoError: The GPU's memory is full.
        CudaError: It failed otherwise.
    """
    error, *results = function(*arguments)
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise LegoError(
            "the GPU's memory is full: end other programs on it, or lower --max-active and --max-batch of the server"
        )
    if error != runtime.cudaError_t.cudaSuccess:
        raise CudaError(f"{function.__name__} failed: {_explain(error)}")
    return results[0] if results else None


def _explain(error: Any) -> str:
    _, text = runtime.cudaGetErrorString(error)
    return text.decode()
