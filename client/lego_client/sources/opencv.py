"""What the OpenCV sources share: quiet logs, and a capture that is always released."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV and FFmpeg print many lines on stderr about a camera that is not there; our one sentence says it better.
# FFmpeg's level is read when the first file is opened, so it must be set before that. A user's own setting wins.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@contextmanager
def opened(
    target: str | int, backend: int = cv2.CAP_ANY, options: tuple[int, ...] = ()
) -> Generator[cv2.VideoCapture | None, None, None]:
    """Opens a camera index, file or address; gives None when OpenCV cannot."""
    capture = cv2.VideoCapture(target, backend, list(options))
    try:
        yield capture if capture.isOpened() else None
    finally:
        capture.release()


def read_rgb(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    """Reads the next frame: (H, W, 3) uint8 RGB, or None at the end."""
    ok, frame = capture.read()
    if not ok:
        return None
    pixels: NDArray[np.uint8] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    return pixels


def frames_per_second(capture: cv2.VideoCapture) -> float:
    """Returns the stated frame rate; 25 where a file states none or nonsense."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0.1 <= fps <= 1000.0 else 25.0
