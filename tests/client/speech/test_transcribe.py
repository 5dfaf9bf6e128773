"""Partial and final transcripts from a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from lego_client.speech.microphone import Notice
from lego_client.speech.transcribe import Final, NothingUnderstood, Partial, Transcriber
from lego_core.errors import LegoError
from lego_core.speech.audio import CHUNK, RATE
from lego_core.speech.recognise import Transcript, UtteranceLost

from tests.client.speech.scripted_recogniser import ScriptedRecogniser
from tests.client.speech.sounds import silence, tone

Result = Partial | Final | NothingUnderstood | Notice | LegoError


class Told:
    """Results, as they come."""

    def __init__(self) -> None:
        self._results: queue.Queue[Result] = queue.Queue()
        self.put = self._results.put

    def next(self) -> Result:
        return self._results.get(timeout=20)

    def final(self) -> Final:
        while not isinstance(result := self.next(), Final):
            assert isinstance(result, Partial)
        return result

    @property
    def empty(self) -> bool:
        return self._results.empty()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def recogniser() -> ScriptedRecogniser:
    return ScriptedRecogniser()


@pytest.fixture
def transcriber(recogniser: ScriptedRecogniser, told: Told) -> Iterator[Transcriber]:
    transcriber = Transcriber(recogniser, told.put)
    yield transcriber
    transcriber.close()


def speak(transcriber: Transcriber, seconds: float, voiced: bool = True) -> None:
    for _ in range(round(seconds * RATE / CHUNK)):
        transcriber.more(np.full(CHUNK, 0.1 if voiced else 0.0, np.float32), voiced)


def test_an_utterance_becomes_partials_and_one_final(transcriber: Transcriber, told: Told) -> None:
    transcriber.begin(tone(0.4))
    speak(transcriber, 0.6)
    partial = told.next()
    assert isinstance(partial, Partial)
    assert partial.text.startswith("word1 word2")
    transcriber.end(worth=True, complete=True)
    final = told.final()
    assert final.text.endswith("word16")
    assert final.confidence == 0.5
    assert final.seconds == pytest.approx(1.0, abs=0.05)
    assert final.delay > 0
    assert final.complete


def test_what_was_written_down_at_the_pause_is_the_final(
    transcriber: Transcriber, recogniser: ScriptedRecogniser, told: Told
) -> None:
    transcriber.begin(tone(0.4))
    speak(transcriber, 0.3, voiced=False)
    partial = told.next()
    assert isinstance(partial, Partial)
    transcriber.end(worth=True, complete=True)
    assert told.final().text == partial.text
    assert "finish" not in recogniser.calls


def test_a_hypothesis_that_may_be_of_less_than_was_said_is_never_the_final(
    transcriber: Transcriber, recogniser: ScriptedRecogniser, told: Told
) -> None:
    recogniser.exact = False  # as a server's that is busy
    transcriber.begin(tone(0.4))
    speak(transcriber, 0.3, voiced=False)
    assert isinstance(told.next(), Partial)
    transcriber.end(worth=True, complete=True)
    told.final()
    assert recogniser.calls[-1] == "finish"


def test_what_is_not_worth_writing_down_is_dropped_at_once(
    transcriber: Transcriber, recogniser: ScriptedRecogniser, told: Told
) -> None:
    transcriber.begin(tone(0.1))
    transcriber.end(worth=False, complete=True)
    assert isinstance(told.next(), NothingUnderstood)
    assert recogniser.calls == ["start", "drop"]


def test_a_recogniser_that_fails_is_closed(told: Told) -> None:
    recogniser = ScriptedRecogniser(fails=OSError("gone"))
    transcriber = Transcriber(recogniser, told.put)
    transcriber.begin(tone(0.4))
    transcriber.end(worth=True, complete=True)
    while not isinstance(told.next(), LegoError):
        pass
    transcriber.close()
    assert recogniser.calls[-1] == "close"


def test_a_hypothesis_that_speech_has_outrun_is_broken_off_at_the_end(
    transcriber: Transcriber, recogniser: ScriptedRecogniser, told: Told
) -> None:
    recogniser.gate.clear()
    transcriber.begin(tone(1.0))
    assert recogniser.entered.wait(10)
    speak(transcriber, 0.5)  # 24,192 samples in all
    transcriber.end(worth=True, complete=True)
    assert told.final().text.endswith("word24")
    assert recogniser.stopped
    assert recogniser.calls[-1] == "finish"


def test_a_cough_is_not_recognised(transcriber: Transcriber, recogniser: ScriptedRecogniser, told: Told) -> None:
    transcriber.begin(silence(0.1))
    transcriber.end(worth=False, complete=True)
    assert told.next() == NothingUnderstood(0.1)
    assert "finish" not in recogniser.calls


def test_an_utterance_without_a_word_is_told_as_such(told: Told) -> None:
    transcriber = Transcriber(ScriptedRecogniser(samples_a_word=10**9), told.put)
    transcriber.begin(tone(0.5))
    transcriber.end(worth=True, complete=True)
    assert told.next() == NothingUnderstood(0.5)
    transcriber.close()


def test_dots_are_no_words(told: Told) -> None:
    class OfNoise(ScriptedRecogniser):
        def _heard(self) -> Transcript:
            return Transcript("...", 0.5)

    transcriber = Transcriber(OfNoise(), told.put, partial_seconds=float("inf"))
    transcriber.begin(tone(0.5))
    transcriber.end(worth=True, complete=True)
    assert told.next() == NothingUnderstood(0.5)
    transcriber.close()


def test_one_that_is_lost_while_it_is_spoken_is_told_and_the_next_is_written_down(told: Told) -> None:
    class LosesTheFirst(ScriptedRecogniser):
        def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
            if self.calls == ["start"]:
                raise UtteranceLost("the server went away")
            return super().hypothesis(stop)

    transcriber = Transcriber(LosesTheFirst(), told.put)
    transcriber.begin(tone(1.0))
    assert isinstance(told.next(), NothingUnderstood)
    assert told.next() == Notice("the server went away")
    speak(transcriber, 1.0)  # on and on
    transcriber.end(worth=True, complete=True)
    transcriber.begin(tone(0.5))
    transcriber.end(worth=True, complete=True)
    assert told.final().seconds == 0.5
    transcriber.close()


def test_one_that_was_cut_off_says_so(transcriber: Transcriber, told: Told) -> None:
    transcriber.begin(tone(0.5))
    transcriber.end(worth=True, complete=False)
    assert not told.final().complete


def test_utterances_come_out_in_order(transcriber: Transcriber, told: Told) -> None:
    for seconds in (0.3, 0.2, 0.4):
        transcriber.begin(tone(seconds))
        transcriber.end(worth=True, complete=True)
    assert [round(told.final().seconds, 1) for _ in range(3)] == [0.3, 0.2, 0.4]


def test_without_partials_there_is_the_final_alone(recogniser: ScriptedRecogniser, told: Told) -> None:
    transcriber = Transcriber(recogniser, told.put, partial_seconds=float("inf"))
    transcriber.begin(tone(3))
    speak(transcriber, 0.5, voiced=False)
    transcriber.end(worth=True, complete=True)
    assert isinstance(told.next(), Final)
    assert recogniser.calls == ["start", "finish"]
    transcriber.close()
    assert recogniser.calls[-1] == "close"


def test_a_recogniser_that_hangs_bounds_what_waits(
    transcriber: Transcriber, recogniser: ScriptedRecogniser, told: Told
) -> None:
    recogniser.gate.clear()
    transcriber.begin(tone(1.0))
    assert recogniser.entered.wait(10)
    transcriber.end(worth=True, complete=True)
    given_up = 0
    for number in range(10):
        given_up += transcriber.begin(tone(0.1 * (number + 1)))
        transcriber.end(worth=True, complete=True)
    assert given_up == 6
    recogniser.gate.set()
    assert [round(told.final().seconds, 1) for _ in range(5)] == [1.0, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    ("failure", "part"),
    [
        (RuntimeError("out of memory"), "scripted failed .out of memory.; choose another"),
        (LegoError("as told"), "as told"),
    ],
)
def test_a_recogniser_that_fails_ends_in_a_sentence(failure: Exception, part: str, told: Told) -> None:
    transcriber = Transcriber(ScriptedRecogniser(fails=failure), told.put)
    transcriber.begin(tone(0.1))
    transcriber.end(worth=True, complete=True)
    error = told.next()
    while isinstance(error, Partial):
        error = told.next()
    assert isinstance(error, LegoError)
    with pytest.raises(LegoError, match=part):
        raise error
    transcriber.wait()  # whoever waits for it is let go
    transcriber.close()


def test_closing_gives_up_what_is_left(recogniser: ScriptedRecogniser, told: Told) -> None:
    transcriber = Transcriber(recogniser, told.put)
    recogniser.gate.clear()
    transcriber.begin(tone(1.0))
    assert recogniser.entered.wait(10)
    transcriber.close()
    transcriber.close()
    assert recogniser.stopped
    assert told.empty
