"""Reads a curation file: frames with a question and an enriched description each, for instruction tuning.

It is a list of records with `image`, a path within the training frames, and `conversations`, a human turn and its
answer (lego-reference D4). Released ones lie in curation_from_gpt/.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.dataset import Fault, path_faults

IMAGE = "<image>"


@dataclass(frozen=True)
class Conversation:
    """One question about one frame, and its answer.

    Attributes:
        image_path: The input frame.
        question: What the human says, without the image's marker: wherever it stood, the prompt template puts it first,
            on a line of its own, as the original does.
        answer: The enriched description.
    """

    image_path: Path
    question: str
    answer: str


def read_curation(path: Path, frames: Path) -> list[Conversation]:
    """Returns the conversations of a curation file in file order.

    Args:
        path: The file.
        frames: The folder of the training frames.

    Raises:
        LegoError: Missing or damaged file, or a record that cannot be read; the message names it.
    """
    conversations = []
    for number, record in enumerate(read_list(path)):
        for fault in conversation_faults(record):
            raise LegoError(f"{path}: record {number}: {fault}")
        human, answer = (turn["value"] for turn in record["conversations"])
        question = " ".join(human.replace(IMAGE, " ").split())
        conversations.append(Conversation(frames / record["image"], question, answer.strip()))
    if not conversations:
        raise LegoError(f"{path} holds no conversations")
    return conversations


def read_list(path: Path) -> list[Any]:
    """Returns the records of a curation file as they are.

    Raises:
        LegoError: Missing, not JSON, or no list.
    """
    if not path.is_file():
        raise LegoError(f"{path} is no file; give a curation file, such as those in curation_from_gpt")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LegoError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(values, list):
        raise LegoError(f"{path} must be a list of records; it holds a {type(values).__name__}")
    return values


def conversation_faults(record: Any) -> Iterator[Fault]:
    """Yields what keeps a record of a curation file from being read."""
    if not isinstance(record, dict):
        yield Fault("no record", f"must be a mapping; it is a {type(record).__name__}")
        return
    for key, kind in (("image", str), ("conversations", list)):
        if key not in record:
            yield Fault("missing key", f"lacks {key}")
        elif not isinstance(record[key], kind):
            expected = "text" if kind is str else "a list of turns"
            yield Fault("not text" if kind is str else "turns", f"{key} is {record[key]!r}; it must be {expected}")
        elif key == "image":
            yield from path_faults(key, record[key])
        else:
            yield from _turn_faults(record[key])


def _turn_faults(turns: list[Any]) -> Iterator[Fault]:
    speakers = [turn.get("from") if isinstance(turn, dict) else None for turn in turns]
    if speakers != ["human", "gpt"]:
        said = ", ".join(map(str, speakers)) or "none"
        yield Fault("turns", f"its turns are of {said}; they must be one of human, then one of gpt")
        return
    for turn in turns:
        if not isinstance(turn.get("value"), str):
            yield Fault("not text", f"the {turn['from']} turn says {turn.get('value')!r}; it must be text")
            return
    question, answer = (turn["value"] for turn in turns)
    if IMAGE not in question:
        yield Fault("no image", f"the question {question!r} lacks {IMAGE}")
    if IMAGE in answer:
        yield Fault("no image", f"the answer has an {IMAGE}; only the question may")
    if not question.replace(IMAGE, "").strip():
        yield Fault("empty question", "the human turn asks nothing")
    if not answer.strip():
        yield Fault("empty description", "the gpt turn says nothing")
