"""A voice: real processes, among them a small program that writes down what it is given and when it was stopped."""

from __future__ import annotations

import asyncio
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lego_client.speech.speak import PROGRAMS, Speaker, VoiceProgram, find_voice
from lego_core.errors import LegoError
from lego_core.speech.audio import read_wav
from lego_core.speech.recognise import open_recogniser

# Speaks for as long as its first argument says, as espeak-ng does: text from its standard input.
PROGRAM = f"""#!{sys.executable}
import pathlib, sys, time
folder = pathlib.Path(__file__).parent
if "--cancel" in sys.argv:
    (folder / "cancelled").touch()
    sys.exit()
text = sys.stdin.buffer.read()
with open(folder / "begun", "ab") as file:
    file.write(text + b"\\n")
time.sleep(float(sys.argv[1]))
with open(folder / "said", "ab") as file:
    file.write(text + b"\\n")
"""


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 what is waited for happens in another process
        await asyncio.sleep(0.01)


class Voice:
    """A program in a folder of its own.

    Attributes:
        program: What a speaker is given.
    """

    def __init__(self, folder: Path, seconds: float = 0.0, text: str = PROGRAM, silence: tuple[str, ...] = ()) -> None:
        self._folder = folder
        path = folder / "voice"
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.program = str(path), VoiceProgram("voice", (str(seconds),), silence)

    def _lines(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []

    @property
    def said(self) -> list[str]:
        """What was spoken to its end."""
        return self._lines("said")

    async def begins(self, text: str) -> None:
        """Waits until it speaks a text."""
        await until(lambda: text in self._lines("begun"))

    async def is_cancelled(self) -> None:
        """Waits until its service was told to be silent."""
        await until((self._folder / "cancelled").exists)


async def test_a_text_is_spoken(tmp_path: Path) -> None:
    voice = Voice(tmp_path)
    async with Speaker(voice.program) as speaker:
        speaker.say("Pull the handle\n  towards you.")
        assert speaker.speaking
        assert speaker.audible
        await speaker.finished()
        assert not speaker.speaking
    assert voice.said == ["Pull the handle towards you."]


@pytest.mark.parametrize(
    "text", ["--help; rm -rf $HOME `id` | cat > said", "-f /etc/passwd", "<speak>é “ü”</speak>", "$(touch said)"]
)
async def test_no_text_is_ever_taken_for_an_option_or_a_command(tmp_path: Path, text: str) -> None:
    voice = Voice(tmp_path)
    async with Speaker(voice.program) as speaker:
        speaker.say(text)
        await speaker.finished()
    assert voice.said == [text]


async def test_it_falls_silent_at_once(tmp_path: Path) -> None:
    voice = Voice(tmp_path, seconds=60)
    async with Speaker(voice.program) as speaker:
        speaker.say("a long story")
        await voice.begins("a long story")
        speaker.hush()
        await speaker.finished()
    assert voice.said == []


async def test_it_falls_silent_even_while_its_program_is_being_started(tmp_path: Path) -> None:
    voice = Voice(tmp_path, seconds=60)
    async with Speaker(voice.program) as speaker:
        speaker.say("a long story")
        speaker.hush()
        await speaker.finished()
        speaker.say("another")
        await asyncio.sleep(0)
        speaker.hush()
        await speaker.finished()
    assert voice.said == []


async def test_a_newer_text_takes_the_place_of_an_older(tmp_path: Path) -> None:
    voice = Voice(tmp_path, seconds=0.3)
    async with Speaker(voice.program) as speaker:
        speaker.say("old")
        await voice.begins("old")
        speaker.say("new")
        await speaker.finished()
    assert voice.said == ["new"]


async def test_while_the_wearer_speaks_the_newest_text_waits(tmp_path: Path) -> None:
    voice = Voice(tmp_path)
    async with Speaker(voice.program) as speaker:
        speaker.hold()
        speaker.say("old")
        speaker.say("new")
        await asyncio.sleep(0.2)
        assert not speaker.speaking
        speaker.release()
        await speaker.finished()
        assert voice.said == ["new"]
        speaker.hold()
        speaker.say("forgotten")
        speaker.hush()
        speaker.release()
        assert not speaker.speaking


async def test_a_muted_voice_says_nothing(tmp_path: Path) -> None:
    voice = Voice(tmp_path, seconds=60)
    async with Speaker(voice.program) as speaker:
        speaker.say("one")
        await voice.begins("one")
        speaker.muted = True
        await speaker.finished()
        speaker.say("two")
        assert not speaker.speaking
        speaker.muted = False
        speaker.say("three")
        await voice.begins("three")
    assert voice.said == []


async def test_nothing_is_spoken_of_an_empty_text_and_not_all_of_an_endless_one(tmp_path: Path) -> None:
    voice = Voice(tmp_path)
    async with Speaker(voice.program) as speaker:
        speaker.say("  \n ")
        assert not speaker.speaking
        speaker.say("word " * 10_000)
        await speaker.finished()
    assert len(voice.said[0]) == 2000


async def test_a_voice_that_speaks_through_a_service_tells_that_to_be_silent(tmp_path: Path) -> None:
    voice = Voice(tmp_path, seconds=60, silence=("--cancel",))
    async with Speaker(voice.program) as speaker:
        speaker.say("a long story")
        await voice.begins("a long story")
        speaker.hush()
        await voice.is_cancelled()


async def test_its_echo_is_waited_for(tmp_path: Path) -> None:
    async with Speaker(Voice(tmp_path).program) as speaker:
        assert not speaker.audible
        speaker.say("word")
        await speaker.finished()
        assert speaker.audible
        await until(lambda: not speaker.audible)


FAILING = "#!/bin/sh\ncat > /dev/null\necho 'odd things' >&2\necho 'no sound card' >&2\nexit {}\n"


@pytest.mark.parametrize("text", [FAILING.format(3), FAILING.format(0).replace("no sound", "error: no sound")])
async def test_a_program_that_fails_is_told_with_its_own_words(tmp_path: Path, text: str) -> None:
    async with Speaker(Voice(tmp_path, text=text).program) as speaker:
        speaker.say("word")
        with pytest.raises(LegoError, match=r"could not speak \(.*no sound card\); check this machine's sound output"):
            await speaker.finished()
        speaker.say("word")  # told once
        await asyncio.sleep(0)
        await until(lambda: not speaker.speaking)
        with pytest.raises(LegoError, match="no sound card"):
            speaker.say("another")


async def test_a_program_that_vanished_is_told(tmp_path: Path) -> None:
    async with Speaker((str(tmp_path / "gone"), VoiceProgram("gone", ()))) as speaker:
        speaker.say("word")
        with pytest.raises(LegoError, match="gone cannot be started"):
            await speaker.finished()


@pytest.mark.parametrize(
    ("platform", "present", "found"),
    [
        ("linux", {"espeak-ng", "spd-say"}, "espeak-ng"),
        ("linux", {"spd-say"}, "spd-say"),
        ("darwin", {"say", "espeak-ng"}, "say"),
        ("win32", {"powershell"}, "powershell"),
    ],
)
def test_each_system_has_its_own_voice(platform: str, present: set[str], found: str) -> None:
    path, program = find_voice(platform, lambda name: f"/bin/{name}" if name in present else None)
    assert path == f"/bin/{found}"
    assert program.name == found


@pytest.mark.parametrize(
    ("platform", "part"),
    [("linux", "apt install espeak-ng"), ("darwin", "looked for say"), ("aix", "none, on this system")],
)
def test_a_machine_without_a_voice_is_told(platform: str, part: str) -> None:
    with pytest.raises(LegoError, match=part):
        find_voice(platform, lambda name: None)


def espeak() -> str:
    path = shutil.which("espeak-ng")
    if path is None:
        pytest.skip("espeak-ng is not installed; apt install espeak-ng")
    return path


async def test_what_espeak_says_is_understood(tmp_path: Path) -> None:
    (known,) = (program for program in PROGRAMS if program.name == "espeak-ng")
    written = tmp_path / "said.wav"
    to_file = VoiceProgram(known.name, ("-s", "140", "-w", str(written), *known.arguments))
    async with Speaker((espeak(), to_file)) as speaker:
        speaker.say("Turn on the stove.")
        await speaker.finished()
    recogniser = await asyncio.to_thread(open_recogniser)
    recogniser.start()
    recogniser.feed(read_wav(written))
    assert "stove" in recogniser.finish().text.lower()


async def test_espeak_falls_silent_in_the_middle_of_a_text() -> None:
    async with Speaker((espeak(), VoiceProgram("espeak-ng", ("--stdin", "--stdout")))) as speaker:
        speaker.say("word " * 300)
        await asyncio.sleep(0.01)
        speaker.hush()
        began = time.monotonic()
        await speaker.finished()
        assert time.monotonic() - began < 30
