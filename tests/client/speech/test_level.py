"""Levels that no speech has."""

from __future__ import annotations

import numpy as np
from lego_client.speech.level import LevelWatch
from lego_core.speech.audio import Samples

from tests.client.speech.sounds import chunks, silence, tone


def told(watch: LevelWatch, *sounds: Samples) -> list[str]:
    looks = [watch.look(chunk) for sound in sounds for chunk in chunks(sound)]
    return [sentence for sentence in looks if sentence is not None]


def test_a_microphone_that_sends_only_zeros_is_told_of_once() -> None:
    (sentence,) = told(LevelWatch("headset"), silence(20))
    assert sentence.startswith("headset has sent nothing but zeros for 3 s; unmute it")


def test_one_that_was_heard_may_be_silent_for_longer() -> None:
    watch = LevelWatch("headset")
    assert told(watch, tone(1), silence(20)) == []
    (sentence,) = told(watch, silence(20))
    assert "for 30 s" in sentence


def test_sound_that_is_cut_off_is_told_of_once_until_it_was_right_again() -> None:
    watch = LevelWatch("headset")
    clipped = np.clip(tone(3, level=3.0), -1, 1)
    (sentence,) = told(watch, clipped, clipped)
    assert "turn its level down" in sentence
    assert len(told(watch, tone(3), clipped)) == 1


def test_ordinary_sound_is_not_remarked_upon() -> None:
    assert told(LevelWatch("headset"), tone(5, level=0.9), silence(1), tone(5, level=0.001)) == []
