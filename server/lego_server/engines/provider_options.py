"""What onnxruntime's TensorRT provider is told: where it keeps the engines it builds, and for which shapes.

Without a cache it would build every engine anew at every start, and without shapes a new one whenever a tensor is
larger than any before, which a decoder's cache is at every token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lego_core.manifest import Manifest
from lego_core.plans import PLANS_FOLDER

from lego_server.engines.onnx_graph import Provider
from lego_server.engines.profiles import Sizes, serving_profiles

_log = logging.getLogger(__name__)


def provider_options(
    providers: Sequence[str], graph: str, manifest: Manifest, directory: Path, max_batch: int
) -> list[Provider]:
    """Returns the providers of a graph with their options, as `onnxruntime.InferenceSession` takes them.

    Args:
        providers: In order.
        graph: The graph's name.
        manifest: The engine directory's.
        directory: The engine directory; built engines are kept in it.
        max_batch: Most queries in one engine call.
    """
    return [
        (provider, _tensorrt_options(graph, manifest, directory, max_batch))
        if provider == "TensorrtExecutionProvider" else provider
        for provider in providers
    ]  # fmt: skip


def _tensorrt_options(graph: str, manifest: Manifest, directory: Path, max_batch: int) -> dict[str, str]:
    bounds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for profile in serving_profiles(graph, manifest, Sizes(batch=max_batch)):
        for spec in manifest.graphs[graph].inputs:
            for texts, shape in zip(bounds, profile.shapes(graph, spec), strict=True):
                texts.append(f"{spec.name}:{'x'.join(map(str, shape))}")
    options = {
        f"trt_profile_{bound}_shapes": ",".join(texts)
        for bound, texts in zip(("min", "opt", "max"), bounds, strict=True)
    }
    # Its cache knows an engine by the graph alone, and graphs of one shape are equal whatever their weights are.
    folder = directory / PLANS_FOLDER / f"onnxruntime-{manifest.checkpoint_fingerprint[:12]}" / graph
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("%s cannot be made (%s): TensorRT builds its engines at every start", folder, error.strerror)
        return options
    return options | {
        "trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True", "trt_timing_cache_path": str(folder),
    }  # fmt: skip
