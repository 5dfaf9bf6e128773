"""Engines: everything that runs the network. `load_engine` is the way in."""

from __future__ import annotations

import os
from pathlib import Path

from lego_core.errors import LegoError

from lego_server.engines.base import Engine


def load_engine(directory: Path, device: str = "cpu", threads: int = 0, max_batch: int = 1, lanes: int = 1) -> Engine:
    """Loads an engine directory and checks all of it but the values of its weights (`lego-export verify` does that).

    Args:
        directory: Written by `lego-export build`.
        device: One of `lego_server.engines.devices.DEVICES`.
        threads: CPU threads within one graph; 0 lets the runtime choose.
        max_batch: Most requests that will be given to one call; TensorRT wants to know before.
        lanes: Calls that will be made at the same time, between which the threads are divided; CPUs only.

    Raises:
        LegoError: The directory is incomplete, a graph of it is altered, its format is not this software's, or the
            device is not there.
    """
    # Imported here: onnxruntime takes a second to import, and `--help` need not wait for it.
    from lego_server.engines.devices import CPU_DEVICES
    from lego_server.engines.graph_engine import GraphEngine

    if lanes > 1:
        if device not in CPU_DEVICES:
            raise LegoError(f"lanes is {lanes}; device {device} makes one call at a time: leave it at 1")
        threads = max(1, (threads or len(os.sched_getaffinity(0))) // lanes)
    return GraphEngine.load(directory, device, threads, max_batch, lanes)
