"""The screen as a source, on a display of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from lego_client.sources import open_source
from lego_core.errors import LegoError

pytest.importorskip("mss", reason="the extra 'screen' is not installed")


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("Xvfb, a display without a monitor, is not installed")
    told, telling = os.pipe()
    command = [server, "-displayfd", str(telling), "-screen", "0", "640x480x24", "-nolisten", "tcp", "-noreset"]
    process = subprocess.Popen(command, pass_fds=[telling], stderr=subprocess.DEVNULL)
    os.close(telling)
    with os.fdopen(told) as numbers:
        name = f":{numbers.readline().strip()}"
    yield name
    process.terminate()
    process.wait()


@pytest.fixture
def on_display(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", display)


@pytest.mark.parametrize(
    ("spec", "shape"), [("screen:", (480, 640, 3)), ("screen:1", (480, 640, 3)), ("screen:10,20,101,77", (77, 101, 3))]
)
def test_the_screen_or_a_part_of_it_is_seen(on_display: None, spec: str, shape: tuple[int, ...]) -> None:
    with open_source(spec) as source:
        frames = source.wait_for(3, 20)
    assert source.live and frames[-1].pixels.shape == shape
    assert source.trouble == ""  # a dark screen that stands still is nothing unusual


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("screen:left", "the screen is 'screen:left'; write screen:, screen:2 or screen:LEFT,TOP,WIDTH,HEIGHT"),
        ("screen:0", "monitors count from 1"),
        ("screen:0,0,4,100", "both sides need at least 8 pixels"),
    ],
)
def test_a_part_that_is_none_is_refused(spec: str, words: str) -> None:
    with pytest.raises(LegoError, match=words):
        open_source(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("screen:2", "this machine has 1 monitors?"),
        ("screen:600,400,300,300", "cannot be captured .*; .*a region of it"),
    ],
)
def test_a_part_that_is_not_there_is_reported(on_display: None, spec: str, words: str) -> None:
    with open_source(spec) as source, pytest.raises(LegoError, match=words):
        source.wait_for(1, 20)


def test_a_machine_without_a_display_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    words = r"cannot be captured .*where there is a display"
    with open_source("screen:") as source, pytest.raises(LegoError, match=words):
        source.wait_for(1, 20)


def test_a_missing_package_is_named_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)  # as if it were not installed
    with pytest.raises(LegoError, match=r"needs the package mss: pip install 'lego-ar\[screen\]'"):
        open_source("screen:")
