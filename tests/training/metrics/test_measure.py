"""lego-train evaluate images: which pictures are judged, what is reported, and what goes on when something is wrong."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_training.cli import main
from lego_training.dataset import read_records
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.cache import FeatureCache
from lego_training.evaluation.metrics.measure import METRICS, choose_metrics, measure
from lego_training.evaluation.metrics.metric import mean_score
from lego_training.evaluation.metrics.samples import Sample, find_samples
from lego_training.evaluation.metrics.scores import MeanScore, holm, mcnemar, wilson
from PIL import Image

from tests.training.metrics.miniature import write_miniature


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_miniature(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def generated(data: Path, tmp_path: Path) -> Path:
    """Pictures of every record: its target, darkened."""
    folder = tmp_path / "generated"
    for record in read_records(data, "ego4d", "val"):
        path = folder.joinpath(*record.target_path.parts[-3:])
        path.parent.mkdir(parents=True)
        Image.open(record.target_path).point(lambda value: value * 0.9).save(path)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["lego-train", "evaluate", "images", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, data: Path, generated: Path, weights: Path, tmp_path: Path) -> Any:
    def command(*more: str | Path) -> dict[str, Any]:
        out = tmp_path / "metrics.json"
        places = ("--data", data, "--generated", generated, "--weights", weights, "--json", out)
        assert run(monkeypatch, "--dataset", "ego4d", *places, "--device", "cpu", "--resamples", "20", *more) == 0
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    return command


def test_every_metric_comes_in_both_modes_side_by_side(evaluate: Any, tmp_path: Path, capsys: Any) -> None:
    figures = evaluate()

    found = {(each["metric"], each["mode"]): each for each in figures["metrics"]}
    assert set(found) == {(name, mode) for name in METRICS for mode in ("published", "corrected")}
    without = {key: each["absent"] for key, each in found.items() if each["value"] is None}
    assert without == {("clip_text", "published"): "the published code does not compute it"}
    assert all(each["low"] <= each["value"] <= each["high"] for each in found.values() if each["value"] is not None)
    assert found["lpips_alex", "published"]["value"] != found["lpips_alex", "corrected"]["value"]
    assert figures["pictures"] == 4 and figures["skipped"] == [] and figures["resized"] == []
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["sample"] for row in rows] == ["val0/action_0", "val0/action_1", "val1/action_0", "val1/action_1"]
    mean = np.mean([float(row["psnr published"]) for row in rows])
    assert found["psnr", "published"]["value"] == pytest.approx(mean, rel=1e-5)
    assert "4 pictures" in (shown := capsys.readouterr().out) and "published" in shown and "corrected" in shown


def test_metrics_without_weights_are_absent_with_the_reason(
    evaluate: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()

    figures = evaluate("--weights", tmp_path / "empty", "--metrics", "psnr,clip", "--metrics", "egovlp")

    values = {(each["metric"], each["mode"]): each["value"] for each in figures["metrics"]}
    assert (
        values["psnr", "published"] is not None and values["clip", "published"] is values["egovlp", "corrected"] is None
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "absent: EgoVLP (published), EgoVLP (corrected): the weights egovlp-ego4d are absent: put egovlp.pth" in shown
    )
    assert "absent: CLIP (published), CLIP (corrected): the weights clip are absent" in shown


def test_faulty_pictures_are_named_and_the_others_judged(
    evaluate: Any, data: Path, generated: Path, capsys: Any
) -> None:
    write_miniature(data, val=8)
    truth = data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric"
    for clip, action in (("val2", "action_0"), ("val2", "action_1"), ("val3", "action_0")):
        shutil.copytree(truth / clip / action, generated / clip / action)
    (generated / "val0" / "action_0" / "frame_9.jpg").write_bytes(b"no picture")
    Image.new("RGB", (64, 64)).save(generated / "val0" / "action_1" / "frame_9.jpg")
    (truth / "val1" / "action_0" / "frame_9.jpg").unlink()
    shutil.rmtree(data / "EgoGen" / "ego4d.fho" / "val" / "val2" / "action_0")

    figures = evaluate("--metrics", "psnr")

    skipped = "\n".join(figures["skipped"])
    for told in (
        r"val0/action_0/frame_9.jpg: it cannot be read (",
        r"val0/action_1/frame_9.jpg: it is 64x64 and its target 100x64",
        r"val_gt_for_metric/val1/action_0/frame_9.jpg: the ground truth is missing",
        r"val2/action_0/frame_0.jpg: the input frame is missing",
        r"val3/action_1/frame_9.jpg: the generated picture is missing",
    ):  # fmt: skip
        assert told in skipped
    assert len(figures["skipped"]) == 5 and figures["pictures"] == 3
    said = capsys.readouterr().out
    assert all(f"skipped: {fault}\n" in said for fault in figures["skipped"])


def test_pictures_of_another_size_and_shape_alike_are_resized_and_named(evaluate: Any, generated: Path) -> None:
    path = generated / "val0" / "action_0" / "frame_9.jpg"
    Image.open(path).resize((200, 128)).save(path.with_suffix(".png"))
    path.unlink()

    figures = evaluate("--metrics", "psnr")

    (resized,) = figures["resized"]
    assert resized.endswith("val0/action_0/frame_9.png: it is 200x128 and its target 100x64")
    assert figures["pictures"] == 4


def test_nothing_to_judge_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "method" / "images").mkdir(parents=True)
    common = ("--data", data, "--dataset", "ego4d", "--json", tmp_path / "out.json")
    for folder, told in (
        ("nowhere", "is no folder; give the one"),
        ("empty", "has no picture of a record of ego4d_val"),
        ("method", f"paints into {tmp_path / 'method' / 'images'}, give that"),
    ):
        assert run(monkeypatch, *common, "--generated", tmp_path / folder) == 2
        assert told in capsys.readouterr().err
    for option, value, told in (
        ("--split", "test", "split is 'test'"), ("--text", "words", "text is 'words'"),
        ("--metrics", "fid,ssim", "there is no metric 'ssim'"), ("--device", "cuda:77", "cannot be used"),
    ):  # fmt: skip
        assert run(monkeypatch, *common, "--generated", data / "EgoGen" / "ego4d.fho" / "val", option, value) == 2
        assert told in capsys.readouterr().err


def test_words_that_are_missing_leave_the_other_metrics(data: Path, bench: Bench, generated: Path) -> None:
    index = data / "ego4d_val.json"
    index.write_text(index.read_text().replace("the right hand opens drawer", ""))
    samples, faults = find_samples(read_records(data, "ego4d", "val"), data, "ego4d", "val", generated)

    figures = measure(samples, faults, ["psnr", "clip_text"], bench, resamples=0)

    text = figures.find("clip_text", "corrected")
    assert text is not None and text.value is None
    assert "it failed: val0/action_0 has no description; curate the dataset first" in text.absent
    psnr = figures.find("psnr", "corrected")
    assert psnr is not None and psnr.value is not None and psnr.low is None


def test_values_that_are_no_numbers_are_left_out_by_name(samples: list[Sample]) -> None:
    score, faults = mean_score(samples, np.array([1.0, np.nan, 3.0]))

    assert score.value() == 2 and [fault.file for fault in faults] == [str(samples[1].generated)]
    with pytest.raises(LegoError, match="of 3 pictures none has a value"):
        mean_score(samples, np.full(3, np.nan))


def test_a_value_that_is_no_number_is_told_with_its_picture_on_the_screen_and_in_the_figures(
    evaluate: Any, data: Path, generated: Path, tmp_path: Path, capsys: Any
) -> None:
    evaluate("--metrics", "psnr")
    place = Path("val0", "action_1", "frame_9.jpg")
    target = data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric" / place
    with FeatureCache(tmp_path / "features") as cache:
        cache.put({cache.key("psnr corrected", target, generated / place): np.array([np.nan], np.float32)})
    capsys.readouterr()

    figures = evaluate("--metrics", "psnr")

    found = {each["mode"]: each for each in figures["metrics"]}
    told = f"{generated / place}: its value is no number"
    assert found["corrected"]["faults"] == [told] and found["published"]["faults"] == []
    assert (found["corrected"]["pictures"], found["published"]["pictures"]) == (3, 4)
    assert np.isfinite([found["corrected"][key] for key in ("value", "low", "high")]).all()
    assert f"PSNR, corrected: {told}" in capsys.readouterr().out
    rows = {row["sample"]: row for row in csv.DictReader((tmp_path / "metrics.csv").open())}
    assert rows["val0/action_1"]["psnr corrected"] == "" != rows["val0/action_0"]["psnr corrected"]


def test_a_clip_without_actions_is_named_with_its_file(
    monkeypatch: pytest.MonkeyPatch, data: Path, generated: Path, tmp_path: Path, capsys: Any
) -> None:
    index = data / "ego4d_val.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "val9": {}}))
    places = ("--data", data, "--generated", generated, "--json", tmp_path / "metrics.json")

    assert run(monkeypatch, "--dataset", "ego4d", *places, "--metrics", "psnr") == 2

    assert (
        f"{index}: record val9/*: its clip lists no actions; list them or take the clip out" in capsys.readouterr().err
    )


def test_infinite_values_are_written_as_such(evaluate: Any, data: Path, generated: Path) -> None:
    shutil.rmtree(generated)
    shutil.copytree(data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric", generated)

    found = {each["mode"]: each["value"] for each in evaluate("--metrics", "psnr")["metrics"]}

    assert found == {"published": "inf", "corrected": 100}


def test_intervals_are_of_the_mean_and_repeatable() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    score = MeanScore(tuple(map(str, range(400))), values)

    low, high = score.interval(2000, seed=3)

    assert (low, high) == score.interval(2000, seed=3) != score.interval(2000, seed=4)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_wilsons_interval() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4) and wilson(20, 20)[1] == 1


def test_mcnemars_test_is_the_binomials() -> None:
    assert mcnemar(3, 9) == mcnemar(9, 3) == pytest.approx(2 * (1 + 12 + 66 + 220) / 2**12)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1 and mcnemar(0, 4000) == 0


def test_holms_correction_is_step_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_metrics_are_chosen_by_name_in_the_tables_order() -> None:
    assert choose_metrics(["psnr, fid", "egovlp"]) == ["egovlp", "fid", "psnr"]
    assert choose_metrics([]) == list(METRICS)
