"""Recognition in a thread of its own, so that neither the microphone nor the event loop ever waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, Samples
from lego_core.speech.recognise import Recogniser, Transcript, UtteranceLost

from lego_client.speech.microphone import Notice

# Utterances that wait while one is written down. People speak less than they pause, so more means a stuck recogniser.
_MOST_WAITING = 4
# A pause this long may be the end: what was said is written down now, and need not be when the hang-over has passed.
_PAUSE_SECONDS = 0.16


@dataclass(frozen=True)
class Partial:
    """What an utterance that goes on seems to say so far; it may be put right later.

    Attributes:
        text: The words.
    """

    text: str


@dataclass(frozen=True)
class Final:
    """What an utterance said.

    Attributes:
        text: The words; there is at least one.
        confidence: The recogniser's, in [0, 1]; None where it gives none.
        seconds: How long the utterance was, silence at its ends included.
        delay: Seconds from when the last of its speech was heard to this transcript, the hang-over included.
        complete: Whether it ended by itself; False where sound is missing at its end.
    """

    text: str
    confidence: float | None
    seconds: float
    delay: float
    complete: bool


@dataclass(frozen=True)
class NothingUnderstood:
    """An utterance ended, and nothing is made of it: it was a cough, or no words were found in it.

    Attributes:
        seconds: How long it was.
    """

    seconds: float


@dataclass
class _Utterance:
    pieces: list[Samples] = field(default_factory=list)
    samples: int = 0
    voiced: int = 0  # samples up to the end of the last speech
    voiced_at: float = 0.0  # when that was heard
    ended: bool = False
    worth: bool = False
    complete: bool = True

    def has_outrun(self, through: int) -> bool:
        """Whether it may be over and there is more speech in it than so many samples: those are worth no more work."""
        return self.voiced > through and (self.ended or self.samples - self.voiced >= _PAUSE_SECONDS * RATE)


class Transcriber:
    """Feeds a recogniser from another thread and passes on what it makes of each utterance, in order.

    Args:
        recogniser: Used by this object's thread alone from now on; closed with it.
        emit: Called in that thread with each result, or with the error that ended it.
        partial_seconds: How much new speech is worth another partial transcript; infinity for none at all.
    """

    def __init__(
        self, recogniser: Recogniser, emit: Callable[[Partial | Final | NothingUnderstood | Notice | LegoError], None],
        partial_seconds: float = 0.8,
    ) -> None:  # fmt: skip
        self._recogniser = recogniser
        self._emit = emit
        self._partial_seconds = partial_seconds
        self._utterances: deque[_Utterance] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"recogniser {recogniser.name}", daemon=True)
        self._thread.start()

    def begin(self, samples: Samples) -> int:
        """An utterance begins. Returns how many older ones were given up because recognition is too slow: 0 or 1."""
        with self._changed:
            given_up = 0
            if len(self._utterances) > _MOST_WAITING:
                del self._utterances[1]  # the oldest that is not being written down
                given_up = 1
            utterance = _Utterance()
            self._utterances.append(utterance)
            _add(utterance, samples, True)
            self._changed.notify_all()
        return given_up

    def more(self, samples: Samples, voiced: bool) -> None:
        """It goes on."""
        with self._changed:
            _add(self._utterances[-1], samples, voiced)
            self._changed.notify_all()

    def end(self, worth: bool, complete: bool) -> None:
        """It has ended.

        Args:
            worth: Whether to write it down at all.
            complete: What `Final.complete` will say.
        """
        with self._changed:
            utterance = self._utterances[-1]
            utterance.ended, utterance.worth, utterance.complete = True, worth, complete
            self._changed.notify_all()

    def wait(self, most: int = 0) -> None:
        """Blocks until at most so many utterances are left, or this is closed: how a file waits for its reader."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or len(self._utterances) <= most)

    def close(self) -> None:
        """Gives up what is left. May be called more than once."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        # A recogniser may hang in a library of its own; the thread is a daemon, so the program can still end.
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or bool(self._utterances))
                    if self._closing:
                        break
                    utterance = self._utterances[0]
                try:
                    result = self._write_down(utterance)
                    if result is not None:
                        self._emit(result)
                except UtteranceLost as error:
                    self._emit(NothingUnderstood(utterance.samples / RATE))
                    self._emit(Notice(str(error)))
                with self._changed:
                    # One that was lost may still be spoken, and the ear adds to it.
                    self._changed.wait_for(lambda: self._closing or utterance.ended)  # noqa: B023
                    if self._closing:
                        break
                    self._utterances.popleft()
                    self._changed.notify_all()
        except LegoError as error:
            self._fail(error)
        except Exception as error:  # of a library that may raise anything; whoever listens must hear of it
            self._fail(LegoError(f"the recogniser {self._recogniser.name} failed ({error}); choose another"))
        finally:
            with contextlib.suppress(Exception):  # it may have failed already
                self._recogniser.close()

    def _fail(self, error: LegoError) -> None:
        self._emit(error)  # before whoever waits is let go, so that nothing else is heard first
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _write_down(self, utterance: _Utterance) -> Final | NothingUnderstood | None:
        recogniser = self._recogniser
        recogniser.start()
        fed = pieces_fed = written = 0  # samples, pieces, and samples that `latest` is about
        latest: Transcript | None = None
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or utterance.ended or len(utterance.pieces) > pieces_fed  # noqa: B023
                )
                if self._closing:
                    return None
                new, pieces_fed = utterance.pieces[pieces_fed:], len(utterance.pieces)
                voiced, ended = utterance.voiced, utterance.ended
            if new:
                recogniser.feed(np.concatenate(new))
                fed += sum(map(len, new))
            if ended:
                break
            unwritten = voiced - written
            pausing = fed - voiced >= _PAUSE_SECONDS * RATE
            wanted = self._partial_seconds < float("inf") and unwritten > 0
            if wanted and (pausing or unwritten >= self._partial_seconds * RATE):
                through = fed
                heard = recogniser.hypothesis(lambda: self._closing or utterance.has_outrun(through))  # noqa: B023
                if heard is None:
                    continue
                if heard.text and (latest is None or heard.text != latest.text):
                    self._emit(Partial(heard.text))
                latest, written = heard, through
        seconds = utterance.samples / RATE
        if not utterance.worth:
            recogniser.drop()
            return NothingUnderstood(seconds)
        known = recogniser.exact and latest is not None and written >= utterance.voiced
        final = latest if known and latest is not None else recogniser.finish()
        if not any(map(str.isalnum, final.text)):  # recognisers write "..." of noise
            return NothingUnderstood(seconds)
        delay = time.monotonic() - utterance.voiced_at
        return Final(final.text, final.confidence, seconds, delay, utterance.complete)


def _add(utterance: _Utterance, samples: Samples, voiced: bool) -> None:
    utterance.pieces.append(samples)
    utterance.samples += len(samples)
    if voiced:
        utterance.voiced, utterance.voiced_at = utterance.samples, time.monotonic()
