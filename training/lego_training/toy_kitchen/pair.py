"""Input and target frame of one action in a toy kitchen, with everything that is true about them."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_training.toy_kitchen.canvas import Box, Picture
from lego_training.toy_kitchen.language import ACTIONS, Fact, Slots, caption
from lego_training.toy_kitchen.render import Rendering, clipped, render, sense
from lego_training.toy_kitchen.scene import Split, compose, draw_camera, side_of
from lego_training.toy_kitchen.staging import Situation, stage

FRAME_SIZE = 256
BOUNDARY_GAP = 12 / 256  # an object's centre keeps this far from the boundary between two sides
SMALLEST = 28 / 256  # the acted object is at least this large, in picture widths
_CHANGE_THRESHOLD = 12


@dataclass(frozen=True)
class KitchenPair:
    """One training pair.

    Attributes:
        seed: What it was made from, with `split`.
        split: "train" or "val".
        input_frame: (256, 256, 3) uint8 RGB, just before the action.
        target_frame: (256, 256, 3) uint8 RGB, the action's decisive moment.
        changed: (256, 256) bool, where the two differ but for noise.
        boxes: Of the input frame: "left drawer", "right hand"; (x1, y1, x2, y2) in 0..1.
        action: Label, such as "open left drawer".
        description: Reference description of the target frame.
        slots: What the description says.
        facts: Every visible object of the input frame.
        caption: The facts as one line.
    """

    seed: int
    split: Split
    input_frame: Picture
    target_frame: Picture
    changed: NDArray[np.bool_]
    boxes: dict[str, Box]
    action: str
    description: str
    slots: Slots
    facts: tuple[Fact, ...]
    caption: str


def make_situation(seed: int, split: Split) -> tuple[Situation, Rendering]:
    """Stages the pair of a seed and renders its input frame without noise.

    Raises:
        ValueError: For a negative seed or an unknown split.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; use 0 or more")
    if split not in ("train", "val"):
        raise ValueError(f"split is {split!r}; use 'train' or 'val'")
    rng = np.random.default_rng([seed, split == "val"])
    action = ACTIONS[seed % len(ACTIONS)]
    composition, column, noun = compose(rng, action, split)
    while True:
        situation = stage(rng, action, composition, column, noun, draw_camera(rng))
        before = render(situation.before, situation.hands_before, FRAME_SIZE)
        if _is_plain(situation, before):
            return situation, before


def make_pair(seed: int, split: Split) -> KitchenPair:
    """Makes the pair of a seed; seeds go through the actions in turn, and the same seed gives the same pair.

    Raises:
        ValueError: For a negative seed or an unknown split.
    """
    situation, before = make_situation(seed, split)
    after = render(situation.after, situation.hands_after, FRAME_SIZE)
    rng = np.random.default_rng([seed, split == "val", 1])
    facts = scene_facts(situation, before)
    return KitchenPair(
        seed=seed,
        split=split,
        input_frame=sense(before.picture, situation.before.look, rng),
        target_frame=sense(after.picture, situation.after.look, rng),
        changed=changed_region(before.picture, after.picture),
        boxes=named_boxes(situation, before),
        action=situation.label,
        description=situation.description,
        slots=situation.slots,
        facts=facts,
        caption=caption(facts),
    )


def scene_facts(situation: Situation, rendering: Rendering) -> tuple[Fact, ...]:
    """Every visible thing of the input frame with its colour, side and state, from left to right."""
    seen: list[tuple[float, Fact]] = []
    for thing in situation.before.things:
        box = rendering.boxes.get(thing.key)
        if box is None or not _mostly_inside(box):
            continue
        centre = _centre_x(box)
        seen.append((centre, Fact(thing.kind, thing.colour, side_of(centre), thing.state)))
    return tuple(fact for _, fact in sorted(seen, key=lambda entry: entry[0]))


def named_boxes(situation: Situation, rendering: Rendering) -> dict[str, Box]:
    """Boxes of the input frame's things and hands, named with their sides, cut to the picture."""
    boxes: dict[str, Box] = {}
    for thing in situation.before.things:
        box = rendering.boxes.get(thing.key)
        if box is not None and _mostly_inside(box):
            boxes[f"{side_of(_centre_x(box))} {thing.kind}"] = clipped(box)
    for side in ("left", "right"):
        box = rendering.boxes[f"{side} hand"]
        if box[1] < 1.0:
            boxes[f"{side} hand"] = clipped(box)
    return boxes


def changed_region(before: Picture, after: Picture) -> NDArray[np.bool_]:
    """Where two noise-free pictures (H, W, 3) differ: (H, W) bool, slightly grown, holes closed."""
    difference = np.asarray(cv2.absdiff(before, after)).max(2)
    mask = (difference > _CHANGE_THRESHOLD).astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _ellipse(9)), np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return np.asarray(cv2.dilate(filled, _ellipse(5))) > 0


def _ellipse(size: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), np.uint8)


def _centre_x(box: Box) -> float:
    x1, _, x2, _ = clipped(box)
    return (x1 + x2) / 2


def _mostly_inside(box: Box) -> bool:
    x1, y1, x2, y2 = clipped(box)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area > 0 and (x2 - x1) * (y2 - y1) > 0.55 * area


def _is_plain(situation: Situation, rendering: Rendering) -> bool:
    """Whether the input frame decides what its words say.

    Every visible thing is clearly on its side; the acted one is on the side of its words, large enough, and the acting
    hand is nearer to it than to any other of its kind.
    """
    acted = situation.before.things[situation.target]
    hand = _centre_x(rendering.boxes[f"{situation.slots.hand} hand"])
    away = {
        thing.key: abs(_centre_x(rendering.boxes[thing.key]) - hand)
        for thing in situation.before.things
        if thing.kind == acted.kind and thing.key in rendering.boxes
    }
    if acted.key not in away or min(away, key=lambda key: away[key]) != acted.key:
        return False
    for index, thing in enumerate(situation.before.things):
        box = rendering.boxes.get(thing.key)
        if box is None or not _mostly_inside(box):
            if index == situation.target:
                return False
            continue
        centre = _centre_x(box)
        if min(abs(centre - 1 / 3), abs(centre - 2 / 3)) < BOUNDARY_GAP:
            return False
        if index == situation.target:
            x1, y1, x2, y2 = clipped(box)
            if side_of(centre) != situation.slots.side or max(x2 - x1, y2 - y1) < SMALLEST:
                return False
    return True
