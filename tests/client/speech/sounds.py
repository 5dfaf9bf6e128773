"""Sounds for the tests: tones, files of every kind, and real voices that installed packages or fixtures bring."""

from __future__ import annotations

import importlib.util
import wave
from pathlib import Path

import numpy as np
import pytest
from lego_core.speech.audio import CHUNK, RATE, Samples

BECKETT = "ever tried ever failed no matter try again fail again fail better"  # of Worstward Ho, read by a man


def tone(seconds: float, hertz: float = 440.0, rate: int = RATE, level: float = 0.5) -> Samples:
    """Returns (N,) samples of a sine."""
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def chunks(samples: Samples) -> list[Samples]:
    """Returns (512,) pieces, the last filled up with silence."""
    return list(np.pad(samples, (0, -len(samples) % CHUNK)).reshape(-1, CHUNK))


def write_wav(path: Path, samples: Samples, rate: int = RATE, width: int = 2, channels: int = 1) -> Path:
    """Writes (N,) or (N, channels) samples as whole numbers of `width` bytes."""
    scaled = np.round(np.clip(samples, -1, 1) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        data = (scaled + 128).astype(np.uint8).tobytes()
    elif width == 3:
        data = scaled.astype("<i4").reshape(-1, 1).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    else:
        data = scaled.astype(f"<i{width}").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)
    return path


def beckett() -> Path:
    """Returns ten seconds of a man reading, which the package moonshine-cpp brings; no other machine has it."""
    spec = importlib.util.find_spec("moonshine_cpp")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("moonshine-cpp is not installed; it is for Linux on x86-64 and Macs of 2020 or later")
    return Path(spec.submodule_search_locations[0]) / "test-data" / "beckett.wav"


def words(text: str) -> str:
    """Returns the words alone."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())
