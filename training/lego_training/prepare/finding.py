"""Finds the videos of clips below a folder."""

from __future__ import annotations

import os
from pathlib import Path

from lego_core.errors import LegoError

_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm"})


def find_videos(folder: Path) -> dict[str, Path]:
    """Returns the video files below a folder by their names without suffix; of equal names the first in order.

    Raises:
        LegoError: There is no such folder.
    """
    if not folder.is_dir():
        raise LegoError(f"{folder} is no folder; give the one with the videos")
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        for file in sorted(files):
            if Path(file).suffix.lower() in _SUFFIXES:
                found.setdefault(Path(file).stem, Path(place, file))
    return found


def find_frames(folder: Path, video: str) -> Path | None:
    """Returns a video's folder of frames: right below `folder`, or where EPIC-KITCHENS puts it.

    Raises:
        LegoError: There is no such folder.
    """
    if not folder.is_dir():
        raise LegoError(f"{folder} is no folder; give the one with the extracted frames")
    participant = video.partition("_")[0]
    places = (folder / video, folder / participant / video, folder / participant / "rgb_frames" / video)
    return next((place for place in places if place.is_dir()), None)
