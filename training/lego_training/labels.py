"""Action labels as the VLLM is asked about them: narrations of Ego4D become commands (lego-reference C4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from lego_core.errors import LegoError

from lego_training.dataset import Record

LABEL_MODES = ("corrected", "original")
LabelMode = Literal["corrected", "original"]

# How a narration of Ego4D names the camera's wearer.
_WEARER = re.compile(r"^\s*#\s*C\s+C\b[\s,.:;]*", re.IGNORECASE)


def normalise_label(label: str, dataset: str, mode: LabelMode = "corrected") -> str:
    """Returns an action label as it is put into the question: "#C C picks up the knife" gives "pick up the knife".

    Labels of other datasets than Ego4D, such as EPIC-KITCHENS', are commands already and stay as they are.

    Args:
        label: The raw label.
        dataset: Its name; one that begins with "ego4d" has narrations.
        mode: "corrected" takes `#C C` away where it is there, and leaves a label that begins with no word alone.
            "original" cuts the first characters off whatever they are, as the original code does, and so damages labels
            that are not of the form `#C C ...`.

    Raises:
        LegoError: Nothing is left of the label.
    """
    if not dataset.startswith("ego4d"):
        return label
    action = label[2:].strip()[2:].strip() if mode == "original" else _WEARER.sub("", label).strip()
    if not action:
        raise LegoError(f"the label {label!r} names no action; correct it or drop its record")
    verb, space, rest = action.partition(" ")
    if mode == "corrected" and not verb.isalpha():
        return action
    return f"{verb_lemma(verb.lower())}{space}{rest}"


def verb_lemma(word: str) -> str:
    """Returns a verb's base form: "picks" gives "pick"; a word that is no known verb stays as it is.

    The original looks verbs up in WordNet, whose data is a download of its own. LemmInflect's table, from the NIH's
    SPECIALIST lexicon, comes inside its wheel. Of several base forms the shortest is taken and the word itself goes
    first, as NLTK does. The two may differ on rare words that only one of them lists as verbs.
    """
    # Here, because its table takes a moment to load, and only narrations need it.
    from lemminflect import getAllLemmas

    lemmas: tuple[str, ...] = getAllLemmas(word, upos="VERB").get("VERB", ())
    return min(sorted(lemmas, key=lambda lemma: lemma != word), key=len, default=word)


def normalise_records(records: Sequence[Record], dataset: str, mode: LabelMode) -> list[Record]:
    """Returns the records with their labels normalised.

    Raises:
        LegoError: Nothing is left of a label; the message names the record and its input frame.
    """
    normalised = []
    for record in records:
        try:
            normalised.append(replace(record, action=normalise_label(record.action, dataset, mode)))
        except LegoError as error:
            raise LegoError(f"record {record.clip_id}/{record.action_id} ({record.input_path}): {error}") from error
    return normalised
