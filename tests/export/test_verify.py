"""Engines are compared with torch as the server drives them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from lego_core.config import GUIDED_SAMPLERS, GuidanceDefaults, Sampler
from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_export.cli import main
from lego_export.compare import column_names
from lego_export.inspect import count_flops, inspect_engines, peak_activation_bytes
from lego_export.parity import Parity
from lego_export.precision import typed
from lego_export.samples import QUERIES, synthetic_frame
from lego_export.verify import (
    REUSING,
    FrameResult,
    GraphResult,
    Verification,
    answer_with_engine,
    compared_samplings,
    psnr,
    verify_engines,
)
from lego_model.checkpoint import LegoCheckpoint
from lego_model.describe import describe
from lego_model.pipeline import LegoPipeline
from lego_server.engines import load_engine
from lego_server.options import SamplingOptions


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["lego-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_engines_describe_and_paint_what_torch_does(built) -> None:
    frames = [synthetic_frame(1), synthetic_frame(2, width=200, height=300)]
    verification = verify_engines(built.engines, built.checkpoint, frames, batches=(1, 2), threads=1)
    assert verification.failures == []
    assert len(verification.graphs) == 2 * len(Manifest.load(built.engines).graph_names)
    assert {result.sampling for result in verification.frames} >= {"euler", "distilled", REUSING}
    for result in verification.frames:
        assert result.description == result.reference
        assert result.psnr > 60


def test_engines_built_in_place_are_as_good(in_place: Path) -> None:
    verification = verify_engines(in_place, in_place, [synthetic_frame(1)], batches=(1,), threads=1)
    assert verification.failures == []


def test_verify_writes_its_figures(built, tmp_path: Path, monkeypatch, capsys) -> None:
    report = tmp_path / "report.json"
    assert run(monkeypatch, "verify", built.engines, "--checkpoint", built.checkpoint, "--json", report) == 0
    figures = json.loads(report.read_text())
    assert figures["failures"] == []
    assert {entry["graph"] for entry in figures["graphs"]} == set(built.manifest.graphs)
    assert all(entry["descriptions_equal"] for entry in figures["end_to_end"])
    assert "unet" in capsys.readouterr().out


def test_a_report_of_broken_graphs_and_equal_pictures_is_valid_json(tmp_path: Path) -> None:
    broken = GraphResult("unet", 1, Parity(float("inf"), float("inf"), 1.0), tolerance=1e-3)
    equal = FrameResult(0, "how?", "euler", 1, "so", "so", float("inf"), least_psnr=50)
    verification = Verification("tiny", "fp32", (broken,), (equal,))
    verification.save(tmp_path / "deep" / "report.json")
    report = json.loads((tmp_path / "deep" / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["graphs"][0]["max_abs_error"] is None
    assert report["end_to_end"][0]["psnr_db"] is None
    assert len(report["failures"]) == 1 and "graph unet" in report["failures"][0]


def test_verify_fails_and_says_which_graph_when_its_weights_are_wrong(
    built, tmp_path: Path, monkeypatch, capsys
) -> None:
    engines = tmp_path / "engines"
    shutil.copytree(built.engines, engines)
    weights = engines / "conditioner/diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    values = np.frombuffer(content[header:], np.float16) * np.float16(1.5)
    weights.write_bytes(content[:header] + values.tobytes())
    # An altered file is refused by its checksum; these engines are as they were built, and built wrongly.
    manifest = Manifest.load(engines)
    sums = {
        **manifest.files,
        "conditioner/diffusion_pytorch_model.safetensors": sha256(weights.read_bytes()).hexdigest(),
    }
    replace(manifest, files=sums).save(engines)
    assert run(monkeypatch, "verify", engines, "--checkpoint", built.checkpoint, "--steps", 1) == 1
    errors = capsys.readouterr().err
    assert "failed: graph conditioner at batch 1" in errors
    assert "graph unet" not in errors


def test_engines_of_another_checkpoint_are_refused(built, tmp_path: Path) -> None:
    shutil.copytree(built.checkpoint, tmp_path / "retrained")
    config = tmp_path / "retrained/lego.json"
    config.write_text(config.read_text().replace('"tiny"', '"retrained"'))
    with pytest.raises(LegoError, match=r"another checkpoint .*: rebuild"):
        verify_engines(built.engines, tmp_path / "retrained", [synthetic_frame(1)])


def test_a_missing_checkpoint_argument_is_asked_for(built, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "verify", built.engines) == 2
    assert "--checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_directory_without_engines_is_one_line_and_exit_code_2(
    command: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    assert run(monkeypatch, command, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "no manifest.json" in error


def test_build_of_no_checkpoint_is_one_line_and_exit_code_2(tmp_path: Path, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "build", tmp_path / "nothing", tmp_path / "engines") == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--checkpoint", "{engines}"), "is not a LEGO checkpoint directory"),
        (("--checkpoint", "{checkpoint}", "--out", "grid.xyz"), "grid.xyz is to be a picture; give it a name that"),
        (("--checkpoint", "{checkpoint}", "--query", "how?"), "there are 2 frames and 1 queries"),
    ],
)
def test_compare_says_at_once_what_it_cannot_do(
    built, tmp_path: Path, monkeypatch, capsys, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [word.format(engines=built.engines, checkpoint=built.checkpoint) for word in words]
    assert run(monkeypatch, "compare", built.engines, *filled) == 2
    assert told in capsys.readouterr().err


def test_engine_directories_of_one_name_are_compared_under_their_paths() -> None:
    places = [Path("a/fp16"), Path("b/fp16"), Path("b/int8")]
    assert column_names(places) == ["a/fp16", "b/fp16", "int8"]


def test_a_graph_with_other_inputs_than_the_manifest_says_is_refused(built, tmp_path: Path) -> None:
    engines = Path(shutil.copytree(built.engines, tmp_path / "engines"))
    unet = built.manifest.graphs["unet"]
    renamed = replace(unet, inputs=(replace(unet.inputs[0], name="noise"), *unet.inputs[1:]))
    replace(built.manifest, graphs={**built.manifest.graphs, "unet": renamed}).save(engines)
    with pytest.raises(LegoError, match=r"unet\.onnx has other inputs than its manifest says: rebuild"):
        inspect_engines(engines, run=False)


def test_inspect_shows_the_model_and_every_graph(built, monkeypatch, capsys) -> None:
    assert run(monkeypatch, "inspect", built.engines) == 0
    shown = capsys.readouterr().out
    assert built.manifest.model_version in shown
    assert all(f"│ {name} " in shown for name in built.manifest.graphs)


@pytest.mark.parametrize("own", ["euler_ancestral", "dpm_solver_pp"])
def test_the_models_own_sampler_is_compared_beside_euler(built, own: Sampler) -> None:
    manifest: Manifest = replace(
        built.manifest, lego=replace(built.manifest.lego, guidance=GuidanceDefaults(sampler=own))
    )
    assert list(compared_samplings(manifest)) == ["euler", own, "distilled", REUSING]
    samplings = compared_samplings(built.manifest)
    assert list(samplings) == ["euler", "distilled", REUSING]
    assert {name: each.cache_interval for name, each in samplings.items()} == {"euler": 1, "distilled": 1, REUSING: 2}


@pytest.mark.parametrize("sampler", GUIDED_SAMPLERS)
def test_every_sampler_paints_what_torch_paints_from_the_same_seed(built, modules, sampler: Sampler) -> None:
    engine, pipeline, frame = load_engine(built.engines, threads=1), LegoPipeline(modules), synthetic_frame(1)
    _, painted = answer_with_engine(engine, frame, QUERIES[0], SamplingOptions(5, 4, 2.0, 1.5, sampler))
    reference = pipeline.paint(
        pipeline.encode_frames([frame]), pipeline.context([describe(modules, pipeline.embed(frame), QUERIES[0])]), [5],
        steps=4, text_scale=2.0, image_scale=1.5, sampler=sampler,
    )  # fmt: skip
    assert psnr(reference[0].numpy(), painted) > 60


@pytest.mark.parametrize("cheaper", [{"cache_interval": 3}, {"guidance_interval": (0.3, 0.7), "cache_interval": 2}])
@pytest.mark.parametrize("sampler", GUIDED_SAMPLERS)
def test_steps_made_cheaper_paint_what_torch_paints_with_them(
    built, modules, sampler: Sampler, cheaper: dict[str, Any]
) -> None:
    engine, pipeline, frame = load_engine(built.engines, threads=1), LegoPipeline(modules), synthetic_frame(1)
    sampling = GuidanceDefaults(sampler, 7, 2.0, 1.5, **cheaper)
    words = describe(modules, pipeline.embed(frame), QUERIES[0])

    def paint(given: GuidanceDefaults) -> np.ndarray:
        return pipeline.paint(pipeline.encode_frames([frame]), pipeline.context([words]), [5], **asdict(given))[
            0
        ].numpy()

    _, painted = answer_with_engine(engine, frame, QUERIES[0], SamplingOptions(5, **asdict(sampling)))
    assert psnr(paint(sampling), painted) > 60
    assert psnr(paint(GuidanceDefaults(sampler, 7, 2.0, 1.5)), painted) < 60, "the options change the picture"


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_damaged_picture_is_named_in_one_line(built, tmp_path: Path, monkeypatch, capsys, content: bytes) -> None:
    picture = tmp_path / "frame.jpg"
    picture.write_bytes(content)
    assert run(monkeypatch, "verify", built.engines, "--checkpoint", built.checkpoint, "--frame", picture) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {picture}: ") and error.count("\n") == 1


def test_psnr_of_a_known_error() -> None:
    assert psnr(np.zeros((3, 4, 4)), np.full((3, 4, 4), 0.02)) == pytest.approx(40.0)
    assert psnr(np.ones(3), np.ones(3)) == float("inf")


def test_inspect_counts_operations_and_times_each_call(built, tmp_path: Path, monkeypatch, capsys) -> None:
    report = tmp_path / "costs.json"
    assert run(monkeypatch, "inspect", built.engines, "--run", "--threads", 1, "--tensors", "--json", report) == 0
    costs = {(each["graph"], each["call"]): each for each in json.loads(report.read_text())}

    assert {graph for graph, _ in costs} == set(built.manifest.graph_names)
    assert all(each["seconds"] > 0 and each["activation_bytes"] > 0 for each in costs.values())
    conditioner = LegoCheckpoint.load(built.checkpoint).conditioner
    weights = {name: weight.numel() for name, weight in conditioner.named_parameters() if weight.ndim == 2}
    lego = built.manifest.lego
    image = 2 * lego.image_tokens * weights["image_projection.weight"]
    counted = costs["conditioner", "queries"]["flops"]
    attention = 4 * lego.text_tokens**2 * conditioner.config.vllm_width
    rest = sum(weights.values()) - weights["image_projection.weight"]
    assert counted == image + 2 * lego.text_tokens * rest + attention
    assert "in  inputs_embeds float32" in capsys.readouterr().out


def test_a_convolution_has_two_operations_to_a_multiply_add() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 3, 8, 8] x, float[4, 3, 3, 3] w) => (float[1, 4, 6, 6] z) { y = Conv(x, w) z = Relu(y) }"""
    )
    model = typed(model)
    assert count_flops(model.graph) == 2 * 4 * 6 * 6 * 3 * 3 * 3
    # The inputs stay until they are used; then what is read and what is made are there together.
    assert peak_activation_bytes(model.graph) == 4 * (3 * 64 + 4 * 27 + 4 * 36)
