"""The command `lego-client overlay`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.cli import run
from numpy.typing import NDArray
from PIL import Image

from benchmarks.panning import Look, textured_scene, wandering

SIZE = 320, 240
FRAMES = 40


scene = lru_cache(textured_scene)


def view(look: Look, seed: int = 0) -> NDArray[np.uint8]:
    return cv2.resize(look.view(scene(seed)), SIZE, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a wandering look, and an answer about its first frame."""
    path = tmp_path_factory.mktemp("overlay")
    writer = cv2.VideoWriter(str(path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, SIZE)
    for frame in range(FRAMES):
        writer.write(cv2.cvtColor(view(wandering(frame / 20)), cv2.COLOR_RGB2BGR))
    writer.release()
    answer = path / "001"
    answer.mkdir()
    asked = view(Look())
    Image.fromarray(asked).save(answer / "frame.jpg", quality=95)
    acted = asked.copy()
    cv2.circle(acted, (160, 120), 45, (250, 40, 40), -1)
    Image.fromarray(acted).save(answer / "guidance.jpg", quality=95)
    (answer / "record.json").write_text(json.dumps({"description": "The right hand presses the red button."}))
    return path


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    video.release()
    return frames


def redness(frame: NDArray[np.uint8]) -> float:
    """How much redder than green the middle of a frame is."""
    middle = frame[100:140, 140:180].reshape(-1, 3).mean(axis=0)
    return float(middle[0] - middle[1])


def test_a_saved_answer_becomes_a_film_with_its_ghost_and_its_words(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.mp4"
    finished = subprocess.run(
        [sys.executable, "-m", "lego_client", "overlay", folder / "clip.mp4", "--answer", folder / "001", "--out", out],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert f"wrote {out}: {FRAMES} frames; the scene was found in 100%" in finished.stdout
    film, clip = frames_of(out), frames_of(folder / "clip.mp4")
    assert len(film) == FRAMES and film[0].shape == clip[0].shape
    assert redness(film[7]) > redness(clip[7]) + 60
    assert film[0][-20:].mean() < clip[0][-20:].mean() - 40  # the caption's band


@pytest.mark.parametrize("mode", ["side-by-side", "picture-in-picture", "slider"])
def test_every_mode_makes_a_film(folder: Path, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "film.mp4"
    code = run(
        ["overlay", str(folder / "clip.mp4"), "--answer", str(folder / "001"), "--out", str(out), "--mode", mode]
    )
    assert code == 0, capsys.readouterr().err
    assert len(frames_of(out)) == FRAMES
    assert "was found" not in capsys.readouterr().out


def test_single_pictures_will_do_and_an_earlier_film_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "film.mp4"
    answer = folder / "001"
    arguments = ["overlay", str(folder / "clip.mp4"), "--guidance", str(answer / "guidance.jpg"), "--asked",
                 str(answer / "frame.jpg"), "--out", str(out)]  # fmt: skip
    assert run(arguments) == run(arguments) == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["film-2.mp4", "film.mp4"]


def test_a_clip_of_another_place_says_that_tracking_is_lost(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "frame.png"
    Image.fromarray(view(Look(), seed=1)).save(elsewhere)
    out = tmp_path / "film.mp4"
    arguments = ["overlay", str(folder / "clip.mp4"), "--answer", str(folder / "001"), "--asked", str(elsewhere)]
    assert run([*arguments, "--out", str(out)]) == 0
    assert "the scene was found in 0%" in capsys.readouterr().out
    badge = frames_of(out)[20][6:22, 6:80].astype(int) - frames_of(folder / "clip.mp4")[20][6:22, 6:80]
    assert badge.mean() < -30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance", "guidance.jpg"], "the mode ghost needs the frame that was asked about"),
        (["--guidance", "guidance.jpg", "--mode", "slider"], "the mode slider needs the frame"),
        ([], "there is no guidance frame; give --answer FOLDER or --guidance PICTURE"),
        (["--guidance", "nowhere.png"], "nowhere.png is no file; give a picture"),
        (["--guidance", "record.json"], "record.json cannot be read as a picture"),
        (["--answer", ".."], "holds no answer (record.json cannot be read); name its folder"),
        (["--guidance", "guidance.jpg", "--mode", "hologram"], "the mode is 'hologram'; it must be one of"),
        (["--guidance", "guidance.jpg", "--mode", "picture-in-picture", "--size", "2"], "the size is 2; it must be"),
        (["--guidance", "guidance.jpg", "--mode", "picture-in-picture", "--corner", "x"], "the corner is 'x'"),
        (["--answer", ".", "--mode", "slider", "--position", "7"], "the position is 7; it must be from 0 to 1"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_two(
    folder: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder / "001")
    out = tmp_path / "film.mp4"
    assert run(["overlay", str(folder / "clip.mp4"), "--out", str(out), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("clip", "out", "message"),
    [
        ("nothing.mp4", "film.mp4", "there is no"),
        ("001/frame.jpg", "film.mp4", "unsupported type '.jpg'"),
        ("damaged.mp4", "film.mp4", "damaged.mp4 cannot be read as a video"),
        ("clip.mp4", "film.gif", "give it a name that ends in .mp4"),
    ],
)
def test_a_clip_or_film_that_cannot_be_is_named(
    folder: Path, tmp_path: Path, clip: str, out: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    (folder / "damaged.mp4").write_bytes(b"\x00garbage" * 100)
    arguments = ["overlay", str(folder / clip), "--answer", str(folder / "001"), "--out", str(tmp_path / out)]
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / out).exists()
