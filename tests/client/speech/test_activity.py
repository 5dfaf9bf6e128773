"""Where utterances begin and end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from lego_client.speech.activity import (
    ActivitySettings,
    Begin,
    End,
    Ending,
    More,
    Piece,
    PushToTalk,
    Segmenter,
    Utterances,
    VoiceActivity,
)
from lego_core.errors import LegoError
from lego_core.speech.audio import CHUNK, CHUNK_SECONDS, Samples, read_wav

from tests.client.speech.sounds import beckett, chunks, silence, tone


def numbered(number: int) -> Samples:
    return np.full(CHUNK, number, np.float32)


def cut(segmenter: Segmenter, probabilities: Iterable[float]) -> list[Piece]:
    """Feeds a chunk for each probability, whose samples are all its number."""
    pieces: list[Piece] = []
    for number, probability in enumerate(probabilities):
        pieces += segmenter.feed(numbered(number), probability)
    return pieces


def spoken(seconds: float, probability: float = 0.9) -> list[float]:
    return [probability] * round(seconds / CHUNK_SECONDS)


def ends(pieces: Iterable[Piece]) -> list[End]:
    return [piece for piece in pieces if isinstance(piece, End)]


def test_an_utterance_begins_with_what_came_just_before_and_ends_after_the_hang_over() -> None:
    settings = ActivitySettings(pre_roll=3 * CHUNK_SECONDS, onset=2 * CHUNK_SECONDS, hang_over=4 * CHUNK_SECONDS)
    pieces = cut(Utterances(settings), [0.1] * 10 + [0.9] * 20 + [0.1] * 10)
    begin = pieces[0]
    assert isinstance(begin, Begin)
    assert list(begin.samples[::CHUNK]) == [7, 8, 9, 10, 11]  # three before, and the two that showed it
    more = [piece for piece in pieces if isinstance(piece, More)]
    assert [piece.samples[0] for piece in more] == list(range(12, 34))
    assert [piece.voiced for piece in more] == [True] * 18 + [False] * 4
    assert pieces[-1] == End(Ending.SILENCE, worth=True)


def test_silence_and_noise_give_nothing() -> None:
    assert cut(Utterances(), [0.1] * 1000 + [0.45] * 100) == []


def test_a_click_is_no_speech() -> None:
    assert cut(Utterances(), ([0.1] * 10 + [0.9, 0.9]) * 5) == []


def test_a_cough_is_cut_out_but_not_worth_a_look() -> None:
    settings = ActivitySettings(shortest=0.3)
    assert ends(cut(Utterances(settings), [0.1] * 10 + spoken(0.2) + [0.1] * 40)) == [End(Ending.SILENCE, worth=False)]


def test_speech_that_gets_softer_goes_on_and_does_not_begin_anew() -> None:
    probabilities = spoken(0.5) + spoken(2.0, 0.4) + [0.2] * 40
    pieces = cut(Utterances(), probabilities)
    assert len([piece for piece in pieces if isinstance(piece, Begin)]) == 1
    assert ends(pieces) == [End(Ending.SILENCE, worth=True)]
    assert cut(Utterances(), spoken(2.0, 0.4)) == []


def test_a_short_pause_does_not_end_it() -> None:
    pieces = cut(Utterances(), spoken(1) + [0.1] * 10 + spoken(1) + [0.1] * 40)
    assert len(ends(pieces)) == 1


def test_it_ends_at_the_longest_and_goes_on_as_another() -> None:
    settings = ActivitySettings(longest=2.0)
    pieces = cut(Utterances(settings), spoken(5))
    assert ends(pieces) == [End(Ending.LENGTH, worth=True)] * 2
    samples = np.concatenate([piece.samples for piece in pieces if not isinstance(piece, End)])
    assert list(samples[::CHUNK]) == list(range(len(spoken(5))))  # nothing is lost between them


def test_missing_sound_ends_it_and_the_pre_roll_does_not_reach_over_it() -> None:
    segmenter = Utterances()
    cut(segmenter, spoken(1))
    assert segmenter.interrupt() == [End(Ending.INTERRUPTED, worth=True)]
    assert segmenter.interrupt() == []
    begin = cut(segmenter, spoken(0.5))[0]
    assert isinstance(begin, Begin)
    assert begin.samples[0] == 0


def test_a_button_cuts_where_it_is_pressed_and_released_whatever_is_said() -> None:
    talk = PushToTalk(ActivitySettings(pre_roll=2 * CHUNK_SECONDS))
    assert cut(talk, spoken(1)) == []
    talk.press()
    pieces = cut(talk, [0.1] * 60 + spoken(0.5))
    assert isinstance(pieces[0], Begin)
    assert len(pieces[0].samples) == 2 * CHUNK
    assert ends(pieces) == []
    talk.release()
    assert cut(talk, [0.9])[-1] == End(Ending.RELEASED, worth=True)
    assert cut(talk, spoken(1)) == []


def test_a_button_pressed_without_a_word_is_not_worth_a_look() -> None:
    talk = PushToTalk()
    talk.press()
    cut(talk, [0.1] * 50)
    talk.release()
    assert ends(cut(talk, [0.1])) == [End(Ending.RELEASED, worth=False)]


def test_a_button_that_stays_down_ends_at_the_longest() -> None:
    talk = PushToTalk(ActivitySettings(longest=1.0))
    talk.press()
    assert ends(cut(talk, spoken(3))) == [End(Ending.LENGTH, worth=True)]


def test_with_the_button_down_it_goes_on_after_missing_sound() -> None:
    talk = PushToTalk()
    talk.press()
    cut(talk, spoken(1))
    assert talk.interrupt() == [End(Ending.INTERRUPTED, worth=True)]
    begin = cut(talk, spoken(1))[0]
    assert isinstance(begin, Begin)
    assert len(begin.samples) == CHUNK


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"begin": 0.3, "end": 0.5}, "begins at probability 0.3 and ends at 0.5"),
        ({"begin": 1.0}, "between 0 and 1"),
        ({"hang_over": 0.0}, "hang_over is 0 s; it must be from 0.1 to 5"),
        ({"longest": 60.0}, "longest is 60 s; it must be from 1 to 30"),
        ({"pre_roll": float("nan")}, "pre_roll is nan"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, float], part: str) -> None:
    with pytest.raises(LegoError, match=part):
        ActivitySettings(**settings)


def share_of_speech(samples: Samples) -> float:
    activity = VoiceActivity()
    return float(np.mean([activity.probability(chunk) > 0.5 for chunk in chunks(samples)]))


def test_a_voice_is_told_from_silence_tones_and_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    assert share_of_speech(silence(5)) == share_of_speech(tone(5)) == share_of_speech(noise) == 0
    assert share_of_speech(read_wav(beckett())) > 0.4  # he reads slowly


def test_kitchen_noise_is_no_speech_and_commands_are(fixtures: Path) -> None:
    coffee = fixtures / "speech" / "human_coffee"
    noise = read_wav(coffee / "kitchen_noise_20s.wav")
    assert share_of_speech(noise) == 0
    for path in sorted(coffee.glob("*-*.wav")):
        command = read_wav(path)
        pieces: list[Piece] = []
        activity, segmenter = VoiceActivity(), Utterances()
        for chunk in chunks(np.concatenate([command, silence(1)])):
            pieces += segmenter.feed(chunk, activity.probability(chunk))
        assert ends(pieces) == [End(Ending.SILENCE, worth=True)], path.name


def test_a_chunk_of_another_size_is_refused() -> None:
    with pytest.raises(LegoError, match=r"shape \(160,\); it must be \(512,\)"):
        VoiceActivity().probability(np.zeros(160, np.float32))


def test_after_a_reset_the_same_sound_is_judged_the_same() -> None:
    activity = VoiceActivity()
    first = [activity.probability(chunk) for chunk in chunks(tone(1, 200))]
    activity.reset()
    assert [activity.probability(chunk) for chunk in chunks(tone(1, 200))] == first
