"""What the OpenCV sources share: quiet logs, and a capture that is always released."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.sources.framing import rgb_from_bgr

# OpenCV and FFmpeg print many lines on stderr about a camera that is not there; our one sentence says it better.
# FFmpeg's level is read when the first file is opened, so it must be set before that. A user's own setting wins.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# For a frame of a camera that has fallen silent, Video4Linux would wait ten seconds.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "4")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_SET_BY_USER = _FFMPEG_OPTIONS in os.environ
_environment = threading.Lock()


@contextmanager
def opened(
    target: str | int, backend: int = cv2.CAP_ANY, options: tuple[int, ...] = (), *, ffmpeg: str = ""
) -> Generator[cv2.VideoCapture | None, None, None]:
    """Opens a camera index, file or address; gives None when OpenCV cannot.

    Args:
        target: What to open.
        backend: Which of OpenCV's backends is to do it.
        options: Properties and their values in turns.
        ffmpeg: Options of FFmpeg as OpenCV takes them, "name;value|name;value"; a user's own setting wins.
    """
    with _ffmpeg_options(ffmpeg):
        capture = cv2.VideoCapture(target, backend, list(options))
    try:
        yield capture if capture.isOpened() else None
    finally:
        capture.release()


@contextmanager
def _ffmpeg_options(options: str) -> Generator[None, None, None]:
    """OpenCV takes them from the environment alone, as it opens; they must not reach another thread's clip."""
    if not options or _SET_BY_USER:
        yield
        return
    with _environment:
        os.environ[_FFMPEG_OPTIONS] = options
        try:
            yield
        finally:
            del os.environ[_FFMPEG_OPTIONS]


def read_rgb(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    """Reads the next frame: (H, W, 3) uint8 RGB, bounded in size, or None at the end."""
    return retrieve_rgb(capture) if capture.grab() else None


def retrieve_rgb(capture: cv2.VideoCapture) -> NDArray[np.uint8] | None:
    """Returns the frame that was grabbed last: (H, W, 3) uint8 RGB, bounded in size, or None where it is damaged."""
    ok, frame = capture.retrieve()
    return rgb_from_bgr(frame) if ok else None


def frames_per_second(capture: cv2.VideoCapture) -> float:
    """Returns the stated frame rate; 25 where a file states none or nonsense."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if 0.1 <= fps <= 240.0 else 25.0
