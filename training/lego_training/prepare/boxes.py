"""Boxes of hands and objects: EPIC-KITCHENS' from VISOR's masks, Ego4D's from its own annotation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.prepare.actions import Clip, NamedBox

MAPPING = "frame_mapping.json"
# Pixels that VISOR's sparse masks are drawn on, whatever the video's own.
_MASK_SIZE = (1920.0, 1080.0)
_FRAME_NUMBER = re.compile(r"frame_(\d+)\.")


def named_box(name: str, points: Sequence[tuple[float, float]], size: tuple[float, float]) -> NamedBox | None:
    """Returns the box around points, cut at the frame's edges; None if nothing is left of it.

    Args:
        name: Of the object or hand.
        points: (x, y) in pixels.
        size: Width and height of the frame they lie in.
    """
    if not points or not all(math.isfinite(value) for point in points for value in point):
        return None
    columns, rows = zip(*points, strict=True)
    left, right = (_share(edge, size[0]) for edge in (min(columns), max(columns)))
    top, bottom = (_share(edge, size[1]) for edge in (min(rows), max(rows)))
    if left >= right or top >= bottom:
        return None
    return {"name": name, "box": [round(edge, 4) for edge in (left, top, right, bottom)]}


def _share(edge: float, length: float) -> float:
    return min(1.0, max(0.0, edge / length))


def read_mapping(folder: Path) -> dict[str, dict[str, str]]:
    """Returns VISOR's table of its own frame names and those of the extracted frames, for each video.

    Raises:
        LegoError: It is not there, or damaged.
    """
    path = folder / MAPPING
    if not path.is_file():
        raise LegoError(f"{path} is missing: VISOR counts frames in its own way; put its {MAPPING} there")
    values = _read(path)
    if not isinstance(values, dict) or not all(isinstance(each, dict) for each in values.values()):
        raise LegoError(f"{path} does not map videos to frames; fetch it again")
    return values


def with_visor_boxes(clip: Clip, folder: Path, mapping: dict[str, str], within: float) -> Clip:
    """Returns the clip with each action's boxes: those of the annotated frame nearest to its input frame.

    VISOR draws masks on a few frames of an action (its sparse annotation). A box is that of all points of an object's
    polygons; the paper does not say how it makes boxes of masks.

    Args:
        clip: Of EPIC-KITCHENS; its frame rate turns VISOR's frame numbers into times.
        folder: Holds <video_id>.json, or has folders train and val that do.
        mapping: The video's part of `read_mapping`.
        within: Seconds; a frame farther away shows another moment, and gives no boxes.

    Raises:
        LegoError: The video's file is damaged.
    """
    path = next((each for each in (folder, folder / "train", folder / "val") if (each / _name(clip)).is_file()), None)
    if path is None or clip.fps is None:
        return clip
    try:
        frames = list(_frames(_read(path / _name(clip)), mapping, clip.fps))
    except (KeyError, TypeError, ValueError) as error:
        raise LegoError(f"{path / _name(clip)} is no annotation of VISOR ({error!r}); fetch it again") from error
    actions = []
    for action in clip.actions:
        time, boxes = min(frames, key=lambda frame: abs(frame[0] - action.input_time), default=(math.inf, ()))
        near = abs(time - action.input_time) <= within
        actions.append(replace(action, boxes=tuple(boxes)) if near else action)
    return replace(clip, actions=actions)


def _name(clip: Clip) -> str:
    return f"{clip.video}.json"


def _frames(values: Any, mapping: dict[str, str], fps: float) -> Iterator[tuple[float, list[NamedBox]]]:
    """Yields the time and the boxes of each annotated frame."""
    for frame in values["video_annotations"]:
        found = _FRAME_NUMBER.search(mapping.get(str(frame["image"]["name"]).replace(".png", ".jpg"), ""))
        if found:
            boxes = (
                named_box(str(each["name"]), [(x, y) for polygon in each["segments"] for x, y in polygon], _MASK_SIZE)
                for each in frame["annotations"]
            )
            yield (int(found[1]) - 1) / fps, [box for box in boxes if box]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LegoError(f"{path} is not valid JSON ({error}); fetch it again") from error
