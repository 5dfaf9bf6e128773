"""An engine directory is whole, reproducible, and never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.manifest import CACHE_GRAPH, GRAPHS, STUDENT_GRAPHS, Manifest
from lego_export.build import _move_into_place, build_engines
from lego_model.checkpoint import checkpoint_files, fingerprint
from safetensors import SafetensorError

ALL_GRAPHS = (*GRAPHS, CACHE_GRAPH, *STUDENT_GRAPHS)


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_a_checkpoint_without_all_blocks_of_the_context_is_refused(built, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(built.checkpoint, tmp_path / "label"))
    replace(LegoConfig.load(copy), conditioning="label").save(copy)

    with pytest.raises(LegoError, match=r"is conditioned on 'label', .* train it with diffusion\.conditioning=joint"):
        build_engines(copy, tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_manifest_describes_the_files(built) -> None:
    manifest = Manifest.load(built.engines)
    assert manifest == built.manifest
    for name in ALL_GRAPHS:
        content = (built.engines / manifest.graphs[name].file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == manifest.graphs[name].sha256


def test_manifest_names_the_checkpoint_and_how_it_was_built(built) -> None:
    assert built.manifest.checkpoint_fingerprint == fingerprint(built.checkpoint)
    assert built.manifest.precision == "fp16 weights, fp32 activations"
    assert built.manifest.schedule.prediction_type == "v_prediction"
    assert set(built.manifest.tool_versions) >= {"torch", "onnx", "onnxruntime"}
    for name in ALL_GRAPHS:
        figures = built.manifest.parity[name]
        assert figures["max_abs_error"] <= 1e-3 * figures["max_abs_value"]


def test_graphs_are_small(built) -> None:
    assert sum((built.engines / f"{name}.onnx").stat().st_size for name in ALL_GRAPHS) < 420_000


def test_graphs_carry_no_stack_traces_or_paths(built) -> None:
    for name in ALL_GRAPHS:
        content = (built.engines / f"{name}.onnx").read_bytes()
        assert b".py" not in content and b"site-packages" not in content


def test_building_again_gives_the_same_bytes(built, in_place: Path) -> None:
    for name in ("manifest.json", *(f"{graph}.onnx" for graph in ALL_GRAPHS)):
        assert (in_place / name).read_bytes() == (built.engines / name).read_bytes()


def test_building_in_place_stores_no_weight_twice(built, in_place: Path) -> None:
    added = set(contents(in_place)) - set(contents(built.checkpoint))
    assert added == {
        "manifest.json", "text_tokenizer.json", "vllm_tokenizer.json", *(f"{graph}.onnx" for graph in ALL_GRAPHS),
    }  # fmt: skip


def test_building_in_place_leaves_the_checkpoint_as_it_was(built, in_place: Path) -> None:
    assert fingerprint(in_place) == fingerprint(built.checkpoint)
    for file in checkpoint_files(built.checkpoint):
        assert (in_place / file.relative_to(built.checkpoint)).read_bytes() == file.read_bytes()


def test_an_interrupted_build_leaves_the_old_engines(built, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    shutil.copytree(built.engines, engines)
    before = contents(engines)
    with pytest.raises(KeyboardInterrupt):
        build_engines(built.checkpoint, engines, announce=_interrupt)
    assert contents(engines) == before
    assert sorted(os.listdir(engines)) == sorted(os.listdir(built.engines))


def test_an_interrupted_first_build_leaves_nothing(built, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_engines(built.checkpoint, tmp_path / "engines", announce=_interrupt)
    assert not (tmp_path / "engines").exists()


def test_a_directory_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="not a LEGO checkpoint directory"):
        build_engines(tmp_path, tmp_path / "engines")


def test_a_directory_with_other_files_is_refused(built, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(LegoError, match="files that are no engines"):
        build_engines(built.checkpoint, tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_another_checkpoint_is_never_overwritten(built, tmp_path: Path) -> None:
    shutil.copytree(built.checkpoint, tmp_path / "other")
    with pytest.raises(LegoError, match="another checkpoint"):
        build_engines(built.checkpoint, tmp_path / "other")


def test_another_precision_in_place_is_refused(built) -> None:
    with pytest.raises(LegoError, match="choose another directory"):
        build_engines(built.checkpoint, built.checkpoint, weights="fp32")


@pytest.mark.parametrize("changed", [{"beta_schedule": "linear"}, {"rescale_betas_zero_snr": True}])
def test_a_noise_schedule_that_the_server_does_not_know_is_refused(
    built, tmp_path: Path, changed: dict[str, object]
) -> None:
    checkpoint = Path(shutil.copytree(built.checkpoint, tmp_path / "checkpoint"))
    config = checkpoint / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    with pytest.raises(LegoError, match=r"noise schedule .* is not the one the server samples with"):
        build_engines(checkpoint, tmp_path / "engines")


def test_a_file_in_the_way_is_refused(built, tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("")
    with pytest.raises(LegoError, match="is a file"):
        build_engines(built.checkpoint, tmp_path / "engines")


def test_a_disk_without_room_is_known_before_anything_is_made(built, tmp_path: Path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(LegoError, match=r"take about 0\.00 GB and 0\.00 GB are free in .*: make room"):
        build_engines(built.checkpoint, tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_disk_that_fills_up_is_a_sentence_and_leaves_nothing(built, tmp_path: Path) -> None:
    def fill(graph: str) -> None:
        raise SafetensorError("I/O error: No space left on device")

    with pytest.raises(LegoError, match=r"cannot be made \(I/O error: No space left.*\): make room there, or"):
        build_engines(built.checkpoint, tmp_path / "engines", announce=fill)
    assert not (tmp_path / "engines").exists()


def test_what_only_the_engines_before_had_is_removed(built, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    shutil.copytree(built.engines, engines)
    (engines / "int8").mkdir()
    kept = engines / "notes.txt"
    for file in (engines / "int8" / "decoder.safetensors", engines / "vllm" / "model-2.safetensors", kept):
        file.write_bytes(b"of other engines")
    made = tmp_path / "made"
    shutil.copytree(built.engines, made)
    _move_into_place(made, engines, built.manifest, in_place=False)

    assert contents(engines) == {**contents(built.engines), "notes.txt": hashlib.sha256(kept.read_bytes()).hexdigest()}
    assert not (engines / "int8").exists()
    built.manifest.check_content(engines)


def _interrupt(graph: str) -> None:
    if graph == GRAPHS[1]:
        raise KeyboardInterrupt


def test_what_a_killed_build_has_left_is_no_obstacle_and_is_removed(built, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left, running = (engines / f".building-{each}-x" for each in (int(ended.stdout), os.getpid()))
    for folder in (left, running):
        folder.mkdir(parents=True)

    with pytest.raises(KeyboardInterrupt):
        build_engines(built.checkpoint, engines, announce=_interrupt)
    assert [folder.name for folder in engines.iterdir()] == [running.name], "another build's folder is left alone"
