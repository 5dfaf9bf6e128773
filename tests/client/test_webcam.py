"""Cameras that come, go and fail, through OpenCV's own Video4Linux code: only the kernel's answers are made up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.client.scripted_server import ScriptedServer
from tests.client.test_cli import QUERY, finish, start_client, the_error

HERE = Path(__file__).parent
BUDGET_S = 60  # for what takes a few seconds on a machine that is not busy


@dataclass(frozen=True)
class Cameras:
    """The cameras that a process with this environment has."""

    root: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LD_PRELOAD": str(self.library), "FAKE_V4L2": str(self.root), "COLUMNS": "200"}

    def plug(self, number: int = 0, name: str = "HD Webcam", state: str = "on") -> None:
        names = self.root / "sys" / f"video{number}"
        names.mkdir(exist_ok=True)
        (names / "name").write_text(name)
        self.turn(state, number)

    def turn(self, state: str, number: int = 0) -> None:
        new = self.root / "dev" / "new"
        new.write_text(state)
        present = self.root / "dev" / f"video{number}"
        if present.exists():
            present.write_text(state)
            new.unlink()
        else:
            new.rename(present)

    def unplug(self, number: int = 0) -> None:
        (self.root / "dev" / f"video{number}").unlink()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("a preloaded Video4Linux needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("v4l2") / "fake_v4l2.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "fake_v4l2.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def cameras(tmp_path: Path, library: Path) -> Cameras:
    root = tmp_path / "machine"
    (root / "dev").mkdir(parents=True)
    (root / "sys").mkdir()
    return Cameras(root, library)


class Watcher:
    """A process that watches a source."""

    def __init__(self, cameras: Cameras, source: str) -> None:
        command = [sys.executable, str(HERE / "camera_watcher.py"), source]
        self.process = subprocess.Popen(command, env=cameras.environment, stdout=subprocess.PIPE, text=True)

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Returns the first report that is as wanted."""
        assert self.process.stdout is not None
        reports = []
        for line in self.process.stdout:
            reports.append(json.loads(line))
            if wanted(reports[-1]):
                return reports[-1]
            assert len(reports) < 10 * BUDGET_S, reports[-3:]
        raise AssertionError(f"the watcher ended: {reports[-3:]}")

    def until_it_sees(self, after: int = 0) -> int:
        """Returns how many frames were captured, once there are more and nothing troubles."""
        return int(self.until(lambda report: report["captured"] > after and not report["trouble"])["captured"])

    def until_trouble(self, words: str) -> dict[str, Any]:
        return self.until(lambda report: words in report["trouble"])


@pytest.fixture
def watch(cameras: Cameras) -> Iterator[Callable[[str], Watcher]]:
    watchers: list[Watcher] = []

    def start(source: str) -> Watcher:
        watchers.append(Watcher(cameras, source))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.process.kill()
        watcher.process.communicate()


def devices(cameras: Cameras) -> str:
    command = [sys.executable, "-m", "lego_client", "devices"]
    return subprocess.run(command, env=cameras.environment, check=True, capture_output=True, text=True).stdout


def test_cameras_are_listed_with_names_paths_formats_and_sizes(cameras: Cameras) -> None:
    cameras.plug(0, "HD Webcam")
    cameras.plug(2, "Ear Camera")
    header, *rows = devices(cameras).splitlines()
    assert header.split() == ["--source", "camera", "path", "formats"]
    assert rows[0].split() == ["0", "HD", "Webcam", "/dev/video0", "YUYV", "320x240", "640x480"]
    assert rows[1].split() == ["MJPG", "160x120", "1920x1080"]  # of a range, the least and the most
    assert rows[2].startswith("2         Ear Camera  /dev/video2")


def test_a_camera_that_may_not_be_opened_is_listed_without_formats(cameras: Cameras) -> None:
    cameras.plug(state="denied")
    assert "HD Webcam" in devices(cameras) and "not told" in devices(cameras)


def test_a_machine_without_cameras_says_so(cameras: Cameras) -> None:
    assert devices(cameras).startswith("no camera is attached\n")


@pytest.mark.parametrize("source", ["2", "/dev/video2", "camera:2", "camera:ear", "camera:Ear Camera"])
def test_a_camera_is_found_by_number_path_and_name(
    cameras: Cameras, watch: Callable[[str], Watcher], source: str
) -> None:
    cameras.plug(0, "HD Webcam", "busy")
    cameras.plug(2, "Ear Camera")
    watcher = watch(source)
    assert watcher.until(lambda report: report["captured"] > 3)["size"] == [240, 320, 3]


def test_the_age_of_a_frame_counts_from_the_drivers_time_stamp(
    cameras: Cameras, watch: Callable[[str], Watcher]
) -> None:
    cameras.plug()
    assert 0 <= watch("0").until(lambda report: report["captured"] > 3)["age"] < 10


def test_an_unplugged_camera_goes_on_by_itself_when_it_is_back(
    cameras: Cameras, watch: Callable[[str], Watcher]
) -> None:
    cameras.plug()
    watcher = watch("0")
    watcher.until_it_sees()
    cameras.unplug()
    seen = watcher.until_trouble("camera 0 is gone: plug it in again")["captured"]
    cameras.plug()
    watcher.until_it_sees(seen)


def test_a_camera_that_comes_back_under_another_number_is_found(
    cameras: Cameras, watch: Callable[[str], Watcher]
) -> None:
    cameras.plug(0)
    watcher = watch("0")
    watcher.until_it_sees()
    cameras.unplug(0)
    seen = watcher.until_trouble("is gone")["captured"]
    cameras.plug(3)
    watcher.until_it_sees(seen)


def test_another_camera_in_its_place_is_not_taken_for_it(cameras: Cameras, watch: Callable[[str], Watcher]) -> None:
    cameras.plug(0)
    watcher = watch("0")
    watcher.until_it_sees()
    cameras.unplug(0)
    seen = watcher.until_trouble("is gone")["captured"]
    cameras.plug(0, "Ear Camera")
    report = watcher.until_trouble("is gone")
    for _ in range(30):
        report = watcher.until(lambda report: True)
    assert report["captured"] == seen and "is gone" in report["trouble"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("dark", "the picture is black: uncover the lens, or switch on a light"),
        ("frozen", "one and the same picture for 5 s: unplug it and plug it in again"),
        ("silent", "camera 0 has delivered no frame for more than 3 s"),
        ("busy", "camera 0 (HD Webcam) gives no picture: close the program that uses it"),
    ],
)
def test_what_is_wrong_with_a_camera_is_told_in_plain_words_and_passes(
    cameras: Cameras, watch: Callable[[str], Watcher], state: str, words: str
) -> None:
    cameras.plug()
    watcher = watch("0")
    watcher.until_it_sees()
    if state == "busy":  # another program took it while it was unplugged
        cameras.unplug()
        watcher.until_trouble("is gone")
        cameras.plug(state="busy")
    else:
        cameras.turn(state)
    seen = watcher.until_trouble(words)["captured"]
    cameras.turn("on")
    watcher.until_it_sees(seen)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("busy", "camera 0 (HD Webcam) gives no picture: close the program that uses it"),
        ("denied", "camera 0 (HD Webcam) may not be used: allow access to /dev/video0"),
    ],
)
async def test_a_camera_that_cannot_be_used_is_one_line_and_code_two(
    cameras: Cameras, server: ScriptedServer, tmp_path: Path, state: str, words: str
) -> None:
    cameras.plug(state=state)
    finished = await finish(
        await start_client(
            "ask", "--server", server.target, "--source", "0", "--out", tmp_path / "out", QUERY, env=cameras.environment
        )
    )
    assert finished.code == 2
    assert words in the_error(finished)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1", "there is no camera 1: present are 0 (HD Webcam), 2 (HD Webcam)"),
        ("camera:ear", "there is no camera ear: present are 0 (HD Webcam), 2 (HD Webcam)"),
        ("camera:webcam", "2 cameras are called 'webcam'; give a number: present are 0 (HD Webcam), 2 (HD Webcam)"),
        ("/dev/video7", "there is no camera /dev/video7: present are"),
    ],
)
def test_a_camera_that_is_not_there_is_answered_with_those_that_are(
    cameras: Cameras, watch: Callable[[str], Watcher], source: str, words: str
) -> None:
    cameras.plug(0)
    cameras.plug(2)
    assert words in watch(source).until(lambda report: "error" in report)["error"]


async def test_a_query_is_asked_about_what_a_camera_sees_and_its_darkness_is_told(
    cameras: Cameras, server: ScriptedServer, tmp_path: Path
) -> None:
    cameras.plug(state="dark")
    finished = await finish(
        await start_client(
            "ask", "--server", server.target, "--source", "camera:hd", "--out", tmp_path / "out", "--rotate", 90, QUERY,
            env=cameras.environment,
        )
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    assert "the picture is black: uncover the lens" in finished.stdout
    with Image.open(tmp_path / "out" / "frame.jpg") as sent:
        assert sent.size == (240, 320)
