"""A recogniser that understands one word per so many samples, and says what it was asked to do."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lego_core.speech.audio import Samples
from lego_core.speech.recognise import Transcript


class ScriptedRecogniser:
    """Hears "word1 word2 ...", one word for each `samples_a_word` it was fed.

    Attributes:
        calls: The names of the methods called, in order.
        gate: A hypothesis waits for this; set from the start.
        stopped: Whether a hypothesis was broken off.
        exact: As `Recogniser` has it.
    """

    name = "scripted"
    exact = True

    def __init__(self, samples_a_word: int = 1000, fails: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.stopped = False
        self._samples_a_word = samples_a_word
        self._fails = fails
        self._fed = 0

    def start(self) -> None:
        self.calls.append("start")
        self._fed = 0

    def feed(self, samples: Samples) -> None:
        self._fed += len(samples)

    def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
        self.calls.append("hypothesis")
        self.entered.set()
        while not self.gate.wait(0.01):
            if stop():
                self.stopped = True
                return None
        return self._heard()

    def finish(self) -> Transcript:
        self.calls.append("finish")
        if self._fails is not None:
            raise self._fails
        return self._heard()

    def drop(self) -> None:
        self.calls.append("drop")

    def close(self) -> None:
        self.calls.append("close")

    def _heard(self) -> Transcript:
        words = " ".join(f"word{number + 1}" for number in range(self._fed // self._samples_a_word))
        return Transcript(words, 0.5 if words else 0.0)
