"""Reads a dataset directory in the layout of the released LEGO-Dataset (lego-reference D).

Its frames are EgoGen/<name>/{train,val,val_gt_for_metric}/<clip_id>/<action_id>/<frame>.jpg; <name>_{train,val}.json
lists the actions, and <name>_metadata.json says more of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import numpy as np
from lego_core.errors import LegoError
from lego_core.images import decode_image
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "val"]

# The released sets keep their frames in a folder of another name than their JSON files.
_FOLDERS = {"ego4d": "ego4d.fho"}

# What `walk_index` gives in place of a record where a clip has none.
NO_ACTIONS: Final = object()


@dataclass(frozen=True)
class Record:
    """One action.

    Attributes:
        clip_id: First key of the JSON.
        action_id: Second key.
        input_path: The frame before the action.
        target_path: The frame of the action.
        action: The raw label.
        description: The enriched description; empty if the dataset has none yet.
        facts: What the metadata says of this action, if anything (the toy kitchen: seed, boxes, slots, caption).
    """

    clip_id: str
    action_id: str
    input_path: Path
    target_path: Path
    action: str
    description: str
    facts: dict[str, Any] = field(default_factory=dict)


def read_records(root: Path, name: str, split: Split) -> list[Record]:
    """Returns the records of a split in file order, which defines their indices.

    No frame is looked at: a missing one is named when its turn comes, or before training by lego-train check-data.

    Raises:
        LegoError: No such dataset, a damaged file, or a record that cannot be read; the message names it.
    """
    records = list(stream_records(root, name, split))
    if not records:
        raise LegoError(f"{index_path(root, name, split)} holds no records")
    return records


def stream_records(root: Path, name: str, split: Split) -> Iterator[Record]:
    """Yields the records of a split in file order, each checked as it is reached.

    Raises:
        LegoError: See `read_records`.
    """
    index = index_path(root, name, split)
    if not index.is_file():
        raise LegoError(
            f"{root} holds no dataset {name!r}: {index.name} is missing; write one with lego-train toy-kitchen write"
        )
    metadata = read_metadata(root, name) or {}
    folder = split_folder(root, name, split)
    for clip_id, action_id, values in walk_index(read_index(index)):
        for fault in record_faults(values):
            raise LegoError(f"{index}: record {clip_id}/{action_id}: {fault}")
        for fault in facts_faults(metadata.get(clip_id, {}), action_id):
            raise LegoError(f"{metadata_path(root, name)}: record {clip_id}/{action_id}: {fault}")
        yield Record(
            clip_id, action_id, folder / values["image_0"], folder / values["image_1"], values["action"],
            values.get("llava_forecast_finetune", ""),
            metadata.get(clip_id, {}).get("actions", {}).get(action_id, {}),
        )  # fmt: skip


def check_distinct(records: Sequence[Record], place: Callable[[Record], Path], what: str) -> None:
    """Checks that no two records would share a file: the second would be taken to be done already.

    Args:
        records: All of a split.
        place: Where the file of a record goes.
        what: The files and what they are named after, such as "features are named after their input frame".

    Raises:
        LegoError: Two do; the message names them and the file.
    """
    seen: dict[Path, Record] = {}
    for record in records:
        other = seen.setdefault(place(record), record)
        if other is not record:
            raise LegoError(
                f"records {other.clip_id}/{other.action_id} and {record.clip_id}/{record.action_id} would share "
                f"{place(record)}, as {what}: give each its own frames"
            )


def digest(records: Sequence[Record]) -> str:
    """Returns 16 hexadecimal digits of which records these are, and of their words."""
    texts = "\0".join(f"{each.clip_id}/{each.action_id}/{each.action}/{each.description}" for each in records)
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def index_path(root: Path, name: str, split: Split) -> Path:
    """Where a split's records are listed."""
    return root / f"{name}_{split}.json"


def metadata_path(root: Path, name: str) -> Path:
    """Where more is said of a dataset's clips."""
    return root / f"{name}_metadata.json"


def split_folder(root: Path, name: str, folder: str) -> Path:
    """Where a split's frames are; `folder` may also be val_gt_for_metric."""
    return root / "EgoGen" / _FOLDERS.get(name, name) / folder


def read_index(path: Path) -> dict[str, Any]:
    """Returns clip ids, each with its actions; what those are is not looked at.

    Raises:
        LegoError: Not JSON, no mapping, or a clip or action that is listed twice, of which JSON would keep the last.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise LegoError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(values, dict):
        raise LegoError(f"{path} must map clip ids to actions; it holds a {type(values).__name__}")
    return values


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{twice!r} is listed twice")
    return values


def read_metadata(root: Path, name: str) -> dict[str, Any] | None:
    """Returns what is said of each clip, or None if the dataset has no metadata.

    Raises:
        LegoError: The file is damaged.
    """
    path = metadata_path(root, name)
    if not path.is_file():
        return None
    metadata = read_index(path)
    for clip_id, about in metadata.items():
        if not isinstance(about, dict):
            raise LegoError(f"{path}: clip {clip_id} must be a mapping; it is a {type(about).__name__}")
    return metadata


def walk_index(clips: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yields (clip id, action id, values) in file order.

    A clip without a mapping of actions is one record, "*"; so is one that lists none, whose values are `NO_ACTIONS`.
    """
    for clip_id, actions in clips.items():
        if isinstance(actions, dict) and actions:
            yield from ((clip_id, *each) for each in actions.items())
        else:
            yield clip_id, "*", NO_ACTIONS if actions == {} else actions


@dataclass(frozen=True)
class Fault:
    """Something wrong with a record.

    Attributes:
        kind: A few words, to count by.
        message: What exactly, with the value.
    """

    kind: str
    message: str

    def __str__(self) -> str:
        return self.message


def record_faults(values: Any) -> Iterator[Fault]:
    """Yields what keeps a record from being read; only its description may be absent."""
    if values is NO_ACTIONS:
        yield Fault("no actions", "its clip lists no actions; list them or take the clip out")
        return
    if not isinstance(values, dict):
        yield Fault("no record", f"must be a mapping; it is a {type(values).__name__}")
        return
    for key in ("image_0", "image_1", "action", "llava_forecast_finetune"):
        if key not in values:
            if key != "llava_forecast_finetune":
                yield Fault("missing key", f"lacks {key}")
        elif not isinstance(values[key], str):
            yield Fault("not text", f"{key} is {values[key]!r}; it must be text")
        elif key.startswith("image"):
            yield from path_faults(key, values[key])
        elif key == "action" and not values[key].strip():
            yield Fault("label", "action is empty")


def facts_faults(about: dict[str, Any], action_id: str) -> Iterator[Fault]:
    """Yields what is wrong with what a clip's metadata say of an action, of which they need not say anything."""
    actions = about.get("actions", {})
    if not isinstance(actions, dict):
        yield Fault("metadata", f"its clip's actions are {actions!r:.80} in the metadata; they must be a mapping")
        return
    facts = actions.get(action_id, {})
    if not isinstance(facts, dict):
        yield Fault("metadata", f"the metadata say {facts!r:.80} of it; that must be a mapping")


def not_numbers(values: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers of JSON values that are none (NaN, or infinite), each with its dotted place."""
    if isinstance(values, float) and not math.isfinite(values):
        yield place, values
    elif isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from not_numbers(value, f"{place}.{key}" if place else str(key))


def path_faults(key: str, path: str) -> Iterator[Fault]:
    """Yields what makes a path no file's, or one that would lead out of the split's folder."""
    if not path.strip():
        yield Fault("missing frame", f"{key} is empty; it must name a frame")
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        yield Fault("unsafe path", f"{key} is {path!r}; it must be relative to the split's folder and stay in it")


def read_frame(path: Path) -> Image.Image:
    """Returns one RGB frame.

    Raises:
        LegoError: Missing, damaged or too large; the message names it.
    """
    try:
        return decode_image(path.read_bytes())
    except (LegoError, OSError) as error:
        raise LegoError(f"the frame {path} cannot be read ({error}); restore it or drop its record") from error


class Squares:
    """Frames as squares, each read when it is first asked for and kept while there is room.

    Args:
        paths: Of the frames.
        size: Side in pixels of the squares.
        square: Makes a square of a frame, as the part that is trained will be shown it.
        keep: Bytes of squares kept in memory; the rest is read again each time. Batches come in random order, so it
            does not matter which are kept.
    """

    def __init__(
        self, paths: list[Path], size: int, square: Callable[[Image.Image], Image.Image], keep: int = 4 << 30
    ) -> None:
        self._paths, self._square = paths, square
        self._room = keep // (3 * size * size)
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Returns one square, (size, size, 3) uint8.

        Raises:
            LegoError: Its frame is missing or damaged; the message names it.
        """
        if index in self._kept:
            return self._kept[index]
        square = np.asarray(self._square(read_frame(self._paths[index])))
        if len(self._kept) < self._room:
            self._kept[index] = square
        return square
