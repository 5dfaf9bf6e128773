"""Films: frames into an MP4 file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray


@contextmanager
def mp4_writer(path: Path, fps: float, size: tuple[int, int]) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Gives a function that appends a frame, (H, W, 3) uint8 RGB, to a film.

    Args:
        path: Where to write.
        fps: Frames a second.
        size: (width, height) of every frame in pixels.

    Raises:
        LegoError: The film cannot be written.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    if not writer.isOpened():
        raise LegoError(f"{path} cannot be written as MP4; choose another folder")

    def write(frame: NDArray[np.uint8]) -> None:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    try:
        yield write
    finally:
        writer.release()
