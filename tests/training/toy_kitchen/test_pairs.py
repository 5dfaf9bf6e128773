"""Pairs of the toy kitchen: what they promise about geometry, words and change."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from lego_training.toy_kitchen import ACTIONS, KitchenPair, make_pair, parse_slots
from lego_training.toy_kitchen.pair import BOUNDARY_GAP, SMALLEST
from lego_training.toy_kitchen.scene import Split, compose

SEEDS = range(3 * len(ACTIONS))


@cache
def pairs(split: Split = "train") -> tuple[KitchenPair, ...]:
    return tuple(make_pair(seed, split) for seed in SEEDS)


def test_frames_are_256_rgb_bytes() -> None:
    pair = pairs()[0]
    for frame in (pair.input_frame, pair.target_frame):
        assert frame.shape == (256, 256, 3)
        assert frame.dtype == np.uint8
    assert pair.changed.shape == (256, 256)
    assert pair.changed.dtype == np.bool_


def test_the_same_seed_gives_the_same_pair() -> None:
    again = make_pair(7, "train")
    assert np.array_equal(again.input_frame, pairs()[7].input_frame)
    assert np.array_equal(again.target_frame, pairs()[7].target_frame)
    assert again.caption == pairs()[7].caption


def test_consecutive_seeds_cover_every_action_equally() -> None:
    counts = Counter((pair.slots.verb, pair.slots.object if pair.slots.verb != "cut" else "") for pair in pairs())
    assert len(counts) == len(ACTIONS)
    assert set(counts.values()) == {3}


def test_description_says_the_slots() -> None:
    for pair in pairs():
        assert parse_slots(pair.description) == pair.slots


def test_label_names_a_side_only_as_the_object_has_it() -> None:
    for pair in pairs():
        named = {"left", "middle", "right"} & set(pair.action.split())
        assert named <= {pair.slots.side}


def test_hand_on_the_side_of_the_object_acts() -> None:
    for pair in pairs():
        if pair.slots.side != "middle":
            assert pair.slots.hand == pair.slots.side


def test_acting_hand_is_raised_further_than_the_other() -> None:
    for pair in pairs():
        acting = pair.boxes[f"{pair.slots.hand} hand"]
        other = pair.boxes.get("right hand" if pair.slots.hand == "left" else "left hand", (0.0, 1.0, 0.0, 1.0))
        assert acting[1] < other[1] - 0.02, (pair.seed, pair.action)


def test_reaching_hand_is_nearest_to_the_acted_one_of_several() -> None:
    for pair in pairs():
        kind = "cloth" if pair.slots.object == "counter" else pair.slots.object
        x1, _, x2, _ = pair.boxes[f"{pair.slots.hand} hand"]
        away = {
            name: abs((x1 + x2) / 2 - (box[0] + box[2]) / 2)
            for name, box in pair.boxes.items()
            if name.split(" ", 1)[1] == kind
        }
        assert min(away, key=lambda name: away[name]) == f"{pair.slots.side} {kind}", (pair.seed, pair.action)


def test_acted_object_is_large_and_clear_of_the_side_boundaries() -> None:
    for pair in pairs():
        kind = "cloth" if pair.slots.object == "counter" else pair.slots.object
        x1, y1, x2, y2 = pair.boxes[f"{pair.slots.side} {kind}"]
        assert max(x2 - x1, y2 - y1) >= SMALLEST
        assert min(abs((x1 + x2) / 2 - third) for third in (1 / 3, 2 / 3)) >= BOUNDARY_GAP


def test_boxes_lie_inside_the_picture() -> None:
    for pair in pairs():
        for name, (x1, y1, x2, y2) in pair.boxes.items():
            assert 0 <= x1 < x2 <= 1, name
            assert 0 <= y1 < y2 <= 1, name


def test_frames_differ_inside_the_changed_region_and_only_by_noise_and_blur_outside() -> None:
    for pair in pairs():
        difference = np.abs(pair.input_frame.astype(int) - pair.target_frame).mean(2)
        assert 0.01 < pair.changed.mean() < 0.45, (pair.seed, pair.action, pair.changed.mean())
        assert difference[~pair.changed].mean() < 5
        assert difference[pair.changed].mean() > 2.5 * difference[~pair.changed].mean()


def test_no_composition_of_val_occurs_in_train() -> None:
    drawn: dict[str, set[object]] = {"train": set(), "val": set()}
    splits: tuple[Split, Split] = ("train", "val")
    for split in splits:
        rng = np.random.default_rng(0)
        for index in range(600):
            drawn[split].add(compose(rng, ACTIONS[index % len(ACTIONS)], split)[0])
    assert drawn["train"] and drawn["val"]
    assert not drawn["train"] & drawn["val"]


def test_several_of_a_kind_stand_on_different_sides() -> None:
    for pair in pairs():
        sides = Counter((fact.kind, fact.side) for fact in pair.facts if fact.kind == pair.slots.object)
        assert all(count == 1 for count in sides.values())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="-1"):
        make_pair(-1, "train")
    with pytest.raises(ValueError, match="test"):
        make_pair(0, "test")  # type: ignore[arg-type]
