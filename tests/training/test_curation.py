"""Curation files: conversations for instruction tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lego_core.errors import LegoError
from lego_training.curation import Conversation, read_curation

from tests.training.conftest import PAIRS, Workshop

HUMAN, GPT = {"from": "human", "value": "<image>\nHow do I cut?"}, {"from": "gpt", "value": "The hand cuts."}


def write(folder: Path, content: Any) -> Path:
    path = folder / "curation.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_conversation_is_a_frame_a_question_and_an_answer(tmp_path: Path) -> None:
    path = write(tmp_path, [{"id": "not read", "image": "a/b/0.jpg", "conversations": [HUMAN, GPT]}])

    assert read_curation(path, Path("train")) == [
        Conversation(Path("train/a/b/0.jpg"), "How do I cut?", "The hand cuts.")
    ]


@pytest.mark.parametrize("asked", ["<image>\nHow do I cut?", "How do I cut?\n<image>", "How do I <image> cut?"])
def test_the_images_marker_may_stand_anywhere_in_the_question(tmp_path: Path, asked: str) -> None:
    path = write(tmp_path, [{"image": "a/b/0.jpg", "conversations": [{"from": "human", "value": asked}, GPT]}])

    assert read_curation(path, tmp_path)[0].question == "How do I cut?"


def test_the_toy_kitchens_curation_file_is_read_in_order(workshop: Workshop) -> None:
    path = workshop.data / "curation_from_gpt" / "toykitchen_for_tuning_forecasting.json"

    conversations = read_curation(path, workshop.data / "EgoGen" / "toykitchen" / "train")

    assert len(conversations) == PAIRS
    for conversation, record in zip(conversations, workshop.records, strict=True):
        assert conversation.image_path == record.input_path and conversation.answer == record.description
        assert f"properly {record.action} that is" in conversation.question


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ({}, "must be a list of records; it holds a dict"),
        ([], "holds no conversations"),
        ([3], "record 0: must be a mapping; it is a int"),
        ([{"conversations": [HUMAN, GPT]}], "record 0: lacks image"),
        ([{"image": 3, "conversations": [HUMAN, GPT]}], "record 0: image is 3; it must be text"),
        (
            [{"image": "../a.jpg", "conversations": [HUMAN, GPT]}],
            r"record 0: image is '\.\./a\.jpg'; it must be relative",
        ),
        ([{"image": "a"}], "record 0: lacks conversations"),
        ([{"image": "a", "conversations": "hello"}], "record 0: conversations is 'hello'; it must be a list of turns"),
        (
            [{"image": "a", "conversations": [GPT, HUMAN]}],
            "its turns are of gpt, human; they must be one of human, then",
        ),
        ([{"image": "a", "conversations": [HUMAN, GPT, HUMAN]}], "its turns are of human, gpt, human"),
        ([{"image": "a", "conversations": []}], "its turns are of none"),
        ([{"image": "a", "conversations": ["x", GPT]}], "its turns are of None, gpt"),
        ([{"image": "a", "conversations": [{"from": "human"}, GPT]}], "the human turn says None; it must be text"),
        (
            [{"image": "a", "conversations": [{"from": "human", "value": "How?"}, GPT]}],
            "the question 'How\\?' lacks <image>",
        ),
        ([{"image": "a", "conversations": [HUMAN, {"from": "gpt", "value": "<image>"}]}], "the answer has an <image>"),
        ([{"image": "a", "conversations": [{"from": "human", "value": " <image> "}, GPT]}], "asks nothing"),
        ([{"image": "a", "conversations": [HUMAN, {"from": "gpt", "value": " "}]}], "says nothing"),
    ],
)
def test_what_is_wrong_with_a_curation_file_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(LegoError, match=rf"curation\.json.*{message}"):
        read_curation(write(tmp_path, content), tmp_path)


def test_a_curation_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"none\.json is no file; give a curation file"):
        read_curation(tmp_path / "none.json", tmp_path)
