"""`make demo`, as the script behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from tests.end_to_end.processes import REPOSITORY

DEMO = [sys.executable, str(REPOSITORY / "tools" / "demo.py")]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *arguments], capture_output=True, text=True, timeout=180)


def test_the_demo_leaves_pictures_and_a_film_in_place_of_an_earlier_demo(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / "009").mkdir(parents=True)
    for earlier in (".lego-demo", "demo.mp4", "009/record.json"):
        (out / earlier).touch()

    result = run("--model", str(model), "--out", str(out), "--seconds", "2")

    assert result.returncode == 0, result.stderr
    pictures = {f"demo_{thing}.png" for thing in ("drawer", "cupboard", "tap")}
    assert {path.name for path in out.glob("*.png")} == pictures
    assert all(str(out / name) in result.stdout for name in (*pictures, "demo.mp4"))
    assert cv2.VideoCapture(str(out / "demo.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 30
    assert sorted(path.name for path in out.glob("00*")) == ["001", "002", "003"]


def test_a_model_without_engines_is_one_line(tmp_path: Path) -> None:
    result = run("--model", str(tmp_path / "none"), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'none'} holds no engines; ")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(model: Path, tmp_path: Path) -> None:
    # A log of that name is written by many programs; it does not make this the folder of an earlier demo.
    others = ["holiday.jpg", "server.log"]
    for name in others:
        (tmp_path / name).touch()
    result = run("--model", str(model), "--out", str(tmp_path))
    assert result.returncode == 2
    assert "choose another folder" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == others


def test_a_server_that_cannot_start_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    result = run("--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"))
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("error: the server did not start: ") and "lego-export build" in line


@pytest.mark.parametrize("until", ["$ lego-server", "listening on", "$ lego-train", "$ lego-client"])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_demo_leaves_no_process_behind(model: Path, tmp_path: Path, stop: signal.Signals, until: str) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--model", str(model), "--out", str(tmp_path / "out"), "--seconds", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert demo.stdout is not None
        while not (line := demo.stdout.readline()).startswith(until):
            assert line, "the demo ended by itself"
        if stop == signal.SIGINT:  # a terminal sends Ctrl-C to every process of the command
            os.killpg(demo.pid, stop)
        else:
            demo.send_signal(stop)
        assert demo.wait(30) == 128 + stop
        deadline = time.monotonic() + 5
        while _group_lives(demo.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _group_lives(demo.pid)
    finally:
        if _group_lives(demo.pid):
            os.killpg(demo.pid, signal.SIGKILL)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
