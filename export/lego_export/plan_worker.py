"""What builds TensorRT plans, in a process of its own: `python -m lego_export.plan_worker`, see `worker.py`.

One job is one graph: afterwards the process ends, and with it go all memory of the GPU and whatever the builder left.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lego_core.errors import LegoError
from lego_core.files import write_whole
from lego_core.manifest import GraphSpec, TensorSpec
from lego_core.plans import Machine, Profile, read_profiles
from lego_server.engines.tensorrt_library import require_tensorrt

from lego_export.worker import Watch, answer_job

if TYPE_CHECKING:
    import tensorrt as trt
    from lego_server.engines.tensorrt_graph import Logger

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64", "INT32": "int32"}
# As TensorRT's inspector says them: in a format's description up to version 10, in a word of its own from 11 on.
_TYPE_WORDS = {
    "fp32": "float32", "float": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16",
    "bfloat16": "bfloat16", "int64": "int64", "int32": "int32", "int8": "int8", "fp8": "fp8", "bool": "bool",
}  # fmt: skip


def work(job: Mapping[str, Any], watch: Watch) -> Mapping[str, Any]:
    """Does a job of kind "probe", "build" or "refit"; see `lego_export.plans`, which gives them.

    Raises:
        LegoError: TensorRT or the GPU is absent, or TensorRT refuses; the message says what to do.
    """
    version = require_tensorrt()
    from lego_server.engines.cuda import read_machine

    machine = read_machine(version)
    match job["kind"]:
        case "probe":
            return {"machine": asdict(machine)}
        case "build":
            return _build(job, machine, watch)
        case "refit":
            return _refit(job)
        case kind:
            raise AssertionError(kind)


def count_types(information: str) -> dict[str, int]:
    """Counts a plan's layers by the data type they write, in what `EngineInspector.get_engine_information` says.

    Args:
        information: JSON, of a plan built with detailed profiling verbosity.

    Returns:
        Data type to layers, the most frequent first; a layer that writes several counts by its first.
    """
    counts: Counter[str] = Counter()
    for layer in json.loads(information).get("Layers", []):
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        if outputs:
            told = " ".join(str(value) for key, value in outputs[0].items() if re.search("format|type", key, re.I))
            words = [word for word in re.findall(r"[a-z0-9]+", told.lower()) if word in _TYPE_WORDS]
            counts[_TYPE_WORDS[words[0]] if words else "unknown"] += 1
    return dict(counts.most_common())


def precision_note(wanted: str, layers: Mapping[str, int]) -> str:
    """Returns a sentence if no layer of a plan writes the type its graph computes in, else nothing.

    It is no error: where TensorRT fuses a whole network into one layer, that layer's output says little.
    """
    known = {dtype: count for dtype, count in layers.items() if dtype != "unknown"}
    if not known or wanted in known:
        return ""
    found = ", ".join(f"{count} in {dtype}" for dtype, count in known.items())
    return f"the graph computes in {wanted}, but TensorRT reports no such layer of its plan ({found})"


def _build(job: Mapping[str, Any], machine: Machine, watch: Watch) -> Mapping[str, Any]:
    import tensorrt as trt
    from lego_server.engines.tensorrt_graph import Logger

    graph, source, target = job["graph"], Path(job["source"]), Path(job["target"])
    profiles, spec = read_profiles(job["profiles"]), _read_spec(job["spec"])
    began, logger = time.monotonic(), Logger()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # what pybind11 says of a constructor that gave nothing
        raise LegoError(f"TensorRT cannot start on {machine.gpu} ({logger.explain()}): check the driver") from error
    # Version 11 knows no other networks and ignores the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise LegoError(_unsupported(graph, parser, machine))
    wanted = _computed_in(network)
    config = builder.create_builder_config()
    config.builder_optimization_level = job["level"]
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Kept in a variable: TensorRT holds no reference of its own.
    config.progress_monitor = monitor = _monitor(watch)
    if job["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace"])
    for flag in _refit_flags(job["refit"]):
        config.set_flag(flag)
    _use_timing_cache(config, Path(job["timing_cache"]))
    for profile in profiles:
        _add_profile(builder, config, graph, profile, spec)
    plan = builder.build_serialized_network(network, config)
    del monitor
    if plan is None:
        raise LegoError(_failure(graph, logger))
    cache = config.get_timing_cache()
    if cache is not None:
        write_whole(Path(job["timing_cache"]), memoryview(cache.serialize()))
    write_whole(target, memoryview(plan))
    del plan, config, parser, network, builder  # their memory is needed to look at the plan
    layers = _inspect(graph, target, spec, logger)
    seconds = time.monotonic() - began
    return {
        "layers": layers, "computes_in": wanted, "note": precision_note(wanted, layers), "seconds": round(seconds, 1),
        "error": _compare(job, target),
    }  # fmt: skip


def _refit(job: Mapping[str, Any]) -> Mapping[str, Any]:
    import tensorrt as trt
    from lego_server.engines.tensorrt_graph import Logger, refit

    began, logger, plan = time.monotonic(), Logger(), Path(job["plan"])
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise LegoError(f"TensorRT cannot load {plan} ({logger.explain()}): rebuild it with lego-export plans")
    refit(engine, Path(job["source"]), logger)
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    # So that the plan can be refitted a second time; TensorRT before 10.14 has no such flag.
    if hasattr(trt.SerializationFlag, "INCLUDE_REFIT"):
        config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
    write_whole(Path(job["target"]), memoryview(engine.serialize_with_config(config)))
    del engine
    seconds = time.monotonic() - began
    return {"seconds": round(seconds, 1), "error": _compare(job, Path(job["target"]))}


def _read_spec(values: Mapping[str, Any]) -> GraphSpec:
    inputs, outputs = (tuple(TensorSpec(**tensor) for tensor in values[side]) for side in ("inputs", "outputs"))
    return GraphSpec(values["file"], values["sha256"], inputs, outputs)


def _unsupported(graph: str, parser: trt.OnnxParser, machine: Machine) -> str:
    problems = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        at = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
        problems.append(at + " ".join(error.desc().split()))
    return (
        f"TensorRT {machine.tensorrt} cannot read graph {graph} ({'; '.join(problems) or 'it gives no reason'}): use a "
        "newer TensorRT, or --device cuda of lego-server, which runs the graph itself"
    )


def _computed_in(network: trt.INetworkDefinition) -> str:
    """Returns the data type of most convolutions and matrix products: types are the graph's own."""
    import tensorrt as trt

    heavy = (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    counts = Counter(layer.get_output(0).dtype.name for layer in layers if layer.type in heavy)
    if not counts:  # a table of embeddings: the type it gives out
        counts = Counter(layer.get_output(0).dtype.name for layer in layers[-1:])
    name = counts.most_common(1)[0][0]
    return _DTYPES.get(name, name.lower())


def _refit_flags(refit: str) -> Sequence[trt.BuilderFlag]:
    import tensorrt as trt

    if refit == "identical":
        return (trt.BuilderFlag.STRIP_PLAN, trt.BuilderFlag.REFIT_IDENTICAL)
    return (trt.BuilderFlag.REFIT,) if refit == "any" else ()


def _use_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    content = path.read_bytes() if path.is_file() else b""
    # One of another GPU or version is refused; then a new one is begun and takes its place.
    if not config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _add_profile(
    builder: trt.Builder, config: trt.IBuilderConfig, graph: str, profile: Profile, spec: GraphSpec
) -> None:
    chosen = builder.create_optimization_profile()
    for tensor in spec.inputs:
        chosen.set_shape(tensor.name, *profile.shapes(graph, tensor))
    if config.add_optimization_profile(chosen) < 0:
        raise LegoError(
            f"TensorRT refuses profile {profile.name} of graph {graph}: give other sizes to lego-export plans"
        )


def _failure(graph: str, logger: Logger) -> str:
    reason = logger.explain()
    if re.search("out of memory|outofmemory|memory allocation|insufficient memory", " ".join(logger.errors), re.I):
        return (
            f"the GPU's memory does not suffice to build graph {graph} ({reason}): end other programs on it, give "
            "smaller sizes or a smaller --workspace, or use a GPU with more"
        )
    return f"TensorRT cannot build graph {graph} ({reason}): try --level 2, or another version of TensorRT"


def _inspect(graph: str, plan: Path, spec: GraphSpec, logger: Logger) -> dict[str, int]:
    """Checks the types of a plan's inputs and outputs; returns its layers by type."""
    import tensorrt as trt

    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise LegoError(f"TensorRT cannot load the plan of {graph} it has just built ({logger.explain()})")
    for tensor in (*spec.inputs, *spec.outputs):
        dtype = engine.get_tensor_dtype(tensor.name).name
        if _DTYPES.get(dtype) != tensor.dtype:
            raise LegoError(
                f"the plan of graph {graph} has {tensor.name} as {dtype}, the manifest as {tensor.dtype}: rebuild the "
                "engine directory with lego-export build"
            )
    return count_types(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def _compare(job: Mapping[str, Any], plan: Path) -> float | None:
    """Returns the plan's largest error against onnxruntime on the CPU, or None if nobody asked."""
    if not job["compare"]:
        return None
    from lego_export.plan_parity import compare_plan

    weights = Path(job["source"]) if job["refit"] == "identical" else None
    profiles = read_profiles(job["profiles"])
    return compare_plan(job["graph"], plan, Path(job["source"]), weights, _read_spec(job["spec"]), profiles)


def _monitor(watch: Watch) -> trt.IProgressMonitor:
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        """Passes on the steps of the outermost phases; TensorRT calls it from several threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                if parent_phase is None:
                    self._steps[phase_name] = num_steps
                    watch({"phase": phase_name, "done": 0, "total": num_steps})

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._steps:
                    watch({"phase": phase_name, "done": step + 1, "total": self._steps[phase_name]})
            return True

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._steps.pop(phase_name, None)

    return Monitor()


if __name__ == "__main__":
    answer_job(work)
