"""Words of the toy kitchen: action labels, reference descriptions, captions, and the slots read back from them.

Every sentence comes from one fixed template per action, so a description can be scored slot by slot.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SIDES: Final = ("left", "middle", "right")
VEGETABLES: Final = ("carrot", "cucumber", "tomato")


@dataclass(frozen=True)
class Slots:
    """What a description says; None where it does not say it.

    Attributes:
        hand: "left" or "right".
        verb: Verb of the action label, such as "turn on".
        object: Noun of the action label, such as "tap".
        side: "left", "middle" or "right": where the object is.
    """

    hand: str | None
    verb: str | None
    object: str | None
    side: str | None


@dataclass(frozen=True)
class Fact:
    """One visible object; `colour` and `state` are empty where they say nothing."""

    kind: str
    colour: str
    side: str
    state: str


@dataclass(frozen=True)
class Action:
    """One kind of action: label words, the kind of object it acts on, and its description template."""

    verb: str
    noun: str
    acted: str
    template: str

    @property
    def name(self) -> str:
        """Verb and noun, the label without a side."""
        return f"{self.verb} {self.noun}"

    def label(self, side: str | None, noun: str | None = None) -> str:
        """EPIC-style label: lower-case verb, the side where one is named, noun."""
        return " ".join(word for word in (self.verb, side, noun or self.noun) if word)


ACTIONS: Final[tuple[Action, ...]] = (
    Action(
        "open",
        "drawer",
        "drawer",
        "The {hand} hand grips the handle of the {colour} drawer {place} and pulls it open towards the body.",
    ),
    Action(
        "close",
        "drawer",
        "drawer",
        "The {hand} hand pushes the front of the {colour} drawer {place} closed, away from the body.",
    ),
    Action(
        "open",
        "cupboard",
        "cupboard",
        "The {hand} hand grips the handle of the {colour} cupboard {place} and swings its door open.",
    ),
    Action(
        "close",
        "cupboard",
        "cupboard",
        "The {hand} hand pushes the door of the {colour} cupboard {place} and swings it shut.",
    ),
    Action(
        "turn on",
        "tap",
        "tap",
        "The {hand} hand lifts the lever of the {colour} tap {place} and water runs into the sink.",
    ),
    Action(
        "turn off",
        "tap",
        "tap",
        "The {hand} hand lowers the lever of the {colour} tap {place} and the water stops running.",
    ),
    Action(
        "pick up",
        "cup",
        "cup",
        "The {hand} hand grasps the {colour} cup {place} and lifts it up from the counter.",
    ),
    Action(
        "put down",
        "cup",
        "cup",
        "The {hand} hand lowers the {colour} cup {place} and puts it down on the counter.",
    ),
    Action(
        "pour",
        "kettle",
        "kettle",
        "The {hand} hand tilts the {colour} kettle {place} and pours water into the {cup} cup.",
    ),
    Action(
        "cut",
        "vegetable",
        "vegetable",
        "The {hand} hand holds the knife and cuts the {noun} {place} into slices on the board.",
    ),
    Action(
        "wipe",
        "counter",
        "cloth",
        "The {hand} hand presses the {colour} cloth {place} and wipes it forward over the counter.",
    ),
    Action(
        "stir",
        "pan",
        "pan",
        "The {hand} hand holds the spoon and stirs the soup in the {colour} pan {place}.",
    ),
    Action(
        "turn on",
        "stove",
        "stove",
        "The {hand} hand turns the knob of the {colour} stove {place} and the burner lights up.",
    ),
    Action(
        "turn off",
        "stove",
        "stove",
        "The {hand} hand turns the knob of the {colour} stove {place} back and the burner goes out.",
    ),
    Action(
        "open",
        "bottle",
        "bottle",
        "The {hand} hand twists the cap off the {colour} bottle {place} and lifts it away.",
    ),
)

_PLACES: Final = {"left": "on the left", "middle": "in the middle", "right": "on the right"}

# Searched in this order: a phrase that is part of another sentence's wording comes after the more telling one.
_VERB_MARKS: Final[tuple[tuple[str, str], ...]] = (
    (r"\bstop(s|ped)?\b|\bgoes out\b|\bturns? off\b", "turn off"),
    (r"\bwater runs\b|\blights up\b|\bturns? on\b", "turn on"),
    (r"\bclosed?s?\b|\bshut\b", "close"),
    (r"\bopens?\b|\bcap off\b|\btwists\b", "open"),
    (r"\bpours?\b", "pour"),
    (r"\bcuts?\b", "cut"),
    (r"\bwipes?\b", "wipe"),
    (r"\bstirs?\b", "stir"),
    (r"\bputs? (it )?down\b", "put down"),
    (r"\bpicks? (it )?up\b|\blifts it up\b|\bgrasps\b", "pick up"),
)
_OBJECTS: Final = ("drawer", "cupboard", "tap", "cup", "kettle", *VEGETABLES, "pan", "stove", "bottle")


def place_phrase(side: str) -> str:
    """The side as descriptions say it: "on the left", "in the middle" or "on the right"."""
    return _PLACES[side]


def describe(action: Action, hand: str, side: str, colour: str, noun: str = "", cup: str = "") -> str:
    """Fills the action's template from the true state."""
    return action.template.format(hand=hand, place=place_phrase(side), colour=colour, noun=noun or action.noun, cup=cup)


def parse_slots(sentence: str) -> Slots:
    """Recovers the slots from a description; a slot that is not found is None."""
    text = " ".join(re.findall(r"[a-z]+", sentence.lower()))
    hand = re.search(r"\b(left|right) hand\b", text)
    side = re.search(r"\b(?:on|to|at) the (left|right)\b(?! hand)|\b(?:in|at) the (middle)\b", text)
    verb = next((name for mark, name in _VERB_MARKS if re.search(mark, text)), None)
    noun = re.search(r"\b(" + "|".join(_OBJECTS) + r")\b", text)
    object_name = noun.group(1) if noun else "counter" if re.search(r"\bcounter\b", text) else None
    return Slots(
        hand=hand.group(1) if hand else None,
        verb=verb,
        object=object_name,
        side=(side.group(1) or side.group(2)) if side else None,
    )


def mirror_text(text: str) -> str:
    """Swaps the words left and right, keeping their case, as a left-right flip of the picture needs."""

    def swap(match: re.Match[str]) -> str:
        word = match.group(0)
        other = "right" if word.lower() == "left" else "left"
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    return re.sub(r"\b(left|right)\b", swap, text, flags=re.IGNORECASE)


def caption(facts: Sequence[Fact]) -> str:
    """A compact caption of the scene, ordered from left to right and by name within a side."""
    ordered = sorted(facts, key=lambda fact: (SIDES.index(fact.side), fact.kind, fact.colour, fact.state))
    return "; ".join(_phrase(fact) for fact in ordered)


def _phrase(fact: Fact) -> str:
    words = " ".join(word for word in (fact.colour, fact.kind) if word)
    article = "an" if words[0] in "aeiou" else "a"
    state = f", {fact.state}" if fact.state else ""
    return f"{article} {words} {place_phrase(fact.side)}{state}"


def question(label: str) -> str:
    """The question a wearer would ask for a label: "turn on tap" becomes "How do I turn on the tap?"."""
    verbs = sorted({action.verb for action in ACTIONS}, key=len, reverse=True)
    verb = next((verb for verb in verbs if label.startswith(verb + " ")), "")
    return f"How do I {verb} the {label[len(verb) :].strip()}?" if verb else f"How do I {label}?"
