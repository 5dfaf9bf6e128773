"""Reads a dataset directory in the layout of the released LEGO-Dataset (lego-reference D).

    EgoGen/<name>/{train,val,val_gt_for_metric}/<clip_id>/<action_id>/<frame>.jpg
    <name>_{train,val}.json   <name>_metadata.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lego_core.errors import LegoError
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
        LegoError: No such dataset, or a record lacks a key or a frame; the message names it.
    """
    index = root / f"{name}_{split}.json"
    if not index.is_file():
        raise LegoError(f"{root} holds no dataset {name!r}: {index.name} is missing; write one with lego-train toy-kitchen write")
    metadata_path = root / f"{name}_metadata.json"
    metadata = json.loads(metadata_path.read_text()) if metadata_path.is_file() else {}
    folder = root / "EgoGen" / _FOLDERS.get(name, name) / split
    records = []
    for clip_id, actions in json.loads(index.read_text()).items():
        for action_id, values in actions.items():
            missing = [key for key in ("image_0", "image_1", "action") if key not in values]
            if missing:
                raise LegoError(f"{index}: record {clip_id}/{action_id} lacks {missing[0]}")
            facts = metadata.get(clip_id, {}).get("actions", {}).get(action_id, {})
            records.append(
                Record(clip_id, action_id, folder / values["image_0"], folder / values["image_1"], values["action"],
                       values.get("llava_forecast_finetune", ""), facts)
            )  # fmt: skip
    if not records:
        raise LegoError(f"{index} holds no records")
    return records


def read_frame(path: Path) -> Image.Image:
    """Returns one RGB frame.

    Raises:
        LegoError: Missing or damaged; the message names it.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise LegoError(f"the frame {path} cannot be read ({error}); restore it or drop its record") from error


def read_squares(paths: list[Path], size: int, what: str) -> NDArray[np.uint8]:
    """Returns all frames squashed to squares, (n, size, size, 3) uint8, showing a progress bar named `what`."""
    squares = np.empty((len(paths), size, size, 3), np.uint8)
    for index, path in enumerate(track(paths, f"reading {what}")):
        frame = read_frame(path)
        squares[index] = frame if frame.size == (size, size) else frame.resize((size, size), Image.Resampling.BICUBIC)
    return squares
