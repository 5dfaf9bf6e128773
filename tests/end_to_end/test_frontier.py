"""The benchmark of latency and quality: what it compares is alike, what it wrote it can take up again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lego_core.config import GuidanceDefaults, LegoConfig, StudentConfig
from lego_core.errors import LegoError

from benchmarks.frontier.__main__ import main
from benchmarks.frontier.measure import Figures
from benchmarks.frontier.report import pareto
from benchmarks.frontier.samplings import default_samplings, name_of, parse_samplings, with_student_steps
from benchmarks.frontier.unet_step import time_steps

LEGO = LegoConfig(
    "any", guidance=GuidanceDefaults("dpm_solver_pp", 10), student=StudentConfig((999, 749, 499, 249), 7.5, 1.5)
)


def measure(model: Path, path: Path, **wishes: Any) -> dict[str, Any]:
    asked = {
        "sides": "torch,cpu", "samplings": "euler_ancestral:3,dpm_solver_pp:2", "rounds": 1, "scenes": 1, "threads": 1,
        "plot_file": None, "table": False, "full_size": False,
    }  # fmt: skip
    main(model=model, json_file=path, **asked | wishes)
    figures: dict[str, Any] = json.loads(path.read_text())
    return figures


def test_equal_noise_gives_equal_pictures_in_diffusers_and_onnxruntime(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"

    figures = measure(model, path)

    answers = figures["rounds"][0]["answers"]
    paper, other = figures["settings"]["samplings"]
    assert answers["torch"][paper]["psnr_db"] is None  # itself
    psnr = answers["cpu"][paper]["psnr_db"]
    assert psnr is None or psnr >= 45
    assert answers["cpu"][paper]["parity_db"] == psnr
    assert answers["cpu"][paper]["same_words"]
    assert answers["cpu"][other]["psnr_db"] < 45  # so that equality means something
    for row in figures["rows"]:
        seconds = [row[stage][1] for stage in ("description", "guidance", "whole")]
        assert min(seconds) > 0 and seconds[2] == pytest.approx(seconds[0] + seconds[1], abs=2e-4)
    assert [(row["side"], row["sampling"]) for row in figures["rows"]] == [
        (side, sampling) for side in ("torch", "cpu") for sampling in (paper, other)
    ]
    assert figures["rows"][0]["judged_on"] == "cpu" and figures["rows"][1]["judged_on"] == "torch"
    assert len({line.count("|") for line in path.with_suffix(".md").read_text().split("\n\n")[0].splitlines()}) == 1
    assert path.with_suffix(".png").stat().st_size > 1000


def test_a_run_goes_on_where_it_stopped(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, wishes = tmp_path / "figures.json", {"sides": "cpu", "samplings": "dpm_solver_pp:1"}
    before = measure(model, path, **wishes)

    after = measure(model, path, **wishes, rounds=2, scenes=2)

    assert after["rounds"][:1] == before["rounds"] and len(after["rounds"]) == 2
    assert after["scenes"][:1] == before["scenes"] and len(after["scenes"]) == 2
    table = path.with_suffix(".md").read_text()
    path.with_suffix(".md").unlink()
    measure(model, path, table=True)
    assert path.with_suffix(".md").read_text() == table
    with pytest.raises(SystemExit) as ended:
        measure(model, path, **wishes, threads=2)
    assert ended.value.code == 2
    assert "measured with threads 1, not 2" in capsys.readouterr().err


def test_a_file_of_something_else_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text('{"seconds": 1}')
    with pytest.raises(LegoError, match="holds no figures"):
        Figures.resume(path, {})
    assert path.read_text() == '{"seconds": 1}'


def test_the_table_has_the_papers_sampling_first_and_every_preset() -> None:
    rows = default_samplings(LEGO)
    assert (rows[0].sampler, rows[0].steps) == ("euler_ancestral", 100)
    assert len(set(rows)) == len(rows)
    names = [name_of(row, LEGO) for row in rows]
    for preset in ("faithful", "balanced", "fast"):
        assert sum(f"({preset})" in name for name in names) == 1
    assert "student, 1 step" in names
    assert name_of(replace(rows[0], text_scale=1.5), LEGO) == "Euler ancestral, 100 steps, text_scale 1.5"


def test_a_student_takes_fewer_of_its_steps() -> None:
    assert with_student_steps(LEGO, 2).student.timesteps == (999, 499)  # type: ignore[union-attr]
    assert with_student_steps(LEGO, 1).student.timesteps == (999,)  # type: ignore[union-attr]
    with pytest.raises(LegoError, match="distilled:3"):
        parse_samplings(LEGO, "distilled:3")
    with pytest.raises(LegoError, match="SAMPLER:STEPS"):
        parse_samplings(LEGO, "euler")


def test_the_frontier_leaves_out_what_is_slower_and_no_better() -> None:
    rows = [
        {"whole": [0, seconds, 0], "success": success}
        for seconds, success in ((4.0, 0.9), (1.0, 0.5), (2.0, 0.5), (3.0, 0.9))
    ]
    assert [row["whole"][1] for row in pareto([*rows, {"whole": [0, 0.1, 0]}])] == [1.0, 3.0]  # the last is not judged


def test_a_step_is_the_same_on_either_side(tmp_path: Path) -> None:
    tiny = Path(__file__).parents[1] / "export" / "tiny.yaml"
    table = time_steps(str(tiny), ("torch", "cpu"), rounds=1, threads=1, path=tmp_path / "step.json")
    figures = json.loads((tmp_path / "step.json").read_text())
    assert figures["sides"]["cpu"]["relative_error"] < 1e-4
    assert "onnxruntime" in table
    with pytest.raises(LegoError, match="tpu"):
        time_steps(str(tiny), ("torch", "tpu"), rounds=1, threads=1, path=tmp_path / "step.json")
