"""`lego-client listen` and `devices`, as they are run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lego_client.cli import run
from lego_client.devices import microphones_table
from lego_client.speech.microphone import MicrophoneInfo
from lego_core.speech.audio import read_wav
from rich.console import Console

from tests.client.speech.sounds import beckett, silence, words, write_wav


def test_a_recording_is_shown_as_it_is_understood_and_what_it_would_ask(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["listen", "--audio", str(beckett()), "--fast"]) == 0
    shown = capsys.readouterr().out
    assert "listening to beckett.wav with moonshine-base" in shown
    assert "% sure" in shown
    assert "no matter" in words(shown)
    assert "ask: " in shown


def test_a_pipe_is_listened_to(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = read_wav(fixtures / "speech" / "tts" / "q02_flite_slt.wav")
    finished = subprocess.run(
        [sys.executable, "-m", "lego_client", "listen", "--audio", "-", "--grammar", "household"],
        input=(said * 32767).astype("<i2").tobytes(), capture_output=True, timeout=120, check=True,
    )  # fmt: skip
    assert "ask: pour water into the cup" in finished.stdout.decode()


def test_ctrl_c_ends_listening_to_a_pipe_that_says_nothing() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lego_client", "listen", "--audio", "-", "--grammar", "household"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert "listening to standard input" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint == "stopped\n"


def test_what_is_not_addressed_to_the_assistant_is_not_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["listen", "--audio", str(beckett()), "--fast", "--wake", "hey lego"]) == 0
    shown = capsys.readouterr().out
    assert "not addressed to the assistant" in shown
    assert "ask: " not in shown


def test_a_silent_recording_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_wav(tmp_path / "silent.wav", silence(5))
    assert run(["listen", "--audio", str(path), "--fast", "--grammar", "household"]) == 0
    assert "notice: silent.wav has sent nothing but zeros" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--audio", "nowhere.wav"], "there is no 'nowhere.wav'"),
        (["--audio", "a.wav", "--microphone", "0"], "choose one"),
        (["--fast"], "--fast is for a WAV file"),
        (["--wake", "x"], "the wake word is 'x'"),
        (["--audio", "EMPTY", "--fast"], "holds no sound"),
        (["--audio", "OK", "--recogniser", "whisper"], "the recogniser is 'whisper'"),
        (["--audio", "OK", "--grammar", "nowhere"], "there is no grammar 'nowhere'"),
        (["--audio", "OK", "--speech-model", "."], "give the directory of a Moonshine model"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(
    arguments: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "EMPTY": write_wav(tmp_path / "empty.wav", np.zeros(0, np.float32)),
        "OK": write_wav(tmp_path / "ok.wav", silence(0.1)),
    }
    assert run(["listen", *(str(given.get(argument, argument)) for argument in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line


def test_devices_lists_microphones_or_says_that_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    shown = capsys.readouterr().out
    assert "--microphone" in shown or "no microphone is attached" in shown or "apt install libportaudio2" in shown


def test_the_table_of_microphones_says_what_to_write() -> None:
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(microphones_table([MicrophoneInfo(3, "USB [headset]", 2, 48_000, True)]))
    assert console.export_text().splitlines()[1].split() == ["3", "USB", "[headset]", "(default)", "2", "48000", "Hz"]
