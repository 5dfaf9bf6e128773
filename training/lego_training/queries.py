"""What people say: question templates, ways to word a label, and captions for pretraining."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lego_training.dataset import Record
from lego_training.toy_kitchen.language import Fact, caption, place_phrase

# The ten templates of visual instruction tuning (paper 3.3); `{action}` is the action label. The first is the model's
# own, which every query is put into when it is used; the others keep it from leaning on one wording.
QUERY_TEMPLATES = (
    "How do I {action}?",
    "How does the person properly {action} that is displayed in the video frame?",
    "Can you show me how to {action}?",
    "What is the right way to {action}?",
    "Please explain how to {action} from my point of view.",
    "I want to {action}. What should I do?",
    "How can I {action} in this scene?",
    "Show how my hands should move to {action}.",
    "Describe how to {action} here.",
    "What does it look like to {action}?",
)

CAPTION_QUERY = "What is in the picture?"


def label_variant(label: str, rng: np.random.Generator) -> str:
    """Words a label as people do: "open left drawer" also as "open drawer on left"."""
    words = label.split()
    side = next((word for word in words if word in ("left", "middle", "right")), None)
    if side is None or rng.random() < 0.6:
        return label
    rest = " ".join(word for word in words if word != side)
    return f"{rest} {'in' if side == 'middle' else 'on'} {side}"


def scene_caption(facts: dict[str, Any], mirrored: bool = False) -> str:
    """The caption of a toy-kitchen frame, with where the hands are.

    Args:
        facts: A record's metadata, with `facts` and `boxes` (name to x1, y1, x2, y2 in 0 to 1).
        mirrored: Of the frame flipped left to right; the order stays from left to right.
    """
    swap = {"left": "right", "right": "left"} if mirrored else {}
    hands = []
    for side in ("left", "right"):
        box = facts["boxes"].get(f"{swap.get(side, side)} hand")
        if box is None:
            hands.append(f"no {side} hand")
            continue
        centre = (box[0] + box[2]) / 2
        third = "left" if centre < 1 / 3 else "right" if centre > 2 / 3 else "middle"
        height = "high" if box[1] < 0.4 else "raised" if box[1] < 0.8 else "low"
        hands.append(f"the {side} hand {place_phrase(swap.get(third, third))}, {height}")
    seen = [Fact(**{**fact, "side": swap.get(fact["side"], fact["side"])}) for fact in facts["facts"]]
    return "; ".join([*hands, caption(seen)])


def corpus(records: Iterable[Record]) -> Iterator[str]:
    """Yields every sentence the model should write or read, for the tokenizer."""
    yield CAPTION_QUERY
    for record in records:
        for template in QUERY_TEMPLATES:
            yield template.replace("{action}", record.action)
        yield record.description
        if "facts" in record.facts:
            yield scene_caption(record.facts)
