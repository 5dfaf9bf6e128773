"""Building TensorRT plans: what needs neither TensorRT nor a GPU, and a build where there are both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_core.plans import Machine, Plan, Plans, Profile, Range, find_plans
from lego_export.plan_parity import PLAN_TOLERANCE, largest_error, random_feeds
from lego_export.plan_worker import count_types, precision_note
from lego_export.plans import PlanOptions, build_plans, check_refittable, check_room, plan_bytes, probe, refit_plans
from lego_export.worker import Event, run_worker
from lego_server.engines import load_engine
from lego_server.engines.onnx_graph import OnnxGraph
from lego_server.engines.profiles import Sizes, serving_profiles
from lego_server.engines.tensorrt_library import check_version, require_tensorrt
from lego_server.texts import PromptTokens

from tests.export.conftest import Built
from tests.export.scripted_plan_worker import CRASH_AT, FAIL_AT, MACHINE

WORKER = "lego_export.plan_worker"
SCRIPTED = "tests.export.scripted_plan_worker"


def tensorrt_is_here() -> bool:
    try:
        require_tensorrt()
    except LegoError:
        return False
    return True


without_tensorrt = pytest.mark.skipif(tensorrt_is_here(), reason="TensorRT is installed here")


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "lego_export", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


# Profiles


def test_every_dynamic_dimension_of_a_built_engine_has_a_range(built: Built) -> None:
    for name, spec in built.manifest.graphs.items():
        for profile in serving_profiles(name, built.manifest, Sizes(batch=2)):
            for tensor in spec.inputs:
                low, usual, high = profile.shapes(name, tensor)
                assert all(a <= b <= c for a, b, c in zip(low, usual, high, strict=True))


def test_the_decoder_has_a_profile_for_prompts_and_one_for_steps(built: Built) -> None:
    sizes = Sizes(batch=4, query_tokens=40, description_tokens=50)
    prefill, step = serving_profiles("decoder", built.manifest, sizes)
    longest = built.manifest.lego.image_tokens + 40 + 128

    assert prefill.sizes["past"] == Range(0, 0, 0)
    assert prefill.sizes["tokens"].max == longest
    assert step.sizes["batch"] == Range(1, 1, 4) and step.sizes["tokens"] == Range(1, 1, 40 + 128)
    for profile in (prefill, step):
        for bound in ("min", "opt", "max"):
            past, tokens, total = (getattr(profile.sizes[name], bound) for name in ("past", "tokens", "total"))
            assert total == past + tokens
    assert serving_profiles("unet", built.manifest, sizes)[0].sizes["batch"] == Range(1, 3, 12)


@pytest.mark.parametrize(
    ("sizes", "told"), [({"batch": 0}, "batch"), ({"query_tokens": 0}, "query_tokens"), ({"batch": 257}, "batch")]
)
def test_bad_sizes_are_refused(sizes: dict[str, int], told: str) -> None:
    with pytest.raises(LegoError, match=told):
        Sizes(**sizes)


@pytest.mark.parametrize(("options", "told"), [({"level": 6}, "level"), ({"workspace_gb": 0.0}, "workspace_gb")])
def test_bad_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LegoError, match=told):
        PlanOptions(**options)


# The worker


@pytest.fixture(autouse=True)
def workers_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))


@pytest.fixture
def engines(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.engines, tmp_path / "engines"))


def test_a_killed_worker_is_a_sentence() -> None:
    with pytest.raises(LegoError, match=r"building the plan of unet ended by SIGKILL: .*ran out of memory"):
        run_worker(WORKER, {"kind": "probe"}, "building the plan of unet", started=lambda p: os.kill(p, signal.SIGKILL))


def test_a_crashed_worker_is_a_sentence_with_what_it_said_last(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CRASH_AT, "token_embedding")
    told = r"building the plan of token_embedding ended by SIGABRT \(.*cuda: a bad thing.*\): try again"
    with pytest.raises(LegoError, match=told):
        build_plans(engines, PlanOptions(), worker=SCRIPTED)


@without_tensorrt
@pytest.mark.parametrize("words", [("plans",), ("refit", "--plans-of", "elsewhere")])
def test_without_tensorrt_a_command_is_one_line_and_exit_code_2(built: Built, words: tuple[str, ...]) -> None:
    arguments = [word if word != "elsewhere" else built.engines for word in words]
    result = command(arguments[0], built.engines, *arguments[1:])

    assert result.returncode == 2
    assert result.stderr.strip().startswith("error: TensorRT cannot be used here (")
    assert "pip install 'lego-ar[tensorrt]'" in result.stderr
    assert not (built.engines / "plans").exists()


@without_tensorrt
def test_a_build_for_tensorrt_stops_before_the_graphs_are_made(built: Built, tmp_path: Path) -> None:
    result = command("build", built.checkpoint, tmp_path / "engines", "--target", "tensorrt")

    assert result.returncode == 2 and "TensorRT cannot be used here" in result.stderr
    assert not (tmp_path / "engines").exists()


def test_tensorrt_on_the_cpu_is_refused(built: Built, tmp_path: Path) -> None:
    result = command("build", built.checkpoint, tmp_path / "engines", "--target", "tensorrt", "--device", "cpu")

    assert result.returncode == 2 and "--device is cpu, and TensorRT runs on NVIDIA GPUs only" in result.stderr


def test_int8_for_tensorrt_is_refused(built: Built, tmp_path: Path) -> None:
    result = command("build", built.checkpoint, tmp_path / "engines", "--target", "tensorrt", "--precision", "int8")

    assert result.returncode == 2 and "TensorRT cannot read them: choose --precision fp16" in result.stderr


@pytest.mark.parametrize("version", ["8.6.1", "10.12.0.36", "12.0.0.1", "unknown"])
def test_an_unsupported_version_is_refused(version: str) -> None:
    with pytest.raises(LegoError, match=f"version.*{version}"):
        check_version(version)


@pytest.mark.parametrize("version", ["10.13.0.35", "11.4.0.106"])
def test_a_supported_version_is_not(version: str) -> None:
    check_version(version)


def test_an_empty_package_of_that_name_is_not_taken_for_tensorrt(tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    code = "from lego_server.engines.tensorrt_library import require_tensorrt; require_tensorrt()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)

    if tensorrt_is_here():
        pytest.skip("the real one comes first, as it has code")
    assert "an empty package of its name is in the way" in result.stderr


def test_the_progress_monitor_tells_of_outermost_phases_only() -> None:
    try:
        require_tensorrt()
    except LegoError as error:
        pytest.skip(str(error))
    from lego_export.plan_worker import _monitor

    events: list[Event] = []
    monitor = _monitor(events.append)
    monitor.phase_start("Building", None, 4)
    monitor.phase_start("Tactics", "Building", 9)
    assert monitor.step_complete("Tactics", 3) and monitor.step_complete("Building", 1)
    monitor.phase_finish("Building")

    assert [event["done"] for event in events] == [0, 2]


# What a plan is made of and where it goes


def test_plans_are_listed_with_their_graphs_profiles_and_machine(engines: Path) -> None:
    events: list[tuple[str, Event]] = []
    options = PlanOptions(Sizes(batch=2), refit="any")
    folder = build_plans(engines, options, lambda *event: events.append(event), worker=SCRIPTED).folder
    found, plans = find_plans(engines, MACHINE, Manifest.load(engines))

    assert found == folder == engines / "plans" / "sm90-trt11.4"
    assert list(plans.plans) == [graph for graph, _ in events] == list(Manifest.load(engines).graph_names)
    assert events[0][1]["phase"] == "building"
    assert [profile.name for profile in plans.plans["decoder"].profiles] == ["prefill", "step"]
    assert plans.plans["unet_student"].refit == "any"
    assert {path.name for path in folder.iterdir()} == {"plans.json", *(plan.file for plan in plans.plans.values())}


def test_a_build_that_fails_leaves_the_plans_of_before(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_plans(engines, PlanOptions(), worker=SCRIPTED).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setenv(FAIL_AT, "conditioner")
    with pytest.raises(LegoError, match="graph conditioner cannot be built"):
        build_plans(engines, PlanOptions(level=5), worker=SCRIPTED)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_only_plans_built_for_it_take_the_weights_of_an_equal_architecture(engines: Path, tmp_path: Path) -> None:
    newer = Path(shutil.copytree(engines, tmp_path / "newer"))
    build_plans(engines, PlanOptions(), worker=SCRIPTED)
    with pytest.raises(LegoError, match=r"built with --refit none .*lego-export plans --refit any"):
        refit_plans(newer, engines, worker=SCRIPTED)
    build_plans(engines, PlanOptions(refit="any"), worker=SCRIPTED)
    folder = refit_plans(newer, engines, worker=SCRIPTED).folder

    assert folder == newer / "plans" / MACHINE.folder
    assert find_plans(newer, MACHINE, Manifest.load(newer))[1].plans["unet"].refit == "any"


def test_another_architecture_is_told_from_its_tensors(built: Built) -> None:
    manifest = built.manifest
    plan = Plan("x.plan", "", "", (), "any", {}, None, 0.0)
    plans = Plans(MACHINE, "", dict.fromkeys(manifest.graph_names, plan))
    wider = replace(manifest.graphs["unet"], inputs=manifest.graphs["unet"].inputs[:-1])

    check_refittable(plans, manifest, manifest)
    with pytest.raises(LegoError, match="graph unet has other tensors"):
        check_refittable(plans, replace(manifest, graphs={**manifest.graphs, "unet": wider}), manifest)


def test_the_room_for_plans_is_that_of_the_weights_in_full_precision(built: Built) -> None:
    graph = onnx.load(built.engines / "unet.onnx", load_external_data=False).graph
    unet = sum(4 * int(np.prod(tensor.dims)) for tensor in graph.initializer)

    assert unet < plan_bytes(built.engines, built.manifest) < 20 * unet
    check_room(built.engines, 1000)
    with pytest.raises(LegoError, match=r"take about 1000000000.00 GB and .* GB are free .*--refit identical"):
        check_room(built.engines, 10**18)


# What TensorRT says of a plan


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ({"Name": "x", "Format/Datatype": "Row major linear FP32"}, "float32"),  # version 10
        ({"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "float16"),
        ({"Name": "x", "Format": "kLINEAR", "DataType": "Half"}, "float16"),  # version 11
        ({"Name": "x", "Format": "kLINEAR", "DataType": "BFloat16"}, "bfloat16"),
        ({"Name": "x", "DataType": "Int64"}, "int64"),
        ({"Name": "x"}, "unknown"),
    ],
)
def test_a_layer_counts_by_the_type_of_its_output(output: dict[str, str], told: str) -> None:
    information = json.dumps({"Layers": [{"Name": "a", "Outputs": [output]}, "only its name", {"Outputs": []}]})

    assert count_types(information) == {told: 1}


def test_a_graph_in_half_precision_whose_plan_is_not_gets_a_note() -> None:
    assert precision_note("float16", {"float32": 7}) == (
        "the graph computes in float16, but TensorRT reports no such layer of its plan (7 in float32)"
    )
    assert precision_note("float16", {"float32": 1, "float16": 6}) == ""
    assert precision_note("float16", {"unknown": 9}) == ""


def test_a_dropped_bias_is_found_and_an_equal_graph_is_not(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.engines, tmp_path / "copy")
    model = onnx.load(tmp_path / "copy/vae_decoder.onnx", load_external_data=False)
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    assert len(last.input) == 3
    last.input.pop()
    onnx.save(model, tmp_path / "copy/altered.onnx")
    spec, profiles = built.manifest.graphs["vae_decoder"], (Profile("queries", {"batch": Range(1, 2, 2)}),)
    graph, again, altered = (
        OnnxGraph("vae_decoder", tmp_path / "copy" / file, "cpu", 1, ["CPUExecutionProvider"])
        for file in ("vae_decoder.onnx", "vae_decoder.onnx", "altered.onnx")
    )

    assert largest_error(graph, again, "vae_decoder", spec, profiles) == 0
    assert largest_error(graph, altered, "vae_decoder", spec, profiles) > 1e-3


def test_random_inputs_make_every_graph_give_numbers(built: Built) -> None:
    sizes = Sizes(query_tokens=20, description_tokens=20)
    for name, spec in built.manifest.graphs.items():
        graph = OnnxGraph(name, built.engines / spec.file, "cpu", 1, ["CPUExecutionProvider"])
        for profile in serving_profiles(name, built.manifest, sizes):
            results = graph.run(random_feeds(name, spec, profile, seed=0))
            assert all(np.isfinite(value).all() for value in results.values())


# On a GPU

SMALL = Sizes(batch=2, query_tokens=40, description_tokens=40)


@pytest.fixture
def machine() -> Machine:
    try:
        return probe()
    except LegoError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
def test_plans_are_built_agree_with_their_graphs_and_take_new_weights(machine: Machine, engines: Path) -> None:
    built_plans = build_plans(engines, PlanOptions(SMALL, refit="any"))

    assert built_plans.plans.machine == machine
    assert all(plan.error is not None for plan in built_plans.plans.plans.values())
    assert (built_plans.folder / "timing.cache").stat().st_size > 0
    assert all(plan.refit == "any" for plan in refit_plans(engines, engines).plans.plans.values())


@pytest.mark.gpu
def test_plans_without_weights_are_smaller_and_agree_with_their_graphs(machine: Machine, engines: Path) -> None:
    unet = build_plans(engines, PlanOptions(SMALL)).folder / "unet.plan"
    size = unet.stat().st_size
    stripped = build_plans(engines, PlanOptions(SMALL, refit="identical"))

    assert unet.stat().st_size < size
    assert all(plan.error is not None for plan in stripped.plans.plans.values())


@pytest.mark.gpu
def test_a_server_answers_from_plans_as_from_its_graphs(machine: Machine, engines: Path) -> None:
    build_plans(engines, PlanOptions(SMALL))
    found, expected = (load_engine(engines, device, max_batch=2) for device in ("tensorrt-plans", "cpu"))
    lego, channels = found.manifest.lego, found.manifest.latent.channels
    side = lego.resolution // found.manifest.latent.factor
    generator = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32)

    pixels, vision = noise(3, lego.resolution, lego.resolution), noise(3, lego.vision.size, lego.vision.size)
    states, latents = noise(5, found.manifest.decoder.hidden_size), [noise(channels, side, side) for _ in range(2)]
    results = []
    for engine in (found, expected):
        frame = engine.encode_frames([pixels], [vision])[0]
        read = engine.prefill(frame, PromptTokens(before=(1, 4), after=(7, 9)))
        for token in (3, 5, 6):  # steps of one token, each with a longer cache
            read = engine.extend([read.cache], [[token]])[0]
        condition = engine.condition(frame, engine.texts.clip_ids("left hand"), states)
        # Three times, so that the last is a recording's replay.
        for _ in range(3):
            noises = engine.denoise(latents, [500.0, 20.0], [condition] * 2, ("conditional", "image_only", "null"))
        results.append([read.hidden_states, *noises, *engine.decode_latents(latents)])

    for value, reference in zip(*results, strict=True):
        assert np.abs(value - reference).max() <= PLAN_TOLERANCE * np.abs(reference).max()
    # What the server takes at most is what the plans take; one token more is refused in words.
    with pytest.raises(LegoError, match=r"graph token_embedding was asked for input_ids \[1, \d+\], its plan takes"):
        found.prefill(found.encode_frames([pixels], [vision])[0], PromptTokens((1,), (4,) * 10_000))
