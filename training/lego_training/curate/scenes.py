"""What a chat LLM is told of a record: its label, and the objects and hands in its input frame with their boxes."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.dataset import (
    Fault,
    index_path,
    read_index,
    read_metadata,
    record_faults,
    split_folder,
    walk_index,
)
from lego_training.labels import normalise_label


@dataclass(frozen=True)
class NamedBox:
    """An object or a hand, and where it is.

    Attributes:
        name: In plain lower-case words: "left hand", "chopping board".
        box: x1, y1, x2, y2 in 0 to 1, from the top left corner of the frame.
    """

    name: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """One record as it is described.

    Attributes:
        record: "clip_id/action_id".
        image: Path of the input frame, relative to the split's folder.
        label: The action as a command, such as "open drawer".
        boxes: Of the input frame; empty if the label is all that is known.
    """

    record: str
    image: str
    label: str
    boxes: tuple[NamedBox, ...]


@dataclass
class Scenes:
    """A dataset's training records, sorted by whether they can be curated.

    Attributes:
        chosen: Those to curate, in file order.
        left_out: Record and why it cannot be curated, in file order.
        names: Of every box in the dataset: what its annotators know by name.
    """

    chosen: list[Scene] = field(default_factory=list)
    left_out: list[tuple[str, Fault]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def read_scenes(
    root: Path, dataset: str, without_boxes: bool = False, limit: int | None = None, seed: int = 0
) -> Scenes:
    """Reads the training records of a dataset directory and their boxes.

    Args:
        root: The directory.
        dataset: Its name, such as "epickitchen".
        without_boxes: Whether to take records whose boxes are not known, with their label alone.
        limit: Take so many, drawn at random. A higher limit with the same seed only adds to a lower one.
        seed: Of the draw.

    Raises:
        LegoError: There is no such dataset, one of its files is damaged, or no record of it can be curated.
    """
    index = index_path(root, dataset, "train")
    if not index.is_file():
        raise LegoError(f"{root} holds no dataset {dataset!r}: {index.name} is missing")
    metadata = read_metadata(root, dataset) or {}
    frames = split_folder(root, dataset, "train")
    scenes = Scenes()
    for clip_id, action_id, values in walk_index(read_index(index)):
        record = f"{clip_id}/{action_id}"
        try:
            fault = next(record_faults(values), None)
            if fault is not None:
                raise _NotCurated(fault.kind, fault.message)
            boxes = tuple(_boxes_of(metadata.get(clip_id, {}), action_id))
            scenes.names.update(box.name for box in boxes)
            if not boxes and not without_boxes:
                raise _NotCurated("no boxes", "the metadata has no boxes of it; --without-boxes takes its label alone")
            if not (frames / values["image_0"]).is_file():
                raise _NotCurated("missing frame", f"{frames / values['image_0']} is missing")
            scenes.chosen.append(Scene(record, values["image_0"], _label(values["action"], dataset), boxes))
        except _NotCurated as reason:
            scenes.left_out.append((record, reason.fault))
    if not scenes.chosen:
        reasons = {fault.kind: fault.message for _, fault in scenes.left_out}
        said = "; ".join(f"{kind}: {message}" for kind, message in reasons.items()) or "it is empty"
        raise LegoError(f"no record of {index} can be curated ({said})")
    if limit is not None:
        order = list(range(len(scenes.chosen)))
        random.Random(seed).shuffle(order)
        scenes.chosen = [scenes.chosen[number] for number in sorted(order[:limit])]
    return scenes


def read_boxes(values: Any) -> Iterator[NamedBox]:
    """Yields boxes of a list of {"name": ..., "box": [x1, y1, x2, y2]}, or of a mapping of names to boxes.

    Raises:
        LegoError: A box is not that; the message names it.
    """
    if isinstance(values, dict):
        values = [{"name": name, "box": box} for name, box in values.items()]
    if not isinstance(values, list):
        raise LegoError(f"its boxes are {values!r}; they must be a list of names and boxes")
    for value in values:
        name, box = (value.get("name"), value.get("box")) if isinstance(value, dict) else (None, None)
        if not isinstance(name, str) or not plain_name(name):
            raise LegoError(f"the box {value!r} has no name")
        if not _is_box(box):
            raise LegoError(
                f"the box of {name!r} is {box!r}; it must be x1, y1, x2, y2 from 0 to 1 with x1 <= x2, y1 <= y2"
            )
        yield NamedBox(plain_name(name), tuple(map(float, box)))  # type: ignore[arg-type]  # four, as was just seen


def plain_name(name: str) -> str:
    """Returns an annotators' name in plain words.

    "board:chopping" (EPIC-KITCHENS) gives "chopping board"; "left_hand" and "knife_(knife,_machete)" (Ego4D) give
    "left hand" and "knife".
    """
    words = re.sub(r"\(.*", "", name.lower()).replace("_", " ")
    return " ".join(" ".join(reversed(words.split(":"))).split())


class _NotCurated(Exception):
    """A record is left out; `fault` says why."""

    def __init__(self, kind: str, message: str) -> None:
        self.fault = Fault(kind, message)


def _boxes_of(clip: dict[str, Any], action_id: str) -> Iterator[NamedBox]:
    """Yields the boxes that the metadata of a clip gives an action: in `boxes`, or as the toy kitchen has them."""
    values = _mapping(clip.get("boxes")).get(action_id)
    if values is None:
        values = _mapping(_mapping(clip.get("actions")).get(action_id)).get("boxes")
    if values is not None:
        try:
            yield from read_boxes(values)
        except LegoError as error:
            raise _NotCurated("bad boxes", str(error)) from error


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _label(raw: str, dataset: str) -> str:
    try:
        # Some narrators end a label with a full stop, which would stand in the midst of a question.
        label = " ".join(normalise_label(raw, dataset).split()).rstrip(" .")
    except LegoError as error:
        raise _NotCurated("label", str(error)) from error
    if not label:
        raise _NotCurated("label", "its label is empty")
    return label


def _is_box(box: Any) -> bool:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return False
    if any(isinstance(edge, bool) or not isinstance(edge, (int, float)) or not math.isfinite(edge) for edge in box):
        return False
    x1, y1, x2, y2 = box
    return 0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1
