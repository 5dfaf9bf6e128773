"""A voice for the description: whatever program for that this machine has, run as a process that can be cut off."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lego_core.errors import LegoError

# What a loudspeaker and a room still give back after the program has ended.
_ECHO_SECONDS = 0.3
_MOST_CHARACTERS = 2000

# Text goes in through the standard input, so no word of it can be taken for an option or a command.
_SAPI = (
    "Add-Type -AssemblyName System.Speech; [Console]::InputEncoding = [Text.Encoding]::UTF8; "
    "(New-Object System.Speech.Synthesis.SpeechSynthesizer).Speak([Console]::In.ReadToEnd())"
)


@dataclass(frozen=True)
class VoiceProgram:
    """A program that speaks.

    Attributes:
        name: Its file name.
        arguments: What makes it speak what it reads from its standard input, and end when it has.
        silence: Arguments that make it fall silent where ending it does not, since a service of its own speaks.
        platforms: Beginnings of `sys.platform`.
    """

    name: str
    arguments: tuple[str, ...]
    silence: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("linux", "freebsd")


# The first that is found speaks.
PROGRAMS = (
    VoiceProgram("say", ("-f", "-"), platforms=("darwin",)),
    VoiceProgram("powershell", ("-NoProfile", "-NonInteractive", "-Command", _SAPI), platforms=("win32",)),
    VoiceProgram("espeak-ng", ("--stdin",)),
    VoiceProgram("espeak", ("--stdin",)),
    VoiceProgram("spd-say", ("--pipe-mode", "--wait"), silence=("--cancel",)),
)


def find_voice(
    platform: str = sys.platform, which: Callable[[str], str | None] = shutil.which
) -> tuple[str, VoiceProgram]:
    """Returns the path of the program that will speak, and what is known of it.

    Args:
        platform: As `sys.platform`.
        which: Finds a program by its name.

    Raises:
        LegoError: There is none; the message says how to get one.
    """
    names = []
    for program in PROGRAMS:
        if platform.startswith(program.platforms):
            names.append(program.name)
            if path := which(program.name):
                return path, program
    if platform.startswith("linux"):
        cure = "install one (Debian and Ubuntu: apt install espeak-ng)"
    else:
        cure = "see that it can be found by its name"
    raise LegoError(f"no program here can speak (looked for {', '.join(names) or 'none, on this system'}); {cure}")


class Speaker:
    """Speaks one text at a time; a newer one takes an older one's place at once.

        async with Speaker() as speaker:
            speaker.say("Pull the handle towards you.")     # returns at once
            speaker.hush()                                  # the wearer speaks, or there is a newer answer
            await speaker.finished()

    Methods must be called from the event loop's thread; `audible` may be read from any.

    Args:
        voice: Path of a program, and what is known of it; None finds one.
        environment: Of the program; None passes this process' own on.

    Raises:
        LegoError: No program here can speak.
    """

    def __init__(
        self, voice: tuple[str, VoiceProgram] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._path, self._program = voice or find_voice()
        self._environment = environment
        self._tasks: set[asyncio.Task[None]] = set()
        self._process: asyncio.subprocess.Process | None = None
        self._turn = 0
        self._waiting: str | None = None
        self._held = self._muted = False
        self._quiet_from = 0.0
        self._failure: LegoError | None = None

    @property
    def name(self) -> str:
        """Which program speaks."""
        return self._program.name

    @property
    def speaking(self) -> bool:
        """Whether a text is being spoken."""
        return bool(self._tasks)

    @property
    def audible(self) -> bool:
        """Whether a microphone in the same room may hear this voice or its echo now."""
        return self.speaking or time.monotonic() < self._quiet_from

    @property
    def muted(self) -> bool:
        """Whether nothing is spoken, by the wearer's wish."""
        return self._muted

    @muted.setter
    def muted(self, muted: bool) -> None:
        self._muted = muted
        if muted:
            self.hush()

    def say(self, text: str) -> None:
        """Speaks a text in place of any other; while held, the newest is kept until `release`. Returns at once.

        Args:
            text: Plain words; more than 2000 characters are cut off.

        Raises:
            LegoError: The program failed at the text before.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self.hush()
        text = " ".join(text.split())[:_MOST_CHARACTERS]
        if self._muted or not text:
            return
        if self._held:
            self._waiting = text
        else:
            self._start(self._speak(text, self._turn))

    def hush(self) -> None:
        """Is silent at once and forgets what waits."""
        self._waiting = None
        self._turn += 1
        if self._process is None:
            return
        _kill(self._process)
        self._process = None
        if self._program.silence:  # its service has the text already
            self._start(self._call(*self._program.silence))

    def hold(self) -> None:
        """The wearer begins to speak: is silent, and stays so until `release`."""
        self.hush()
        self._held = True

    def release(self) -> None:
        """The wearer has ended: speaks what came meanwhile."""
        self._held = False
        text, self._waiting = self._waiting, None
        if text is not None:
            self.say(text)

    async def finished(self) -> None:
        """Waits until nothing is spoken any more.

        Raises:
            LegoError: The program failed.
        """
        while self._tasks:
            await asyncio.wait(self._tasks)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.hush()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _speak(self, text: str, turn: int) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                self._path, *self._program.arguments, env=self._environment, stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            self._failure = LegoError(f"{self._path} cannot be started ({error.strerror}); install it again")
            return
        if turn == self._turn:
            self._process = process
        else:  # hushed while it was being started
            _kill(process)
        _, complaint = await process.communicate(text.encode())
        self._quiet_from = time.monotonic() + _ECHO_SECONDS
        if turn != self._turn:
            return
        self._process = None
        lines = complaint.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
        if process.returncode or lines[-1].startswith("error:"):  # espeak-ng ends with 0 where there is no sound output
            self._failure = LegoError(
                f"{self._path} could not speak ({lines[-1]}); check this machine's sound output, or go without a voice"
            )

    async def _call(self, *arguments: str) -> None:
        nowhere = asyncio.subprocess.DEVNULL
        with contextlib.suppress(OSError):  # it could be started a moment ago; if not, there is nothing to silence
            process = await asyncio.create_subprocess_exec(
                self._path, *arguments, env=self._environment, stdin=nowhere, stdout=nowhere, stderr=nowhere
            )
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
