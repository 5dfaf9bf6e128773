"""What an engine asks of one graph, whatever runs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

_NO_MEMORY = ("bad_alloc", "bad allocation", "Cannot allocate memory", "out of memory", "Failed to allocate memory")


class KeptTensor(Protocol):
    """A tensor that stays on a graph's device; only the graph that made it can be fed with it."""

    def numpy(self) -> NDArray[Any]:
        """Returns a copy in host memory."""


class Graph(Protocol):
    """A graph that takes and gives NumPy arrays, or keeps outputs on its device."""

    name: str

    def inputs(self) -> dict[str, tuple[object, ...]]:
        """Returns the shape of each input; a dynamic dimension is no whole number above -1."""

    def outputs(self) -> dict[str, tuple[object, ...]]:
        """Returns the shape of each output, likewise."""

    def dtype(self, name: str) -> np.dtype[Any]:
        """Returns the dtype of an input."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph on arrays of any float type; half-precision outputs come back as float32."""

    def run_keeping(
        self, feeds: Mapping[str, NDArray[Any]], kept: Mapping[str, KeptTensor], keep: Collection[str]
    ) -> tuple[dict[str, NDArray[Any]], dict[str, KeptTensor]]:
        """Runs the graph with some tensors never leaving the device.

        Args:
            feeds: Inputs as arrays.
            kept: Further inputs, kept from an earlier run.
            keep: Outputs to keep.

        Returns:
            The other outputs as arrays, and the kept ones.
        """

    def place(self, name: str, value: NDArray[Any]) -> KeptTensor:
        """Puts an array where an input can be fed from without copying."""


def refuse_if_out_of_memory(path: Path, error: Exception) -> None:
    """Tells want of memory from a broken file, which runtimes say in words only.

    Raises:
        LegoError: There was not enough memory to load the graph.
    """
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        raise LegoError(
            f"there is not enough memory to load {path.name}: close other programs, raise the limit (ulimit -v, the "
            "container's), or use a machine with more"
        ) from error
