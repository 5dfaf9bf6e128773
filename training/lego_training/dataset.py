"""Reads a dataset directory in the layout of the released LEGO-Dataset (lego-reference D).

Its frames are EgoGen/<name>/{train,val,val_gt_for_metric}/<clip_id>/<action_id>/<frame>.jpg; <name>_{train,val}.json
lists the actions, and <name>_metadata.json says more of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lego_core.errors import LegoError
from lego_core.images import decode_image
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

# The released sets keep their frames in a folder of another name than their JSON files.
_FOLDERS = {"ego4d": "ego4d.fho"}


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


def read_records(root: Path, name: str, split: Literal["train", "val"]) -> list[Record]:
    """Returns the records of a split in file order, which defines their indices.

    Raises:
        LegoError: No such dataset, a damaged file, or a record that lacks a key or a frame; the message names it.
    """
    index = root / f"{name}_{split}.json"
    if not index.is_file():
        raise LegoError(
            f"{root} holds no dataset {name!r}: {index.name} is missing; write one with lego-train toy-kitchen write"
        )
    metadata_path = root / f"{name}_metadata.json"
    metadata = _read_json(metadata_path) if metadata_path.is_file() else {}
    folder = root / "EgoGen" / _FOLDERS.get(name, name) / split
    records = []
    for clip_id, actions in _read_json(index).items():
        for action_id, values in actions.items():
            texts = _texts(values, f"{index}: record {clip_id}/{action_id}")
            record = Record(
                clip_id, action_id, folder / texts["image_0"], folder / texts["image_1"], texts["action"],
                texts["llava_forecast_finetune"],
                metadata.get(clip_id, {}).get("actions", {}).get(action_id, {}),
            )  # fmt: skip
            for path in (record.input_path, record.target_path):
                if not path.is_file():
                    raise LegoError(f"{index}: record {clip_id}/{action_id} lacks its frame {path}; restore it")
            records.append(record)
    if not records:
        raise LegoError(f"{index} holds no records")
    return records


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LegoError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(values, dict):
        raise LegoError(f"{path} must map clip ids to actions; it holds a {type(values).__name__}")
    for clip_id, actions in values.items():
        if not isinstance(actions, dict):
            raise LegoError(f"{path}: clip {clip_id} must be a mapping; it is a {type(actions).__name__}")
    return values


def _texts(values: Any, place: str) -> dict[str, str]:
    """Returns what is read of a record; only the description may be absent."""
    if not isinstance(values, dict):
        raise LegoError(f"{place} must be a mapping; it is a {type(values).__name__}")
    texts = {"llava_forecast_finetune": "", **values}
    for key in ("image_0", "image_1", "action", "llava_forecast_finetune"):
        if key not in texts:
            raise LegoError(f"{place} lacks {key}")
        if not isinstance(texts[key], str):
            raise LegoError(f"{place}: {key} is {texts[key]!r}; it must be text")
    return texts


def read_frame(path: Path) -> Image.Image:
    """Returns one RGB frame.

    Raises:
        LegoError: Missing, damaged or too large; the message names it.
    """
    try:
        return decode_image(path.read_bytes())
    except (LegoError, OSError) as error:
        raise LegoError(f"the frame {path} cannot be read ({error}); restore it or drop its record") from error


def read_squares(
    paths: list[Path], size: int, square: Callable[[Image.Image], Image.Image], what: str
) -> NDArray[np.uint8]:
    """Reads all frames into memory, showing a progress bar.

    Args:
        paths: n of them.
        size: Side in pixels of the squares.
        square: Makes a square of a frame, as the part that is trained will be shown it.
        what: Named on the progress bar.

    Returns:
        (n, size, size, 3) uint8.
    """
    squares = np.empty((len(paths), size, size, 3), np.uint8)
    for index, path in enumerate(track(paths, f"reading {what}")):
        squares[index] = np.asarray(square(read_frame(path)))
    return squares
