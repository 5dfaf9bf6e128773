"""Files of the toy kitchen: datasets, clips, and the commands that write them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from lego_training.toy_kitchen import ACTIONS, TOUR_SEEDS, make_pair, render_clip, render_tour, write_dataset
from lego_training.toy_kitchen.commands import toy_kitchen
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("kitchen")
    write_dataset(root, train=len(ACTIONS), val=2)
    return root


def test_tables_have_the_released_layout(dataset: Path) -> None:
    table = json.loads((dataset / "toykitchen_train.json").read_text())
    assert len(table) == len(ACTIONS)
    for clip, actions in table.items():
        for action, record in actions.items():
            assert set(record) == {"image_0", "image_1", "action", "llava_forecast_finetune"}
            assert record["image_0"].split("/")[:2] == [clip, action]
            assert (dataset / "EgoGen/toykitchen/train" / record["image_1"]).is_file()


def test_input_frame_sorts_first(dataset: Path) -> None:
    for actions in json.loads((dataset / "toykitchen_val.json").read_text()).values():
        for record in actions.values():
            folder = (dataset / "EgoGen/toykitchen/val" / record["image_0"]).parent
            assert sorted(path.name for path in folder.iterdir()) == [
                Path(record["image_0"]).name,
                Path(record["image_1"]).name,
            ]


def test_metric_folder_holds_only_targets(dataset: Path) -> None:
    found = {path.name for path in (dataset / "EgoGen/toykitchen/val_gt_for_metric").rglob("*.jpg")}
    expected = {
        Path(record["image_1"]).name
        for actions in json.loads((dataset / "toykitchen_val.json").read_text()).values()
        for record in actions.values()
    }
    assert found == expected


def test_metadata_describes_every_clip(dataset: Path) -> None:
    metadata = json.loads((dataset / "toykitchen_metadata.json").read_text())
    assert len(metadata) == len(ACTIONS) + 2
    for clip in metadata.values():
        assert (clip["height"], clip["width"]) == (256, 256)
        for action in clip["actions"].values():
            assert set(action) == {"seed", "boxes", "slots", "facts", "changed_box", "caption"}


def test_curation_pairs_a_query_with_its_description(dataset: Path) -> None:
    records = json.loads((dataset / "curation_from_gpt/toykitchen_for_tuning_forecasting.json").read_text())
    assert len(records) == len(ACTIONS)
    for record in records:
        human, gpt = record["conversations"]
        assert human["from"] == "human" and human["value"].startswith("<image>\n")
        assert gpt["from"] == "gpt" and gpt["value"].endswith(".")


def test_an_interrupted_dataset_is_completed_without_rendering_again(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=2, val=0)
    assert write_dataset(tmp_path, train=3, val=1).rendered == 2
    whole = (tmp_path / "toykitchen_train.json").read_bytes()
    next((tmp_path / "EgoGen/toykitchen/train/train_0000001").rglob("*.jpg")).unlink()
    assert write_dataset(tmp_path, train=3, val=1).rendered == 1
    assert (tmp_path / "toykitchen_train.json").read_bytes() == whole


def test_two_workers_write_the_same_bytes_as_one(dataset: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, train=3, val=0, workers=2)
    for path in (tmp_path / "EgoGen").rglob("*.jpg"):
        assert path.read_bytes() == (dataset / path.relative_to(tmp_path)).read_bytes()


def test_clip_plays_and_says_when_to_ask(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    queries = render_clip(3, path, seconds=2.0, fps=5, size=128)
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    read, frame = video.read()
    assert read and frame.shape == (128, 128, 3)
    [(time, query)] = queries
    assert 0 < time < 2.0
    assert query.startswith("How do I close the ")


def test_tour_shows_one_kitchen_after_another_and_asks_in_each(tmp_path: Path) -> None:
    path = tmp_path / "tour.mp4"
    queries = render_tour([0, 4], path, seconds=2.0, fps=5, size=128)
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 20
    assert [time for time, _ in queries] == pytest.approx([1.4, 3.4])
    assert "drawer" in queries[0][1] and "tap" in queries[1][1]


def test_tour_rests_on_the_input_frames_when_queries_are_asked(tmp_path: Path) -> None:
    path = tmp_path / "tour.mp4"
    queries = render_tour([0, 4], path, seconds=2.0, fps=5, size=256)
    video = cv2.VideoCapture(str(path))
    frames = [video.read()[1] for _ in range(20)]
    expected = [make_pair(seed, "val").input_frame[:, :, ::-1].astype(float) for seed in (0, 4)]
    for number, (seconds, _) in enumerate(queries):
        seen = frames[round(seconds * 5)]
        error = [abs(seen - frame).mean() for frame in expected]
        assert error[number] < 0.5 * error[1 - number]


def test_tour_command_writes_the_queries_a_client_reads(tmp_path: Path) -> None:
    path, queries = tmp_path / "tour.mp4", tmp_path / "queries.json"
    options = ["--seconds", "2", "--fps", "2", "--size", "64", "--queries", str(queries)]
    result = CliRunner().invoke(toy_kitchen, ["tour", str(path), *options])
    assert result.exit_code == 0, result.output
    asked = json.loads(queries.read_text())
    assert [entry["time"] for entry in asked] == [1.4, 3.4, 5.4]
    assert len({entry["query"] for entry in asked}) == len(TOUR_SEEDS)
    assert all(entry["query"] in result.output for entry in asked)


def test_ctrl_c_ends_the_writing_of_a_dataset_in_one_line(tmp_path: Path) -> None:
    journal = tmp_path / "data" / "toykitchen_journal.jsonl"
    command = [sys.executable, "-m", "lego_training", "toy-kitchen", "write", str(journal.parent), "--train", "4000"]
    process = subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (journal.is_file() and journal.stat().st_size):
            assert process.poll() is None and time.monotonic() < deadline, "writing never began"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # to the workers too, as a terminal does
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == 130
    assert errors.strip() == "stopped: run the same command again to go on"


def test_sheet_command_writes_a_picture(tmp_path: Path) -> None:
    result = CliRunner().invoke(toy_kitchen, ["sheet", str(tmp_path / "sheet.png"), "--count", "2"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["clip", "out.mp4", "--seconds", "1"], "seconds=1"),
        (["clip", "no/such/folder/out.mp4"], "no/such/folder"),
        (["tour", "out.mp4", "--seed", "-3"], "-3"),
        (["write", "root", "--train", "-1"], "-1"),
    ],
)
def test_bad_options_are_told_in_a_line(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(toy_kitchen, arguments)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
