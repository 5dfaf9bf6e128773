"""Records and their boxes, as they are told to a chat LLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lego_core.errors import LegoError
from lego_training.curate.scenes import NamedBox, Scene, plain_name, read_scenes
from lego_training.dataset import read_records

from tests.training.curate.conftest import PAIRS

BOX = [0.1, 0.2, 0.3, 0.4]


def dataset(
    root: Path, boxes: Any, action: str = "#C C opens the drawer", name: str = "ego4d", frame: bool = True
) -> Path:
    """A dataset of one record."""
    image = "clip/open/0.jpg"
    record = {"image_0": image, "image_1": "clip/open/1.jpg", "action": action}
    (root / f"{name}_train.json").write_text(json.dumps({"clip": {"open": record}}))
    (root / f"{name}_metadata.json").write_text(json.dumps({"clip": {"height": 256, "boxes": boxes}}))
    if frame:
        folder = root / "EgoGen" / {"ego4d": "ego4d.fho"}.get(name, name) / "train" / "clip" / "open"
        folder.mkdir(parents=True)
        (folder / "0.jpg").write_bytes(b"jpeg")
    return root


def test_a_scene_is_a_normalised_label_and_the_named_boxes_of_the_input_frame(tmp_path: Path) -> None:
    boxes = {
        "open": [{"name": "left_hand", "box": BOX}, {"name": "cup", "box": BOX}, {"name": "cup", "box": [0, 0, 1, 1]}]
    }

    scenes = read_scenes(dataset(tmp_path, boxes), "ego4d")

    place = (0.1, 0.2, 0.3, 0.4)
    named = (NamedBox("left hand", place), NamedBox("cup", place), NamedBox("cup", (0, 0, 1, 1)))
    assert scenes.chosen == [Scene("clip/open", "clip/open/0.jpg", "open the drawer", named)]
    assert scenes.names == {"left hand", "cup"} and scenes.left_out == []


def test_a_labels_full_stop_is_taken_away(tmp_path: Path) -> None:
    root = dataset(tmp_path, {"open": {"cup": BOX}}, action=" open  drawer. ", name="epickitchen")

    assert read_scenes(root, "epickitchen").chosen[0].label == "open drawer"


def test_the_toy_kitchens_boxes_are_read_where_it_has_them(kitchen: Path) -> None:
    scenes = read_scenes(kitchen, "toykitchen")

    assert len(scenes.chosen) == PAIRS and not scenes.left_out
    for scene, record in zip(scenes.chosen, read_records(kitchen, "toykitchen", "train"), strict=True):
        assert {box.name: list(box.box) for box in scene.boxes} == record.facts["boxes"]


@pytest.mark.parametrize(
    ("boxes", "kind", "message"),
    [
        ({}, "no boxes", "--without-boxes takes its label alone"),
        ({"open": []}, "no boxes", "the metadata has no boxes of it"),
        ({"open": "x"}, "bad boxes", "its boxes are 'x'; they must be a list"),
        ({"open": [{"box": BOX}]}, "bad boxes", "has no name"),
        ({"open": [{"name": "cup", "box": [0, 0, 1]}]}, "bad boxes", "the box of 'cup' is .0, 0, 1."),
        ({"open": [{"name": "cup", "box": [0.5, 0, 0.1, 1]}]}, "bad boxes", "with x1 <= x2"),
        ({"open": [{"name": "cup", "box": [0, 0, 1, 300]}]}, "bad boxes", "from 0 to 1"),
        ({"open": [{"name": "cup", "box": [0, 0, 1, float("nan")]}]}, "bad boxes", "from 0 to 1"),
    ],
)
def test_a_record_without_sound_boxes_is_left_out_with_its_reason(
    tmp_path: Path, boxes: Any, kind: str, message: str
) -> None:
    with pytest.raises(LegoError, match=rf"no record of .* can be curated \({kind}: .*{message}"):
        read_scenes(dataset(tmp_path, boxes), "ego4d")


def test_a_record_without_boxes_is_taken_if_asked_for(tmp_path: Path) -> None:
    (scene,) = read_scenes(dataset(tmp_path, {}), "ego4d", without_boxes=True).chosen

    assert (scene.label, scene.boxes) == ("open the drawer", ())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"action": "#C C"}, "label: .* names no action"), ({"frame": False}, "missing frame: .*0.jpg is missing")],
)
def test_a_record_that_could_not_be_tuned_on_is_not_paid_for(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(LegoError, match=message):
        read_scenes(dataset(tmp_path, {"open": [{"name": "cup", "box": BOX}]}, **change), "ego4d")


def test_a_clip_that_lists_no_actions_is_left_out_by_name(tmp_path: Path) -> None:
    root = dataset(tmp_path, {"open": {"cup": BOX}})
    index = root / "ego4d_train.json"
    index.write_text(json.dumps({"empty": {}, **json.loads(index.read_text())}))

    scenes = read_scenes(root, "ego4d")

    assert [(record, fault.kind) for record, fault in scenes.left_out] == [("empty/*", "no actions")]
    assert [scene.record for scene in scenes.chosen] == ["clip/open"]


def test_a_faulty_record_is_left_out_and_the_others_are_taken(kitchen: Path, tmp_path: Path) -> None:
    (tmp_path / "EgoGen").symlink_to(kitchen / "EgoGen")
    (tmp_path / "toykitchen_metadata.json").symlink_to(kitchen / "toykitchen_metadata.json")
    clips = json.loads((kitchen / "toykitchen_train.json").read_text())
    (tmp_path / "toykitchen_train.json").write_text(json.dumps({"odd": {"a": 3}, **clips}))

    scenes = read_scenes(tmp_path, "toykitchen")

    assert len(scenes.chosen) == PAIRS
    assert [(record, fault.kind) for record, fault in scenes.left_out] == [("odd/a", "no record")]


def test_a_limit_draws_by_seed_keeps_the_order_and_grows_by_adding(kitchen: Path) -> None:
    def drawn(limit: int, seed: int = 0) -> list[str]:
        return [scene.record for scene in read_scenes(kitchen, "toykitchen", limit=limit, seed=seed).chosen]

    whole = [f"{record.clip_id}/{record.action_id}" for record in read_records(kitchen, "toykitchen", "train")]
    assert drawn(3) == drawn(3) == sorted(drawn(3), key=whole.index)
    assert set(drawn(2)) < set(drawn(3)) < set(drawn(5)) and drawn(99) == whole
    assert len({tuple(drawn(3, seed)) for seed in range(6)}) > 1


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("board:chopping", "chopping board"),
        ("left_hand", "left hand"),
        ("knife_(knife,_machete)", "knife"),
        ("Right Hand", "right hand"),
    ],
)
def test_names_of_annotators_become_plain_words(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"holds no dataset 'ego4d': ego4d_train\.json is missing"):
        read_scenes(tmp_path, "ego4d")
