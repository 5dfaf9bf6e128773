"""What a `--device` is: which runtime opens an engine directory's graphs, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_core.plans import Plans, Profile, find_plans

from lego_server.engines.graph import Graph
from lego_server.engines.onnx_graph import PROVIDERS, OnnxGraph, require_providers
from lego_server.engines.openvino_graph import OPENVINO_DEVICES, OpenVINOGraph, require_openvino
from lego_server.engines.profiles import Sizes, serving_profiles
from lego_server.engines.provider_options import provider_options

PLANS_DEVICE = "tensorrt-plans"
DEVICES = (*PROVIDERS, PLANS_DEVICE, *OPENVINO_DEVICES)
CPU_DEVICES = ("cpu", *OPENVINO_DEVICES)

OpenGraph = Callable[[str], Graph]


def require_device(device: str) -> None:
    """Checks that a device is there, which is known sooner than whether an engine directory is whole.

    Raises:
        LegoError: It is unknown, or what runs it is not installed.
    """
    if device not in DEVICES:
        raise LegoError(f"device is {device!r}; choose one of {', '.join(DEVICES)}")
    if device in OPENVINO_DEVICES:
        require_openvino(device)
        return
    if device != PLANS_DEVICE:
        require_providers(device)
        return
    # Imported here and below: both libraries are an extra that few servers have.
    from lego_server.engines.tensorrt_library import require_tensorrt

    version = require_tensorrt()
    from lego_server.engines.cuda import read_machine

    read_machine(version)


def open_graphs(
    directory: Path, manifest: Manifest, device: str, threads: int, max_batch: int, lanes: int = 1
) -> OpenGraph:
    """Returns what opens the graphs of an engine directory by name; it raises `LegoError` for one that is refused.

    Args:
        directory: The engine directory.
        manifest: Its manifest.
        device: One of `DEVICES`, there according to `require_device`.
        threads: CPU threads within one graph; 0 lets the runtime choose.
        max_batch: Most queries in one engine call.
        lanes: Calls at the same time.

    Raises:
        LegoError: There are no plans for this machine, or only for smaller batches.
    """
    if device == PLANS_DEVICE:
        return _open_plans(directory, manifest, max_batch)
    if device in OPENVINO_DEVICES:
        return lambda name: OpenVINOGraph(name, directory / manifest.graphs[name].file, device, threads, lanes)
    providers = require_providers(device)

    def open_graph(name: str) -> Graph:
        options = provider_options(providers, name, manifest, directory, max_batch)
        return OnnxGraph(name, directory / manifest.graphs[name].file, device, threads, options)

    return open_graph


def _open_plans(directory: Path, manifest: Manifest, max_batch: int) -> OpenGraph:
    from lego_server.engines.cuda import Stream, read_machine
    from lego_server.engines.tensorrt_graph import TensorRTGraph
    from lego_server.engines.tensorrt_library import require_tensorrt

    folder, plans = find_plans(directory, read_machine(require_tensorrt()), manifest)
    check_batch(folder, plans, manifest, max_batch)
    stream = Stream()

    def open_graph(name: str) -> Graph:
        plan = plans.plans[name]
        weights = directory / manifest.graphs[name].file if plan.refit == "identical" else None
        return TensorRTGraph(name, folder / plan.file, stream, weights=weights)

    return open_graph


def check_batch(folder: Path, plans: Plans, manifest: Manifest, max_batch: int) -> None:
    """Checks that plans take the largest batch a server may form, so that no query fails in the middle.

    Raises:
        LegoError: One does not.
    """
    for name in manifest.graph_names:
        wanted = _largest_batch(serving_profiles(name, manifest, Sizes(batch=max_batch)))
        largest = _largest_batch(plans.plans[name].profiles)
        if largest < wanted:
            raise LegoError(
                f"{folder / plans.plans[name].file} takes batches up to {largest}, --max-batch {max_batch} needs "
                f"{wanted}: lower it, or rebuild with lego-export plans --max-batch {max_batch}"
            )


def _largest_batch(profiles: Iterable[Profile]) -> int:
    return max(profile.sizes["batch"].max for profile in profiles)
