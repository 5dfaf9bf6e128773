"""Which words lead through a task, and which are questions."""

from __future__ import annotations

import pytest
from lego_client.task.words import PHRASES, Command, command_of, says_nothing


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("What next?", Command.NEXT),
        ("ok, what's next?", Command.NEXT),
        ("What’s the next step, please?", Command.NEXT),
        ("continue", Command.NEXT),
        ("what now?", Command.NEXT),
        ("I'm ready.", Command.NEXT),
        ("Go back!", Command.BACK),
        ("no, previous step please", Command.BACK),
        ("Again.", Command.REPEAT),
        ("could", None),
        ("what do I do now?", Command.REPEAT),
        ("I'm not done", Command.REPEAT),
        ("Done.", Command.DONE),
        ("okay, I've done that now", Command.DONE),
        ("SKIP THIS", Command.SKIP),
        ("where am I?", Command.WHERE),
        ("How many steps are left?", Command.WHERE),
        ("quit", Command.STOP),
        ("thanks", None),
        ("", None),
    ],
)
def test_a_whole_utterance_is_a_command(text: str, command: Command | None) -> None:
    assert command_of(text) is command


@pytest.mark.parametrize(
    "text",
    [
        "how do I put the lid back?",
        "where is the next screw?",
        "how do I skip a stitch?",
        "what is done with the egg?",
        "how do I stop the water?",
        "is it done when it is brown?",
        "what is next to the tap?",
    ],
)
def test_a_question_with_such_words_in_it_stays_a_question(text: str) -> None:
    assert command_of(text) is None
    assert not says_nothing(text)


def test_a_step_s_own_words_mean_that_it_is_done() -> None:
    assert command_of("It’s cut!", ["it is cut"]) is Command.DONE
    assert command_of("It's cut!") is None
    assert command_of("back", ["back"]) is Command.DONE  # the task's author knows best


@pytest.mark.parametrize("text", ["", "  ", "ok", "Yes, okay.", "...", "um"])
def test_politeness_alone_says_nothing(text: str) -> None:
    assert command_of(text) is None and says_nothing(text)


def test_every_phrase_means_one_thing() -> None:
    for command, phrases in PHRASES.items():
        assert [command_of(phrase) for phrase in phrases] == [command] * len(phrases)
