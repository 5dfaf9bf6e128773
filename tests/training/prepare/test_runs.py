"""Runs that are repeated, killed, stopped, or given other settings, and runs of several processes."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.prepare.conftest import PLAIN, epic_row, metadata, prepare, records, report, skips
from tests.training.prepare.films import steady, write_film

VIDEOS, ACTIONS = 8, 8


@pytest.fixture(scope="session")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", steady(50, 20), keyframes=60)


@pytest.fixture
def kitchen(long_film: Path, write_epic: Callable[..., Path], tmp_path: Path) -> tuple[str | Path, ...]:
    """Videos of actions; returns the command that prepares them, but for --out."""
    (tmp_path / "videos").mkdir()
    rows = []
    for video in range(1, VIDEOS + 1):
        shutil.copy(long_film, tmp_path / "videos" / f"P01_0{video}.mp4")
        rows += [epic_row(f"P01_0{video}_{n}", 2 + 5 * n + video / 4, 4 + 5 * n + video / 3) for n in range(ACTIONS)]
    return ("epic", "--annotations", write_epic(*rows), "--videos", tmp_path / "videos", "height=64",
            "similarity.measure=pixels", "similarity.lowest=0.8", "similarity.highest=0.99")  # fmt: skip


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a dataset but the lock."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def clips_done(out: Path) -> set[str]:
    return {path.stem for path in (out / "prepare" / "epickitchen_train" / "clips").glob("[!.]*.json")}


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lego_training", "prepare", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_a_clip(out: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not clips_done(out):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()
        time.sleep(0.002)


def test_two_workers_write_the_same_bytes_as_one(kitchen: tuple[str | Path, ...], tmp_path: Path) -> None:
    assert prepare(*kitchen, "--out", tmp_path / "one") == 0
    assert prepare(*kitchen, "--out", tmp_path / "two", "--workers", "2") == 0

    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert len(records(tmp_path / "one")) > 20 and "frames too different" in report(tmp_path / "one")["skipped"]


def test_a_killed_run_goes_on_with_the_videos_that_are_left(kitchen: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "data"
    running = start(*kitchen, "--out", out, "--workers", "2")
    wait_for_a_clip(out, running)
    workers = [int(pid) for pid in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]

    running.kill()
    running.communicate()

    assert workers
    deadline = time.monotonic() + 10
    while any(
        Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in workers
    ):
        assert time.monotonic() < deadline, "workers outlive the command"
        time.sleep(0.01)
    done = clips_done(out)
    assert 0 < len(done) < VIDEOS and not (out / "epickitchen_train.json").exists()
    written = {path: path.stat().st_mtime_ns for clip in done for path in (out / "EgoGen").rglob(f"{clip}/*/*.jpg")}
    assert written
    assert prepare(*kitchen, "--out", out) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert prepare(*kitchen, "--out", tmp_path / "whole") == 0
    assert contents(out) == contents(tmp_path / "whole")


def test_ctrl_c_stops_at_once_and_says_how_to_go_on(kitchen: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "data"
    running = start(*kitchen, "--out", out, "--workers", "2")
    wait_for_a_clip(out, running)

    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=20)

    assert running.returncode == 130
    assert said.strip().splitlines()[-1] == "stopped: run the same command again to go on"
    assert "Traceback" not in said


def test_a_repeated_run_reads_no_video_again(kitchen: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert prepare(*kitchen, "--out", out) == 0
    before = contents(out)
    for film in (tmp_path / "videos").iterdir():
        film.unlink()

    assert prepare(*kitchen, "--out", out) == 0

    assert contents(out) == before


def test_a_video_that_was_missing_is_looked_for_again(kitchen: tuple[str | Path, ...], tmp_path: Path) -> None:
    out, film = tmp_path / "data", tmp_path / "videos" / "P01_03.mp4"
    film.rename(tmp_path / "away.mp4")
    assert prepare(*kitchen, "--out", out) == 0
    assert report(out)["skipped"]["missing video"] == ACTIONS

    (tmp_path / "away.mp4").rename(film)
    assert prepare(*kitchen, "--out", out) == 0

    assert "missing video" not in report(out)["skipped"]
    assert list(metadata(out)) == [f"P01_0{video}" for video in range(1, VIDEOS + 1)]


def test_descriptions_written_since_are_kept(write_epic: Callable[..., Path], tmp_path: Path) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    out = tmp_path / "data"
    annotations = write_epic(epic_row("P01_01_0", 2.05, 3), epic_row("P01_02_0", 2.05, 3))
    command = ("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN)
    assert prepare(*command) == 0
    index = out / "epickitchen_train.json"
    clips = json.loads(index.read_text())
    clips["P01_01"]["P01_01_0"]["llava_forecast_finetune"] = "The right hand opens the drawer."
    index.write_text(json.dumps(clips))
    shutil.copy(tmp_path / "videos" / "P01_01.mp4", tmp_path / "videos" / "P01_02.mp4")

    assert prepare(*command) == 0

    described = {action_id: each.get("llava_forecast_finetune") for action_id, each in records(out).items()}
    assert described == {"P01_01_0": "The right hand opens the drawer.", "P01_02_0": None}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to stand for a full disk")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_stops_the_run_with_a_sentence_and_it_goes_on_later(
    write_epic: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    for video in ("P01_01", "P01_02"):
        write_film(tmp_path / "videos" / f"{video}.mp4", steady(6, 10))
    annotations = write_epic(epic_row("P01_01_0", 2.05, 3), epic_row("P01_02_0", 2.05, 3))
    out = tmp_path / "data"
    frame = out / "EgoGen" / "epickitchen" / "train" / "P01_02" / "P01_02_0" / ".frame_0000001800.jpg.partial"
    frame.parent.mkdir(parents=True)
    frame.symlink_to("/dev/full")
    command = (
        "epic",
        "--annotations",
        annotations,
        "--videos",
        tmp_path / "videos",
        "--out",
        out,
        "--workers",
        workers,
        *PLAIN,
    )

    assert prepare(*command) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said == f"error: the disk of {out} is full; make room and run the same command again to go on"
    assert not (out / "epickitchen_train.json").exists()
    assert prepare(*command) == 0
    assert list(records(out)) == ["P01_01_0", "P01_02_0"]


@pytest.mark.parametrize(
    ("option", "named"),
    [("height=72", "height = 64, not 72"), ("similarity.highest=0.5", "highest = 1, not 0.5"),
     ("candidates=3", "candidates = 1, not 3"), ("similarity.measure=ssim", "similarity = pixels, not ssim")],
)  # fmt: skip
def test_other_settings_on_the_same_dataset_are_refused_by_name(
    write_epic: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, named: str
) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    out = tmp_path / "data"
    command = (
        "epic",
        "--annotations",
        write_epic(epic_row("P01_01_0", 2.05, 3)),
        "--videos",
        tmp_path / "videos",
        "--out",
        out,
        *PLAIN,
    )
    assert prepare(*command) == 0
    before = contents(out)

    assert prepare(*command, option) == 2

    assert f"was begun with {named}" in capsys.readouterr().err
    assert contents(out) == before


def test_another_annotation_on_the_same_dataset_is_refused(
    write_epic: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    for row, code in ((epic_row("P01_01_0", 2.05, 3), 0), (epic_row("P01_01_0", 2.05, 4), 2)):
        options = ("--videos", tmp_path / "videos", "--out", tmp_path / "data")
        assert prepare("epic", "--annotations", write_epic(row), *options, *PLAIN) == code
    assert "was begun with annotations = EPIC_100_train.csv sha256" in capsys.readouterr().err


def test_both_splits_share_the_metadata(write_epic: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "data"
    for video, split in (("P01_01", "train"), ("P01_02", "val")):
        write_film(tmp_path / "videos" / f"{video}.mp4", steady(6, 10))
        annotations = write_epic(epic_row(f"{video}_0", 2.05, 3))
        options = ("--videos", tmp_path / "videos", "--out", out, "--split", split)
        assert prepare("epic", "--annotations", annotations, *options, *PLAIN) == 0

    assert list(metadata(out)) == ["P01_01", "P01_02"]
    assert (list(records(out)), list(records(out, split="val"))) == (["P01_01_0"], ["P01_02_0"])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (epic_row("P01_01_1", 3, 2), "record P01_01/P01_01_1: ends before it starts: it lasts from 3.000 s to 2.000 s"),
        (epic_row("P01_01_1", 5, 20), "record P01_01/P01_01_1: video too short"),
        (epic_row("P01_09_1", 2, 3), "record P01_09/P01_09_1: missing video"),
    ],
)
def test_a_run_that_is_to_stop_at_faults_names_the_record(
    write_epic: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    row: dict[str, str],
    sentence: str,
) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    out = tmp_path / "data"
    options = ("--videos", tmp_path / "videos", "--out", out, *PLAIN, "on_error=stop")

    assert prepare("epic", "--annotations", write_epic(epic_row("P01_01_0", 2.05, 3), row), *options) == 2

    assert sentence in capsys.readouterr().err
    assert not (out / "epickitchen_train.json").exists()


def test_what_the_method_leaves_out_is_no_fault_to_stop_at(write_epic: Callable[..., Path], tmp_path: Path) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    out = tmp_path / "data"
    rows = (epic_row("P01_01_0", 0.1, 3), epic_row("P01_01_1", 2.05, 3))

    assert (
        prepare(
            "epic",
            "--annotations",
            write_epic(*rows),
            "--videos",
            tmp_path / "videos",
            "--out",
            out,
            *PLAIN,
            "on_error=stop",
        )
        == 0
    )

    assert skips(out) == {"P01_01_0": "input before the video's start"}


def test_nothing_kept_leaves_a_report_and_no_dataset(
    write_epic: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    out = tmp_path / "data"

    assert (
        prepare(
            "epic",
            "--annotations",
            write_epic(epic_row("P01_01_0", 2, 3)),
            "--videos",
            tmp_path / "videos",
            "--out",
            out,
            *PLAIN,
        )
        == 2
    )

    assert "no pair was kept of 1 records" in capsys.readouterr().err
    assert skips(out) == {"P01_01_0": "missing video"} and not (out / "epickitchen_train.json").exists()


def test_a_second_run_on_the_same_dataset_waits_outside(
    write_epic: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    state = tmp_path / "data" / "prepare" / "epickitchen_train"
    state.mkdir(parents=True)
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        options = ("--videos", tmp_path / "videos", "--out", tmp_path / "data", *PLAIN)
        assert prepare("epic", "--annotations", write_epic(epic_row("P01_01_0", 2.05, 3)), *options) == 2

    assert "another run is writing" in capsys.readouterr().err
