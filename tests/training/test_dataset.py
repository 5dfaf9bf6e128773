"""Reading a dataset directory, and the words made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_training.dataset import Squares, read_frame, read_records, stream_records
from lego_training.queries import CAPTION_QUERY, QUERY_TEMPLATES, corpus, label_variant, scene_caption
from lego_training.toy_kitchen.language import mirror_text
from PIL import Image

from tests.training.conftest import PAIRS, Workshop

NAME = "cooking"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of one record, without metadata."""
    folder = tmp_path / "EgoGen" / NAME / "train" / "clip" / "cut"
    folder.mkdir(parents=True)
    for name in ("0.jpg", "1.jpg"):
        Image.new("RGB", (40, 30), (10, 20, 30)).save(folder / name)
    write(tmp_path, {"clip": {"cut": {"image_0": "clip/cut/0.jpg", "image_1": "clip/cut/1.jpg", "action": "cut"}}})
    return tmp_path


def write(root: Path, content: Any, file: str = f"{NAME}_train.json") -> None:
    (root / file).write_text(content if isinstance(content, str) else json.dumps(content))


def test_records_come_in_file_order_with_what_the_metadata_says(workshop: Workshop) -> None:
    content = json.loads((workshop.data / "toykitchen_train.json").read_text())

    assert [record.clip_id for record in workshop.records] == list(content)
    assert len(workshop.records) == PAIRS
    first = workshop.records[0]
    assert first.input_path.is_file() and first.target_path.is_file()
    assert first.description.startswith("The ")
    assert {"facts", "boxes", "slots"} <= set(first.facts)


def test_a_dataset_may_have_neither_descriptions_nor_metadata(root: Path) -> None:
    (record,) = read_records(root, NAME, "train")

    assert (record.action, record.description, record.facts) == ("cut", "", {})


def test_ego4d_keeps_its_frames_in_a_folder_of_another_name(root: Path) -> None:
    (root / "EgoGen" / NAME).rename(root / "EgoGen" / "ego4d.fho")
    (root / f"{NAME}_train.json").rename(root / "ego4d_train.json")

    assert read_records(root, "ego4d", "train")[0].input_path.is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no records"),
        ({"clip": {"cut": {"image_0": "a", "action": "cut"}}}, "record clip/cut: lacks image_1"),
        (
            {"clip": {"cut": {"image_0": "a", "image_1": 5, "action": "cut"}}},
            "record clip/cut: image_1 is 5; it must be",
        ),
        ({"clip": {"cut": "a"}}, "record clip/cut: must be a mapping; it is a str"),
        ({"clip": ["cut"]}, r"record clip/\*: must be a mapping; it is a list"),
        ({"empty": {}}, r"record empty/\*: its clip lists no actions; list them or take the clip out"),
        (
            {"clip": {"cut": {"image_0": "", "image_1": "b", "action": "cut"}}},
            "record clip/cut: image_0 is empty; it must name a frame",
        ),
        (
            {"clip": {"cut": {"image_0": "a", "image_1": "b", "action": " "}}},
            "record clip/cut: action is empty",
        ),
        ('{"clip": {}, "clip": {}}', "is not valid JSON .'clip' is listed twice"),
        (
            {"clip": {"cut": {"image_0": "/etc/hosts", "image_1": "b", "action": "cut"}}},
            "record clip/cut: image_0 is '/etc/hosts'; it must be relative to the split's folder and stay in it",
        ),
        (
            {"clip": {"cut": {"image_0": "a", "image_1": "clip/../../b", "action": "cut"}}},
            "record clip/cut: image_1 is 'clip/../../b'; it must be relative",
        ),
        ("{", "is not valid JSON"),
        ([1], "must map clip ids to actions; it holds a list"),
    ],
)
def test_what_is_wrong_with_an_index_is_named(root: Path, content: Any, message: str) -> None:
    write(root, content)

    with pytest.raises(LegoError, match=f"{NAME}_train.json.*{message}"):
        read_records(root, NAME, "train")


def test_damaged_metadata_is_named(root: Path) -> None:
    write(root, "{", f"{NAME}_metadata.json")

    with pytest.raises(LegoError, match=r"cooking_metadata\.json is not valid JSON"):
        read_records(root, NAME, "train")


@pytest.mark.parametrize("about", [{"actions": ["cut"]}, {"actions": {"cut": "fast"}}])
def test_metadata_that_say_nothing_readable_of_an_action_are_named(root: Path, about: Any) -> None:
    write(root, {"clip": about}, f"{NAME}_metadata.json")

    with pytest.raises(LegoError, match=r"cooking_metadata\.json: record clip/cut: .* must be a mapping"):
        read_records(root, NAME, "train")


def test_a_dataset_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(LegoError, match=r"holds no dataset 'baking': baking_val\.json is missing; write one with"):
        read_records(root, "baking", "val")


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_damaged_frame_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "frame.jpg"
    if content is None:
        path.write_bytes(encoded_half(tmp_path))
    else:
        path.write_bytes(content)

    with pytest.raises(LegoError, match=r"frame\.jpg cannot be read .*restore it or drop its record"):
        read_frame(path)


def test_a_frame_that_would_fill_the_memory_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)

    with pytest.raises(LegoError, match=r"bomb\.png cannot be read .*the limit is"):
        read_frame(path)


def encoded_half(folder: Path) -> bytes:
    whole = folder / "whole.jpg"
    Image.effect_noise((64, 64), 80).save(whole)
    return whole.read_bytes()[:900]


def test_records_are_yielded_before_those_behind_them_are_looked_at(root: Path) -> None:
    good = {"image_0": "clip/cut/0.jpg", "image_1": "clip/cut/1.jpg", "action": "cut"}
    write(root, {"clip": {"cut": good, "mix": {"image_0": "a"}}})
    stream = stream_records(root, NAME, "train")

    assert next(stream).action_id == "cut"
    with pytest.raises(LegoError, match="record clip/mix: lacks image_1"):
        next(stream)


def test_reading_an_index_looks_at_no_frame(root: Path) -> None:
    shutil.rmtree(root / "EgoGen")

    (record,) = read_records(root, NAME, "train")

    squares = Squares([record.input_path, record.target_path], 16, lambda frame: frame.resize((16, 16)))
    assert len(squares) == 2
    with pytest.raises(LegoError, match=r"clip/cut/1\.jpg cannot be read .*restore it or drop its record"):
        squares[1]


def test_squares_are_as_the_given_function_makes_them(root: Path) -> None:
    (record,) = read_records(root, NAME, "train")

    square = Squares([record.input_path], 16, lambda frame: frame.resize((16, 16)))[0]

    assert (square.shape, square.dtype) == ((16, 16, 3), np.uint8)
    assert square.reshape(-1, 3).mean(axis=0) == pytest.approx((10, 20, 30), abs=2)


@pytest.mark.parametrize(("keep", "reads"), [(2 * 3 * 16 * 16, 2), (3 * 16 * 16, 3), (0, 4)])
def test_squares_are_kept_while_there_is_room_for_them(root: Path, keep: int, reads: int) -> None:
    (record,) = read_records(root, NAME, "train")
    made = []

    def square(frame: Image.Image) -> Image.Image:
        made.append(frame)
        return frame.resize((16, 16))

    squares = Squares([record.input_path, record.target_path], 16, square, keep)
    first = [squares[index] for index in (0, 1)]
    again = [squares[index] for index in (0, 1)]

    assert len(made) == reads
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_models_own_question_is_among_those_it_is_tuned_on() -> None:
    assert "How do I {action}?" in QUERY_TEMPLATES
    assert "How does the person properly {action} that is displayed in the video frame?" in QUERY_TEMPLATES
    assert len(set(QUERY_TEMPLATES)) == 10


def test_a_labels_side_is_worded_as_people_do() -> None:
    rng = np.random.default_rng(0)

    assert {label_variant("open left drawer", rng) for _ in range(40)} == {"open left drawer", "open drawer on left"}
    assert {label_variant("cut middle carrot", rng) for _ in range(40)} == {"cut middle carrot", "cut carrot in middle"}
    assert {label_variant("turn on tap", rng) for _ in range(9)} == {"turn on tap"}


def test_the_corpus_has_every_sentence_the_model_reads_or_writes(workshop: Workshop) -> None:
    sentences = set(corpus(workshop.records))

    for record in workshop.records:
        assert {record.description, scene_caption(record.facts), f"How do I {record.action}?"} <= sentences
    assert CAPTION_QUERY in sentences


HANDS = {
    "boxes": {"left hand": [0.05, 0.85, 0.2, 1.0], "right hand": [0.5, 0.3, 0.7, 0.9]},
    "facts": [
        {"kind": "cup", "colour": "red", "side": "right", "state": ""},
        {"kind": "drawer", "colour": "", "side": "left", "state": "open"},
    ],
}


def test_a_caption_says_where_the_hands_are_and_then_what_is_there() -> None:
    caption = scene_caption(HANDS)

    assert caption == (
        "the left hand on the left, low; the right hand in the middle, high; "
        "a drawer on the left, open; a red cup on the right"
    )


def test_a_hand_out_of_view_is_said_to_be() -> None:
    assert scene_caption({**HANDS, "boxes": {}}).startswith("no left hand; no right hand; ")


def mirrored(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of the picture flipped left to right."""
    boxes = {mirror_text(name): [1 - box[2], box[1], 1 - box[0], box[3]] for name, box in facts["boxes"].items()}
    return {"boxes": boxes, "facts": [{**fact, "side": mirror_text(fact["side"])} for fact in facts["facts"]]}


def test_a_mirrored_caption_is_the_mirrored_pictures_caption(workshop: Workshop) -> None:
    for facts in (HANDS, *(record.facts for record in workshop.records)):
        assert scene_caption(facts, mirrored=True) == scene_caption(mirrored(facts))
        assert scene_caption(mirrored(facts), mirrored=True) == scene_caption(facts)


def test_mirroring_words_twice_changes_nothing(workshop: Workshop) -> None:
    for record in workshop.records:
        for text in (record.action, record.description):
            assert mirror_text(mirror_text(text)) == text
        assert ("left" in record.description) == ("right" in mirror_text(record.description))
