"""The wake word, as recognisers write it."""

from __future__ import annotations

import pytest
from lego_client.speech.wake import WakeWord
from lego_core.errors import LegoError


@pytest.mark.parametrize(
    "said",
    [
        "Hey Lego, how do I open the drawer?",
        "hey leggo how do I open the drawer?",
        "Hey Lay Go: how do I open the drawer?",
        "Hail, I go, how do I open the drawer?",
        "Hey, leg-o! how do I open the drawer?",
        "Heylego how do I open the drawer?",
    ],
)
def test_what_follows_it_is_returned_as_it_was_written(said: str) -> None:
    assert WakeWord().after(said) == "how do I open the drawer?"


@pytest.mark.parametrize(
    "said",
    [
        "how do I open the drawer",
        "hello, how are you",
        "hey you",
        "how do I open the lego box",
        "he left",
        "",
        "?!",
        "hey there how are you",
    ],
)
def test_what_is_not_addressed_to_the_assistant_is_dropped(said: str) -> None:
    assert WakeWord().after(said) is None


@pytest.mark.parametrize("said", ["Hey Lego.", "Hey Lego…", "Hey Lego. (?)"])
def test_it_may_be_all_that_was_said(said: str) -> None:
    assert WakeWord().after(said) == ""


def test_another_phrase_may_be_chosen() -> None:
    word = WakeWord("Computer")
    assert word.after("computer, stop") == "stop"
    assert word.after("hey lego stop") is None


@pytest.mark.parametrize("phrase", ["", "go", "a b", "one two three four five"])
def test_a_phrase_that_cannot_be_told_from_others_is_refused(phrase: str) -> None:
    with pytest.raises(LegoError, match="one to four words"):
        WakeWord(phrase)
