"""`lego-client live` as a wearer runs it: in a window, and on a machine that has none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageGrab

from tests.end_to_end.processes import CLIENT, Server, serving

QUERY = "How do I open the drawer?"
_SECONDS = 60.0


def test_without_a_display_questions_are_lines_and_so_are_answers(
    server: Server, kitchen: Path, tmp_path: Path
) -> None:
    with live(server.address, kitchen, "--display", "none", "--out", str(tmp_path / "answers")) as wearer:
        assert wearer.stdin is not None
        print(QUERY, file=wearer.stdin, flush=True)
        said = until_said(wearer, "saved in ")
        print("/help me", "/quit", sep="\n", file=wearer.stdin, flush=True)
        said += until_said(wearer, "none of the commands")
        assert wearer.wait(_SECONDS) == 0
    assert f"question: {QUERY}" in said and "answer after " in said
    assert Image.open(tmp_path / "answers" / "001" / "guidance.jpg").size == (256, 256)


def test_a_server_that_is_killed_shows_as_offline_and_the_question_is_answered_by_the_next(
    model: Path, kitchen: Path, tmp_path: Path
) -> None:
    arguments = "--display", "none", "--steps", "60", "--query", QUERY
    with serving(model, tmp_path / "first log") as first, live(first.address, kitchen, *arguments) as wearer:
        until_said(wearer, "question")
        time.sleep(1)  # the server is at it by then, or not: both must end well
        first.process.kill()
        first.process.wait()
        until_said(wearer, "is away; trying again")
        with serving(model, tmp_path / "second log", "--port", first.address.rpartition(":")[2]):
            said = until_said(wearer, "answer after")
            assert "online" in said
            assert wearer.stdin is not None
            print("/quit", file=wearer.stdin, flush=True)
            assert wearer.wait(_SECONDS) == 0
    assert (tmp_path / "second log").read_text().count("steps=60 ") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--display", "hologram"], "it must be one of window, terminal, none"),
        (["--display", "terminal"], "keys cannot be read here"),
        (["--display", "none", "--mode", "upside-down"], "it must be one of ghost"),
        (["--display", "none", "--server", "nowhere"], "it must be HOST:PORT"),
        (["--display", "none", "--stream-fps", "1000"], "it must be from 0 to 30"),
        (["--display", "none", "--source", "no such camera"], "there is no"),
        (["--display", "none", "--source", "97"], "there is no camera 97"),
        (["--display", "none", "--stream-fps", "2", "--data-saver"], "--data-saver none unasked; choose one"),
        (["--display", "none", "--wake", "hey lego"], "say how to listen; add --listen voice or --listen talk"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_opens(kitchen: Path, arguments: list[str], told: str) -> None:
    source = [] if "--source" in arguments else ["--source", str(kitchen)]
    result = subprocess.run(
        [*CLIENT, "live", *source, *arguments],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 2 and told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_in_a_window_a_question_is_typed_and_its_answer_seen(server: Server, kitchen: Path, tmp_path: Path) -> None:
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: xvfb and xdotool)")
    with screen() as display:
        answers = tmp_path / "answers"
        with live(server.address, kitchen, "--display", "window", "--out", str(answers), DISPLAY=display) as wearer:
            window = until_true(lambda: xdotool(display, "search", "--name", "LEGO-AR").split())[-1]
            xdotool(display, "windowfocus", window)
            before = ImageGrab.grab(xdisplay=display)
            xdotool(display, "key", "--window", window, "Return")
            xdotool(display, "type", "--window", window, QUERY)  # as fast as keys can come
            xdotool(display, "key", "--window", window, "Return")
            until_true(lambda: list(answers.glob("001/record.json")))
            until_true(lambda: ImageGrab.grab(xdisplay=display).tobytes() != before.tobytes())
            xdotool(display, "key", "--window", window, "q")
            assert wearer.wait(_SECONDS) == 0
    assert QUERY.lower() in (answers / "001" / "record.json").read_text().lower()


@contextmanager
def live(address: str, source: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*CLIENT, "live", "--server", address, "--source", str(source), "--previews", "1", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | variables,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_said(process: subprocess.Popen[str], words: str) -> str:
    """Reads on until the client has said that; returns all it has said."""
    assert process.stdout is not None
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, f"the client ended before it said {words!r}: {said}"
        sys.stdout.write(line)
        said += line
    return said


def until_true(condition: Callable[[], list[str] | bool | list[Path]]) -> Any:
    until = time.monotonic() + _SECONDS
    while not (value := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return value


@contextmanager
def screen() -> Iterator[str]:
    """A screen that nobody sees; yields its name."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1000x800x24"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield f":{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def xdotool(display: str, *arguments: str) -> str:
    result = subprocess.run(
        ["xdotool", *arguments], env=os.environ | {"DISPLAY": display}, capture_output=True, text=True
    )
    return result.stdout
