"""What the wearer means: queries, corrections of the last one, and words to the assistant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lego_client.speech.correction import Dialogue, Intent, interpret
from lego_core.errors import LegoError

DRAWER = "how do I open the drawer"


@pytest.mark.parametrize(
    ("last", "said", "query"),
    [
        # which of them
        (DRAWER, "No, the left one.", "how do I open the left drawer"),
        (DRAWER, "The left one.", "how do I open the left drawer"),
        (DRAWER, "left", "how do I open the left drawer"),
        (DRAWER, "no, the other one", "how do I open the other drawer"),
        (DRAWER, "the one on the left", "how do I open the drawer on the left"),
        ("how do I open the left drawer", "no the right one", "how do I open the right drawer"),
        ("how do I put the lid on the pot", "the big one", "how do I put the big lid on the pot"),
        ("lift this cup", "not this one, that one", "lift that cup"),
        ("lift this cup", "not this cup, that", "lift that cup"),
        # another thing
        (DRAWER, "I mean the lid", "how do I open the lid"),
        (DRAWER, "I meant the lid of the pot.", "how do I open the lid of the pot"),
        (DRAWER, "Not the drawer, the door.", "how do I open the door"),
        (DRAWER, "not the drawer but the door", "how do I open the door"),
        (DRAWER, "It's not the drawer, it's the door.", "how do I open the door"),
        (DRAWER, "The door, not the drawer!", "how do I open the door"),
        (DRAWER, "the door instead", "how do I open the door"),
        (DRAWER, "no no wait, sorry, the door please", "how do I open the door"),
        ("wash the pen", "no, the pan", "wash the pan"),
        ("put the lid on the pod", "I said the pot", "put the lid on the pot"),
        ("put the lid on the pot", "not the lid, the plate", "put the plate on the pot"),
        ("pour water into the cup", "no, milk", "pour milk into the cup"),
        # with what, and where
        ("cut the tomato with a spoon", "no, with a knife", "cut the tomato with a knife"),
        ("tighten the screw with a hammer", "I mean a screwdriver", "tighten the screw with a screwdriver"),
        (DRAWER, "with one hand", "how do I open the drawer with one hand"),
        ("put the lid on the pot", "no, on the pan", "put the lid on the pan"),
        ("pour water into the cup", "no, milk into the glass", "pour milk into the glass"),
        # another action
        (DRAWER, "No, close the drawer.", "how do I close the drawer"),
        (DRAWER, "no, close it", "how do I close the drawer"),
        (DRAWER, "actually, how do I lock it?", "how do I lock the drawer"),
        ("turn on the stove", "no, off", "turn off the stove"),
        ("how do I turn on the stove", "no, turn it off", "how do I turn the stove off"),
    ],
)
def test_a_correction_becomes_a_whole_query(last: str, said: str, query: str) -> None:
    meaning = interpret(said, [last])
    assert (meaning.intent, meaning.query) == (Intent.CORRECT, query)
    assert last in meaning.explanation


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("How do I wash the pan?", "how do I wash the pan"),
        ("Wash the pan.", "how do I wash the pan"),
        ("How do I close it?", "how do I close the drawer"),
        ("Take the second one.", "how do I take the second drawer"),
        ("What is this for?", "what is this for"),
        ("Stop the mixer.", "stop the mixer"),
        ("How do I go back to the menu?", "how do I go back to the menu"),
        ("Show me how to stir it again", "show me how to stir it again"),
        ("How do I repeat the wash?", "how do I repeat the wash"),
        ("How do I not burn the egg?", "how do I not burn the egg"),
    ],
)
def test_a_new_query_is_no_correction(said: str, query: str) -> None:
    meaning = interpret(said, [DRAWER])
    assert (meaning.intent, meaning.query) == (Intent.ASK, query)


SAYINGS: dict[Intent, str] = {
    Intent.STOP: "Stop. / please stop / stop it / okay, stop talking now / never mind / cancel that / enough / hush",
    Intent.REPEAT: "Repeat that, please. / say that again / what did you say? / Pardon? / I didn't hear you",
    Intent.AGAIN: "Again! / once more / try again / another one / show me again / one more time please",
    Intent.NEXT: "What next? / what's next / next / next step please / and then? / go on / done / What do I do next?",
    Intent.BACK: "Go back. / back / the previous one / go back one step / undo that",
    Intent.NOTHING: "Thanks. / ok thank you / great / yes / no thanks / that's fine / hmm",
}
ASKED = {
    Intent.AGAIN: DRAWER,
    Intent.NEXT: "what do I do next after I open the drawer",
    Intent.BACK: "how do I wash the pan",
}


@pytest.mark.parametrize("intent", SAYINGS)
def test_words_to_the_assistant_are_told_from_queries(intent: Intent) -> None:
    for said in SAYINGS[intent].split(" / "):
        meaning = interpret(said, ["how do I wash the pan", DRAWER])
        assert (meaning.intent, meaning.query) == (intent, ASKED.get(intent)), said


@pytest.mark.parametrize("said", ["again", "what next", "repeat that", "go back", "no"])
def test_what_needs_a_query_before_it_is_unclear_without_one(said: str) -> None:
    meaning = interpret(said)
    assert (meaning.intent, meaning.query) == (Intent.UNCLEAR, None)
    assert "ask" in meaning.explanation


def test_going_back_from_the_first_query_is_unclear() -> None:
    assert interpret("go back", [DRAWER]).intent is Intent.UNCLEAR


@pytest.mark.parametrize(
    "said", ["no", "No, no.", "it", "the", "no, with", "not", "no, not this one", "no, the drawer"]
)
def test_a_correction_that_changes_nothing_is_unclear_and_asks_for_more(said: str) -> None:
    meaning = interpret(said, [DRAWER])
    assert (meaning.intent, meaning.query) == (Intent.UNCLEAR, None)
    assert "say" in meaning.explanation


def test_without_a_query_before_it_a_fragment_is_asked_as_it_is() -> None:
    assert interpret("no, the left drawer").query == "the left drawer"


def test_nothing_said_is_refused() -> None:
    with pytest.raises(LegoError, match="nothing was said"):
        interpret(" ?! ")


def test_a_dialogue_forgets_what_was_corrected_and_goes_back_past_it() -> None:
    dialogue = Dialogue()
    assert dialogue.last is None
    for said, last in [
        ("How do I wash the pan?", "how do I wash the pan"),
        ("How do I open the door?", "how do I open the door"),
        ("No, the drawer.", "how do I open the drawer"),
        ("again", "how do I open the drawer"),
        ("thanks", "how do I open the drawer"),
        ("no, close it", "how do I close the drawer"),
        ("what next?", "what do I do next after I close the drawer"),
        ("go back", "how do I close the drawer"),
        ("go back", "how do I wash the pan"),
        ("go back", "how do I wash the pan"),
    ]:
        dialogue.hear(said)
        assert dialogue.last == last, said


@given(said=st.text(max_size=80), last=st.text(max_size=80))
def test_whatever_is_said_has_a_meaning_or_is_refused_in_a_sentence(said: str, last: str) -> None:
    try:
        meaning = interpret(said, [last])
    except LegoError:
        return
    assert (meaning.query is None) == (meaning.intent in (Intent.STOP, Intent.REPEAT, Intent.NOTHING, Intent.UNCLEAR))
    assert meaning.explanation


_HEARD = [
    "no",
    "not",
    "the",
    "a",
    "left",
    "one",
    "it",
    "i",
    "mean",
    "open",
    "close",
    "drawer",
    "on",
    "with",
    "of",
    "stove",
]


@given(said=st.lists(st.sampled_from(_HEARD), min_size=1, max_size=8).map(" ".join))
def test_words_in_any_order_make_a_query_with_words_in_it_or_none(said: str) -> None:
    meaning = interpret(said, [DRAWER])
    assert meaning.query is None or meaning.query.split()
