"""The window on the desktop, on a display that nobody sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from lego_client.window import PictureWindow, check_window, has_desktop
from lego_core.errors import LegoError
from PIL import ImageGrab

pytest.importorskip("tkinter", reason="this Python has no Tk (Debian: python3-tk)")

ORANGE, BLACK = (230, 120, 20), (0, 0, 0)


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("Xvfb or xdotool is not installed (Debian: xvfb and xdotool)")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield f":{process.stdout.readline().strip()}"
    process.terminate()
    process.wait()


@pytest.fixture
def window(screen: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PictureWindow]:
    monkeypatch.setenv("DISPLAY", screen)
    with PictureWindow("a window") as opened:
        yield opened


def xdotool(*arguments: str) -> str:
    return subprocess.run(["xdotool", *arguments], capture_output=True, text=True, check=True).stdout


def until(window: PictureWindow, condition: Callable[[], bool]) -> list[str]:
    """Lets the window react until a condition holds; returns the keys pressed meanwhile."""
    keys, end = window.take_keys(), time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"it did not happen; keys: {keys}"
        keys += window.take_keys()
        time.sleep(0.01)
    return keys + window.take_keys()


def colour_at(x: int, y: int) -> tuple[int, ...]:
    pixel = ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


def orange(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), ORANGE, np.uint8)


def test_a_picture_fills_a_window_of_its_own_size(window: PictureWindow) -> None:
    window.show(orange(320, 240))
    until(window, lambda: colour_at(310, 230) == ORANGE)
    assert "Geometry: 320x240" in xdotool("search", "--name", "a window", "getwindowgeometry")


def test_a_window_made_wider_keeps_the_picture_whole_and_its_shape(window: PictureWindow) -> None:
    window.show(orange(320, 240))
    until(window, lambda: colour_at(160, 120) == ORANGE)
    xdotool("search", "--name", "a window", "windowsize", "640", "240")

    def is_centred() -> bool:
        window.show(orange(320, 240))
        return colour_at(320, 120) == ORANGE and colour_at(100, 120) == BLACK and colour_at(540, 120) == BLACK

    until(window, is_centred)


def test_a_picture_larger_than_the_screen_is_shown_whole(window: PictureWindow) -> None:
    picture = orange(1600, 1200)
    picture[-200:, -200:] = (0, 0, 255)
    window.show(picture)
    until(window, lambda: colour_at(700, 520) == (0, 0, 255))


def test_every_key_is_taken_in_its_order_however_fast(window: PictureWindow) -> None:
    window.show(orange(320, 240))
    window.take_keys()
    xdotool("search", "--name", "a window", "windowfocus")
    text = "How do I open the [left] drawer?"
    pressed: list[str] = []
    typing = subprocess.Popen(["xdotool", "type", "--delay", "1", text])
    pressed += until(window, lambda: typing.poll() is not None)
    for key in ("Return", "KP_Enter", "BackSpace", "Escape", "Left", "Right", "F5", "shift", "q"):
        xdotool("key", key)
    while "q" not in pressed:
        pressed += window.take_keys()
    assert pressed == [*text, "enter", "enter", "backspace", "escape", "left", "right", "q"]


def test_two_windows_may_follow_one_another(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    for _ in range(2):
        with PictureWindow("a window") as window:
            window.show(orange(320, 240))
            until(window, lambda: colour_at(160, 120) == ORANGE)
    assert window.take_keys() == []


def test_without_a_desktop_or_a_display_that_answers_one_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DISPLAY", ":4711")
    assert has_desktop()
    with pytest.raises(LegoError, match=r"no window can be opened .*:4711.*use --display terminal"):
        PictureWindow("a window")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(LegoError, match=r"there is no desktop here \(DISPLAY is not set\)"):
        check_window()


def test_a_python_without_tk_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(LegoError, match="apt install python3-tk"):
        check_window()
