"""lego-train reproduce: from a dataset and models to a report."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_training.baselines import BASELINES, train_baselines
from lego_training.cli import main
from lego_training.dataset import Record
from lego_training.evaluation.metrics.measure import METRICS
from lego_training.evaluation.reproduce.bins import divide, seconds_apart
from lego_training.evaluation.reproduce.comparisons import COMPARISONS, METHODS, paper_value
from lego_training.evaluation.reproduce.grids import grid
from lego_training.evaluation.reproduce.methods import Sources, parse_places
from lego_training.evaluation.reproduce.people import read_people
from lego_training.evaluation.reproduce.truth import Lead, Truth
from lego_training.study.design import Study
from lego_training.study.report import Findings, Rate, to_dict
from PIL import Image

from tests.training.conftest import Workshop
from tests.training.metrics.miniature import write_miniature
from tests.training.metrics.weights import write_backbones, write_clip, write_egovlp, write_inception
from tests.training.test_baselines import run_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What table 1 needs."""
    folder = tmp_path_factory.mktemp("weights")
    write_clip(folder / "clip-vit-large-patch14")
    write_egovlp(folder / "egovlp.pth", frames=4)
    write_inception(folder / "pt_inception-2015-12-05-6726825d.pth")
    write_backbones(folder)
    return folder


@pytest.fixture(scope="module")
def baselines(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baselines")
    train_baselines(workshop.checkpoint, workshop.checkpoint, workshop.records, run_config(), output, list(BASELINES))
    return output


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ego4d")
    write_miniature(root, val=6, size=(92, 64))
    return root


FAST = ("lego.steps=1", "sdedit.steps=2", "proxedit.steps=2", "batch_size=3")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["lego-train", "reproduce", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def table1(
    data: Path, baselines: Path, weights: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Table 1 on a miniature dataset in the released layout."""
    out = tmp_path_factory.mktemp("table1")
    with pytest.MonkeyPatch.context() as patch:
        places = ("--data", data, "--dataset", "ego4d", "--out", out, "--weights", weights, "--baselines", baselines)
        options = ("--checkpoint", f"lego={workshop.checkpoint}", "--resamples", "10", "--device", "cpu",
                   "--examples", "2", "--frames", "1", "--records", "3")  # fmt: skip
        assert run(patch, "table1", *places, *options, *FAST) == 0
    return out / "table1"


def test_table_1_has_every_method_and_metric_in_both_modes(table1: Path) -> None:
    figures = json.loads((table1 / "figures.json").read_text())

    assert list(figures["methods"]) == list(COMPARISONS["table1"].methods)
    for name, method in figures["methods"].items():
        assert method["absent"] == "" and method["skipped"] == [] and method["pictures"] == 3
        found = {(each["metric"], each["mode"]): each["value"] for each in method["metrics"]}
        assert set(found) == {(m, mode) for m in COMPARISONS["table1"].metrics for mode in ("published", "corrected")}
        assert all(value is not None for value in found.values()), name
    lego = figures["methods"]["lego"]
    assert lego["paper"] == {"egovlp": 65.65, "egovlp_plus": 80.44, "clip": 80.61, "fid": 23.83, "psnr": 12.29,
                             "lpips_squeeze": 36.43}  # fmt: skip


def test_the_bounds_are_bounds(table1: Path) -> None:
    methods = json.loads((table1 / "figures.json").read_text())["methods"]

    def value(name: str, metric: str) -> float:
        return float(
            next(e["value"] for e in methods[name]["metrics"] if (e["metric"], e["mode"]) == (metric, "corrected"))
        )

    assert value("target", "fid") == pytest.approx(0, abs=1e-3) and value("target", "psnr") == 100
    for metric in ("egovlp", "clip"):
        assert value("target", metric) == pytest.approx(100, abs=1e-3)
    assert value("target", "lpips_squeeze") == pytest.approx(0, abs=1e-4)
    assert value("no_edit", "psnr") > value("lego", "psnr")  # a model that has learnt nothing


def test_the_report_is_a_page_a_text_a_table_and_pictures(table1: Path) -> None:
    page, text = (table1 / "report.html").read_text(), (table1 / "report.md").read_text()
    for told in ("Table 1: action frame generation", "InstructPix2Pix", "ProxEdit", "as published", "65.65"):
        assert told in page
    assert "(65.65)" in text and "| LEGO |" in text and "How the metrics are computed" in text
    for file in ("plots/metrics.png", "grids/examples.jpg", "grids/actions.jpg"):
        assert f"src='{file}'" in page and f"]({file})" in text
        assert Image.open(table1 / file).width > 300
    rows = list(csv.DictReader((table1 / "figures.csv").open()))
    assert {row["method"] for row in rows} == set(COMPARISONS["table1"].methods)
    (fid,) = [row for row in rows if (row["method"], row["metric"], row["mode"]) == ("lego", "fid", "published")]
    assert float(fid["paper"]) == 23.83 and float(fid["low"]) <= float(fid["value"]) <= float(fid["high"])
    single = list(csv.DictReader((table1 / "pictures-sdedit.csv").open()))
    assert [row["sample"] for row in single] == ["val0/action_0", "val1/action_0", "val2/action_1"]
    assert float(single[0]["clip published"])


def test_the_same_command_again_paints_nothing_anew(
    table1: Path, data: Path, baselines: Path, weights: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    again = tmp_path / "again"
    shutil.copytree(table1.parent, again)
    victims = sorted((again / "sdedit" / "images").rglob("*.jpg"))
    content = victims[0].read_bytes()
    victims[0].unlink()
    times = {path: path.stat().st_mtime_ns for path in again.rglob("*/images/**/*.jpg")}
    places = ("--data", data, "--dataset", "ego4d", "--out", again, "--weights", weights, "--baselines", baselines)
    common = ("--checkpoint", f"lego={workshop.checkpoint}", "--records", "3", "--frames", "0", "--metrics", "psnr")

    assert run(monkeypatch, "table1", *places, *common, *FAST) == 0

    difference = np.asarray(Image.open(victims[0])).astype(int)
    assert difference.shape == (64, 92, 3) and len(victims[0].read_bytes()) == pytest.approx(len(content), rel=0.05)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert run(monkeypatch, "table1", *places, *common, "lego.steps=2") == 2


def test_shards_paint_and_the_whole_reports(
    data: Path, weights: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = ("--data", data, "--dataset", "ego4d", "--out", tmp_path / "out", "--weights", weights)
    common = ("table7", *places, "--checkpoint", f"lego={workshop.checkpoint}", "--metrics", "psnr", "lego.steps=1")

    assert run(monkeypatch, *common, "--shard", "2/2") == 0
    assert "painted part 2/2; 3 pictures of all parts are still to do" in capsys.readouterr().out
    assert not (tmp_path / "out" / "table7" / "report.html").exists()
    assert run(monkeypatch, *common, "--shard", "1/2") == 0
    assert "the command without --shard writes the report" in capsys.readouterr().out
    assert run(monkeypatch, *common, "--frames", "0") == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "absent: LEGO, trained on both datasets: there are neither pictures nor a model of it" in shown
    methods = json.loads((tmp_path / "out" / "table7" / "figures.json").read_text())["methods"]
    assert (
        methods["lego"]["pictures"] == 6 and "give --checkpoint lego_scaleup=DIR" in methods["lego_scaleup"]["absent"]
    )


def test_the_toy_kitchen_is_judged_by_its_renderer_too(
    workshop: Workshop, baselines: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = ("--data", workshop.data, "--dataset", "toykitchen", "--split", "train", "--records", "3")
    common = ("--out", tmp_path, "--checkpoint", f"lego={workshop.checkpoint}", "--metrics", "psnr", "--frames", "0")

    assert run(monkeypatch, "table1", *places, *common, *FAST) == 0

    methods = json.loads((tmp_path / "table1" / "figures.json").read_text())["methods"]
    truth = {name: method["truth"] for name, method in methods.items() if method["truth"]}
    assert set(truth) == {"no_edit", "lego", "target"}
    assert truth["target"]["action_success"] == 1 and truth["target"]["right_rate"] == 1
    assert truth["no_edit"]["nothing_rate"] == 1 and truth["no_edit"]["description_slots"] is None
    assert truth["lego"]["description_slots"] == 0
    low, high = truth["no_edit"]["intervals"]["outside_psnr_db"]
    assert low <= truth["no_edit"]["outside_psnr_db"] <= high
    assert set(truth["target"]["intervals"]) & {"description_slots", "hand"} == set()
    table = list(csv.DictReader((tmp_path / "table1" / "figures.csv").open()))
    (row,) = [each for each in table if (each["method"], each["metric"]) == ("no_edit", "nothing_rate")]
    assert (row["mode"], row["value"], row["pictures"]) == ("renderer", "1", "3")
    (row,) = [each for each in table if (each["method"], each["metric"]) == ("no_edit", "wrong_object_rate")]
    others = truth["no_edit"]["scenes_with_another"]
    assert row["pictures"] == str(others) and others < 3  # a scene of the three has none
    text = (tmp_path / "table1" / "report.md").read_text()
    assert "wrong object (of scenes with another)" in text and f"Of 3 scenes; {others} have another object" in text
    (row,) = [each for each in table if (each["method"], each["metric"]) == ("target", "lego_lead")]
    assert float(row["value"]) == pytest.approx(methods["target"]["lego_lead"][0], abs=1e-5) and row["pictures"] == "3"
    pairs = list(csv.DictReader((tmp_path / "table1" / "pairs.csv").open()))
    assert {(each["first"], each["second"]) for each in pairs} == {
        ("lego", "no_edit"), ("lego", "target"), ("no_edit", "target")
    }  # fmt: skip
    (pair,) = [each for each in pairs if each["first"] == "no_edit"]
    assert (pair["lead"], pair["second_only"], pair["p"], pair["p_holm"]) == ("-1", "3", "0.25", "0.75")
    lead = truth["lego"]["action_success"] - 1
    assert methods["target"]["lego_lead"][0] == pytest.approx(lead) and methods["lego"]["lego_lead"] is None
    assert f"{lead:+.3f} [" in (tmp_path / "table1" / "report.md").read_text()
    page = (tmp_path / "table1" / "report.html").read_text()
    assert "What the renderer says" in page and "'../no_edit/failures/index.html'" in page
    assert len(list((tmp_path / "no_edit" / "failures" / "nothing").glob("*.jpg"))) == 3
    assert "The paper has no numbers for this dataset" in page


def test_damaged_pictures_are_named_and_the_rest_is_judged_and_shown(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records = workshop.records[:3]
    for record in records:
        place = tmp_path / "made" / Path(*record.target_path.parts[-3:])
        place.parent.mkdir(parents=True)
        place.write_bytes(record.target_path.read_bytes() if record is not records[0] else b"")
    places = ("--data", workshop.data, "--dataset", "toykitchen", "--split", "train", "--out", tmp_path / "out")
    common = ("--pictures", f"lego={tmp_path / 'made'}", "--metrics", "psnr", "--frames", "0")

    assert run(monkeypatch, "table1", *places, *common) == 0

    lego = json.loads((tmp_path / "out" / "table1" / "figures.json").read_text())["methods"]["lego"]
    assert lego["pictures"] == lego["truth"]["scenes"] == 2 and lego["truth"]["action_success"] == 1
    page = (tmp_path / "out" / "table1" / "report.html").read_text()
    assert f"{records[0].action_id}/{records[0].target_path.name}: it cannot be read (the image is empty" in page
    assert (tmp_path / "out" / "table1" / "grids" / "examples.jpg").is_file()


def test_figure_10_divides_by_time(data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pictures = data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric"
    places = ("--data", data, "--dataset", "ego4d", "--out", tmp_path, "--weights", weights, "--metrics", "psnr,fid")

    assert run(monkeypatch, "figure10", *places, "--pictures", f"lego={pictures}", "--resamples", "5") == 0

    bins = json.loads((tmp_path / "figure10" / "figures.json").read_text())["methods"]["lego"]["bins"]
    assert [each["records"] for each in bins] == [2, 1, 1, 2]
    assert [each["shortest"] for each in bins] == [0.5, 1.0, 1.25, 1.5]
    values = {(each["metric"], each["mode"]): each for each in bins[1]["metrics"]}
    assert values["psnr", "corrected"]["value"] == 100
    assert values["fid", "published"]["absent"] == "FID needs 2 pictures at least; there are 1"
    assert (tmp_path / "figure10" / "plots" / "bins.png").is_file()
    assert "0.50 to 0.75 s" in (tmp_path / "figure10" / "figures.csv").read_text()


def test_records_whose_time_is_no_number_are_named(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    path = tmp_path / "data" / "ego4d_metadata.json"
    about = json.loads(path.read_text())
    about["val1"]["actions"]["action_0"]["target_time"] = float("nan")
    about["val2"] = {"fps": float("inf")}  # and no times, but frame numbers
    path.write_text(json.dumps(about))
    pictures = tmp_path / "data" / "EgoGen" / "ego4d.fho" / "val_gt_for_metric"
    places = ("--data", tmp_path / "data", "--dataset", "ego4d", "--out", tmp_path / "out", "--metrics", "psnr")

    assert run(monkeypatch, "figure10", *places, "--pictures", f"lego={pictures}", "--resamples", "0") == 0

    names = ["val1/action_0", "val2/action_0", "val2/action_1"]
    assert json.loads((tmp_path / "out" / "figure10" / "figures.json").read_text())["without_time"] == names
    said, text = capsys.readouterr().out, (tmp_path / "out" / "figure10" / "report.md").read_text()
    for name in names:
        told = f"{name}: in no bin, as the time between its frames is not known"
        assert f"left out: {told}" in said and f"- {told}" in text


def test_faults_of_the_dataset_are_named_by_file_on_the_screen_and_in_the_report(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    frames = tmp_path / "data" / "EgoGen" / "ego4d.fho"
    shutil.copytree(frames / "val_gt_for_metric", tmp_path / "made")
    made, truth = (folder / "val0" for folder in (tmp_path / "made", frames / "val_gt_for_metric"))
    (truth / "action_0" / "frame_9.jpg").unlink()
    Image.new("RGB", (64, 64)).save(made / "action_1" / "frame_9.jpg")
    larger = tmp_path / "made" / "val1" / "action_0" / "frame_9.jpg"
    Image.open(larger).resize((184, 128)).save(larger)
    (frames / "val" / "val1" / "action_1" / "frame_0.jpg").unlink()
    shutil.rmtree(tmp_path / "made" / "val2" / "action_0")
    places = ("--data", tmp_path / "data", "--dataset", "ego4d", "--out", tmp_path / "out", "--metrics", "psnr")

    assert run(monkeypatch, "table7", *places, "--pictures", f"lego={tmp_path / 'made'}", "--resamples", "0") == 0

    said, text = capsys.readouterr().out, (tmp_path / "out" / "table7" / "report.md").read_text()
    for told in (
        f"{truth / 'action_0' / 'frame_9.jpg'}: the ground truth is missing",
        f"{made / 'action_1' / 'frame_9.jpg'}: it is 64x64 and its target 92x64: the shapes disagree",
        f"{frames / 'val' / 'val1' / 'action_1' / 'frame_0.jpg'}: the input frame is missing",
        f"{tmp_path / 'made' / 'val2' / 'action_0' / 'frame_9.jpg'}: the generated picture is missing",
    ):
        assert f"left out: LEGO: {told}\n" in said and f"- LEGO: {told}\n" in text
    resized = f"LEGO: {larger}: it is 184x128 and its target 92x64\n"
    assert f"resized and judged: {resized}" in said and f"## What was resized and judged\n\n- {resized}" in text
    lego = json.loads((tmp_path / "out" / "table7" / "figures.json").read_text())["methods"]["lego"]
    assert (lego["pictures"], len(lego["skipped"]), len(lego["resized"])) == (2, 4, 1)


def test_two_records_of_one_target_frame_are_refused(
    data: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data, tmp_path / "data")
    index = tmp_path / "data" / "ego4d_val.json"
    clips = json.loads(index.read_text())
    clips["val1"]["action_1"]["image_1"] = clips["val1"]["action_0"]["image_1"]
    index.write_text(json.dumps(clips))
    places = ("--data", tmp_path / "data", "--dataset", "ego4d", "--out", tmp_path / "out", "--metrics", "psnr")

    assert run(monkeypatch, "table1", *places, "--checkpoint", f"lego={workshop.checkpoint}", *FAST) == 2

    told = capsys.readouterr().err
    assert "records val1/action_0 and val1/action_1 would share" in told and "val1/action_0/frame_9" in told
    assert not list((tmp_path / "out").rglob("*.jpg"))


def write_study(path: Path, methods: dict[str, float], **values: Any) -> Path:
    """As lego-train study report writes it."""
    study = Study("best", "images", "?", 5, ())
    rates = tuple(Rate(name, share, share / 2, 1.0, 300) for name, share in methods.items())
    found = Findings(rates, agreement=0.5, raters=60, votes=300, complete=1.0, hasty=())
    path.write_text(json.dumps({**to_dict(study, found), "items": 60, **values}))
    return path


def rates_with(**values: Any) -> dict[str, Any]:
    return {"rates": [{"method": "lego", "share": 0.5, "low": 0.4, "high": 0.6, "votes": 9, **values}]}


def test_what_people_chose_has_a_column(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pictures = data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric"
    others = {METHODS[name].title: 0.1 for name in ("description", "description_image", "description_text")}
    study = write_study(tmp_path / "report.json", {"LEGO": 0.5, "instruct_pix2pix": 0.04, **others})
    given = [f"{name}={pictures}" for name in ("lego", "description")]
    arguments = ("--data", data, "--dataset", "ego4d", "--out", tmp_path / "out", "--metrics", "psnr")

    assert run(monkeypatch, "table3", *arguments, "--pictures", given[0], "--pictures", given[1], "--study", study) == 0

    lines = (tmp_path / "out" / "table3" / "report.md").read_text().splitlines()
    cells = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in lines if line.startswith("|")}
    assert cells["method"] == "chosen by people, %"
    assert cells["LEGO"] == "50.0 [25.0, 100.0] (34.34)"
    assert cells["InstructPix2Pix"] == "4.0 [2.0, 100.0] (5.33)"
    assert cells["descriptions"] == "10.0 [5.0, 100.0] (13.00)"
    page = (tmp_path / "out" / "table3" / "report.html").read_text()
    assert "chosen by people, %" in page and "50.0 [25.0, 100.0] (34.34)" in page
    assert "60 raters, 300 votes" in page
    figures = json.loads((tmp_path / "out" / "table3" / "figures.json").read_text())
    assert figures["people"] == {"raters": 60, "votes": 300, "agreement": 0.5}
    assert figures["methods"]["lego"]["people"]["share"] == 0.5 and "What else people could choose" not in page
    rows = list(csv.DictReader((tmp_path / "out" / "table3" / "figures.csv").open()))
    (people,) = [row for row in rows if (row["method"], row["metric"]) == ("lego", "people")]
    assert (people["value"], people["low"], people["paper"]) == ("50", "25", "34.34")


def test_a_study_of_other_methods_is_not_set_beside_the_papers(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric"
    study = write_study(tmp_path / "report.json", {"LEGO": 0.5, "sdedit": 0.1, "target": 0.4})
    arguments = ("--data", data, "--dataset", "ego4d", "--out", tmp_path / "out", "--metrics", "psnr")

    assert run(monkeypatch, "table3", *arguments, "--pictures", f"lego={pictures}", "--study", study) == 0

    text = (tmp_path / "out" / "table3" / "report.md").read_text()
    assert "| 50.0 [25.0, 100.0] |" in text and "(34.34)" not in text
    assert "- SDEdit, target frame: in the study, and no row of this table" in text
    assert "in the study, and no row of this table" in (tmp_path / "out" / "table3" / "report.html").read_text()


@pytest.mark.parametrize(
    ("methods", "values", "told"),
    [
        ({"LEGO": 1.0}, {"kind": "descriptions"}, "is of a study of descriptions; a table takes one of images"),
        ({"Dall-E": 1.0}, {}, "the study's method 'Dall-E' is none of the comparisons'"),
        ({"LEGO": 0.6, "lego": 0.4}, {}, "rates[1].method is 'lego', which is 'LEGO' again"),
        ({}, {"kind": None}, "is no report of a study: it has no kind"),
        ({}, {"rates": [{"name": "LEGO"}]}, "rates[0] is {'name': 'LEGO'}; it must be a mapping of method, share"),
        ({}, {"rates": ["lego"]}, "rates[0] is 'lego'; it must be a mapping"),
        ({}, {"rates": None}, "rates is None; it must be a list"),
        ({}, rates_with(method=5), "rates[0].method is 5; it must be text"),
        ({}, rates_with(share="0.5"), "rates[0].share is '0.5'; it must be a number in 0 to 1"),
        ({}, rates_with(share=None), "rates[0].share is None; it must be a number in 0 to 1"),
        ({}, rates_with(high=50), "rates[0].high is 50; it must be a number in 0 to 1"),
        ({}, rates_with(votes=1.5), "rates[0].votes is 1.5; it must be a whole number"),
        ({"LEGO": 1.0}, {"raters": "many"}, "raters is 'many'; it must be a whole number"),
        ({"LEGO": 1.0}, {"krippendorff_alpha": "good"}, "krippendorff_alpha is 'good'; it must be a number or null"),
    ],
)
def test_a_study_that_does_not_fit_is_named(
    methods: dict[str, float], values: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(LegoError, match=r"report\.json") as error:
        read_people(write_study(tmp_path / "report.json", methods, **values))
    assert told in str(error.value)
    with pytest.raises(LegoError, match=r"absent\.json cannot be read"):
        read_people(tmp_path / "absent.json")


def test_pictures_in_half_precision_are_nearly_the_same_and_are_not_mixed(
    table1: Path, data: Path, baselines: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = ("--data", data, "--dataset", "ego4d", "--baselines", baselines, "--metrics", "psnr", "--frames", "0")
    common = ("table1", *places, "--checkpoint", f"lego={workshop.checkpoint}", "--records", "3", *FAST)

    assert run(monkeypatch, *common, "--out", tmp_path, "precision=bf16") == 0

    for method in ("lego", "sdedit"):  # ProxEdit's threshold makes large differences of small ones
        painted = sorted((tmp_path / method / "images").rglob("*.jpg"))
        assert len(painted) == 3
        for path in painted:
            exact = Image.open(table1.parent / method / path.relative_to(tmp_path / method))
            error = np.abs(np.asarray(Image.open(path)).astype(float) - np.asarray(exact).astype(float)).mean()
            assert error < 12, method
    assert run(monkeypatch, *common, "--out", tmp_path) == 2


def test_table_6_has_the_lead_of_the_upper_bound(
    data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures = data / "EgoGen" / "ego4d.fho" / "val_gt_for_metric"
    places = ("--data", data, "--dataset", "ego4d", "--out", tmp_path, "--weights", weights, "--metrics", "clip_text")

    assert run(monkeypatch, "table6", *places, "--pictures", f"instruct_pix2pix={pictures}", "--resamples", "0") == 0

    lines = (tmp_path / "table6" / "report.md").read_text().splitlines()
    (difference,) = [line for line in lines if line.startswith("| difference |")]
    assert difference == "| difference |  / 0.00 (0.85) |"


def test_methods_with_nothing_to_judge_are_absent_and_the_others_reported(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    places = ("--data", data, "--dataset", "ego4d", "--out", tmp_path / "out", "--metrics", "psnr")

    assert run(monkeypatch, "table2", *places, "--pictures", f"lego={tmp_path / 'empty'}") == 0

    methods = json.loads((tmp_path / "out" / "table2" / "figures.json").read_text())["methods"]
    assert "has no picture of a record of ego4d_val" in methods["lego"]["absent"]
    assert methods["no_edit"]["pictures"] == 6 and methods["sdedit"]["absent"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("table5",), "there is no comparison 'table5'; choose of table1, table2"),
        (("table3",), "no method of table3 has pictures"),
        (("table1", "--checkpoint", "lego2=."), "there is no model 'lego2'; choose of"),
        (("table1", "--checkpoint", "lego=nowhere"), "nowhere, given for lego, is no folder"),
        (("table1", "--pictures", "lego"), "is not of the form name=folder"),
        (("table1", "--shard", "3/2"), "the shard is '3/2'"),
        (("table1", "--metrics", "ssim"), "there is no metric 'ssim'"),
        (("table1", "sdedit.strength=3"), "sdedit: strength is 3"),
        (("table1", "--dataset", "ego5d"), "holds no dataset 'ego5d'"),
        (("table1", "--checkpoint", "lego=."), "is not a LEGO checkpoint directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], told: str, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    table, *rest = arguments

    assert run(monkeypatch, table, "--data", data, "--dataset", "ego4d", "--out", tmp_path / "out", *rest) == 2
    assert told in capsys.readouterr().err


# --- parts


def test_a_lead_is_of_the_scenes_that_two_methods_share() -> None:
    first = Truth({}, Path(), {scene: scene % 2 == 0 for scene in range(100)})
    same = Truth({}, Path(), {scene: scene % 2 == 0 for scene in range(50, 150)})
    worse = Truth({}, Path(), {scene: scene % 4 == 0 for scene in range(100)})

    assert first.lead(same, 200, 0) == Lead(0, 0, 0, 50, 0, 0)  # however different the scenes are, the methods are not
    lead = first.lead(worse, 200, 0)
    assert lead is not None and lead.value == 0.25 and 0.1 < lead.low < 0.25 < lead.high < 0.4
    assert (lead.scenes, lead.first_only, lead.second_only) == (100, 25, 0) and lead.p == pytest.approx(2 / 2**25)
    assert first.lead(worse, 0, 0) is None and first.lead(Truth({}, Path(), {7: True}), 200, 0) is None


def test_the_papers_numbers_are_of_known_methods_and_metrics() -> None:
    from lego_training.evaluation.reproduce.comparisons import _paper

    for dataset, methods in _paper().items():
        for name, values in methods.items():
            assert name in METHODS and set(values) <= {*METRICS, "people"}, dataset
    assert paper_value("epickitchen", "instruct_pix2pix", "fid") == 20.64
    assert paper_value("toykitchen", "lego", "fid") is paper_value("ego4d", "no_edit", "fid") is None


@pytest.mark.parametrize("table", COMPARISONS)
def test_every_comparison_is_of_known_methods_and_metrics(table: str) -> None:
    comparison = COMPARISONS[table]

    assert set(comparison.methods) <= set(METHODS) and set(comparison.metrics) <= set(METRICS)
    if not comparison.bins:  # figure 10 shows curves, not numbers
        without = [name for name in comparison.methods
                   if not any(paper_value("ego4d", name, metric) for metric in comparison.metrics)]  # fmt: skip
        assert set(without) <= {"no_edit", "target"}


def record_of(number: int, facts: dict[str, Any] | None = None, frames: tuple[str, str] = ("a", "b")) -> Record:
    first, last = (Path(f"val/c/{number}/{name}.jpg") for name in frames)
    return Record("c", str(number), first, last, "open drawer", "", facts or {})


def test_bins_have_about_as_many_records_each_and_equal_times_stay_together() -> None:
    times = [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    records = [record_of(i, {"input_time": 1.0, "target_time": 1.0 + time}) for i, time in enumerate(times)]

    bins, unknown = divide([*records, record_of(99)], {})

    numbers = [sorted(int(name.split("/")[1]) for name in each.names) for each in bins]
    assert numbers == [[0, 1, 2], [3, 4], [5, 6], [7, 8, 9]]
    assert unknown == ["c/99"] and bins[0].title == "1.00 to 3.00 s"


def test_time_is_the_metadatas_or_that_of_frame_numbers() -> None:
    assert seconds_apart(record_of(0, {"input_time": 2.0, "target_time": 3.5}), 30) == 1.5
    assert seconds_apart(record_of(0, frames=("frame_0010", "frame_0055")), 30) == 1.5
    assert seconds_apart(record_of(0, frames=("frame_0010", "frame_0055")), None) is None
    assert seconds_apart(record_of(0), 30) is None
    broken = {"input_time": 2.0, "target_time": float("nan")}
    assert seconds_apart(record_of(0, broken, frames=("frame_0010", "frame_0055")), 30) is None


def test_records_that_cannot_be_divided_say_why() -> None:
    with pytest.raises(LegoError, match="of no record is known how much time lies between its frames"):
        divide([record_of(0)], {})
    same = {"input_time": 0.0, "target_time": 1.5}
    with pytest.raises(LegoError, match=r"all records have 1\.5 s between their frames; there is nothing to divide"):
        divide([record_of(0, same), record_of(1, same)], {})


def test_models_are_found_where_they_were_given(tmp_path: Path, baselines: Path, workshop: Workshop) -> None:
    sources = Sources({"lego": workshop.checkpoint}, baselines)
    other = replace(
        sources, checkpoints={**sources.checkpoints, "instruct_pix2pix": baselines / "description/checkpoint"}
    )

    assert sources.loader("sdedit")[1]["model"] == sources.loader("proxedit")[1]["model"]
    assert sources.loader("instruct_pix2pix")[1]["model"] != other.loader("instruct_pix2pix")[1]["model"]
    assert parse_places(["lego=a=b"], "") == {"lego": Path("a=b")}
    with pytest.raises(LegoError, match="lego is given twice, as a and b"):
        parse_places(["lego=a", "lego=b"], "")


def test_a_grid_keeps_shapes_and_has_room_for_words_and_gaps(tmp_path: Path) -> None:
    wide, tall = tmp_path / "wide.png", tmp_path / "tall.png"
    Image.new("RGB", (200, 100), "red").save(wide)
    Image.new("RGB", (100, 200), "blue").save(tall)

    sheet = grid([[wide, None], [wide, tall]], ["one", "two"], [["words", ""], ["", ""]])

    colours = {colour for _, colour in sheet.getcolors(1 << 24) or []}
    assert {(255, 0, 0), (0, 0, 255), (255, 255, 255)} <= colours
    assert np.asarray(sheet)[30:50, 230:400].min() == 255  # the empty place
