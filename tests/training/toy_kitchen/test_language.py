"""The words of the toy kitchen: labels, descriptions, slots, captions."""

import re

import pytest
from lego_training.toy_kitchen.language import (
    ACTIONS,
    Fact,
    Slots,
    caption,
    describe,
    mirror_text,
    parse_slots,
    question,
)
from lego_training.toy_kitchen.palette import COLOURS

EVERY_SENTENCE = [
    (action, hand, side, colour, noun)
    for action in ACTIONS
    for hand in ("left", "right")
    for side in ("left", "middle", "right")
    for colour in COLOURS
    for noun in (("carrot", "cucumber", "tomato") if action.acted == "vegetable" else (action.noun,))
]


def test_slots_of_every_possible_description_are_recovered() -> None:
    for action, hand, side, colour, noun in EVERY_SENTENCE:
        sentence = describe(action, hand, side, colour, noun, cup="red")
        assert parse_slots(sentence) == Slots(hand, action.verb, noun, side), sentence


def test_descriptions_have_at_most_twenty_words() -> None:
    assert max(len(describe(*parts, cup="red").split()) for parts in EVERY_SENTENCE) <= 20


def test_slots_not_said_are_none() -> None:
    assert parse_slots("") == Slots(None, None, None, None)
    assert parse_slots("The left hand waits.") == Slots("left", None, None, None)


def test_slots_survive_small_errors() -> None:
    assert parse_slots("the left hand grips handle of drawer on the left and pulls it open") == Slots(
        "left", "open", "drawer", "left"
    )


def test_labels_are_lower_case_verb_side_noun() -> None:
    assert ACTIONS[0].label("left") == "open left drawer"
    assert ACTIONS[4].label(None) == "turn on tap"
    assert all(re.fullmatch(r"[a-z ]+", action.label("middle")) for action in ACTIONS)


def test_mirroring_swaps_sides_and_hands_and_undoes_itself() -> None:
    text = "The left hand grips the handle of the drawer on the right. LEFT"
    assert mirror_text(text) == "The right hand grips the handle of the drawer on the left. RIGHT"
    assert mirror_text(mirror_text(text)) == text
    assert mirror_text("a cleft in the middle, brightly lit") == "a cleft in the middle, brightly lit"


def test_caption_does_not_depend_on_the_order_of_facts() -> None:
    facts = [Fact("cup", "red", "right", ""), Fact("drawer", "orange", "left", "closed")]
    assert caption(facts) == "an orange drawer on the left, closed; a red cup on the right"
    assert caption(facts[::-1]) == caption(facts)


@pytest.mark.parametrize(
    ("label", "asked"),
    [("turn on left tap", "How do I turn on the left tap?"), ("open bottle", "How do I open the bottle?")],
)
def test_questions_ask_for_the_label(label: str, asked: str) -> None:
    assert question(label) == asked
