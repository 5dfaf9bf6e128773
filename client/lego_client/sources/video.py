"""Video files: played as if they happened now, or looked at in one moment."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.sources.base import RING_SIZE, FrameSource
from lego_client.sources.framing import Framing
from lego_client.sources.opencv import frames_per_second, opened, retrieve_rgb

_SAME_MOMENT_S = 1e-3  # containers count in whole milliseconds


class VideoFile(FrameSource):
    """A clip played as if it were happening now, `speed` seconds of it per second."""

    def __init__(self, path: Path, speed: float = 1.0, framing: Framing | None = None) -> None:
        super().__init__(str(path), live=False, framing=framing)
        self.path = path
        self._speed = speed

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields every frame when it is due."""
        with opened(str(self.path)) as video:
            if video is None:
                raise LegoError(_unreadable(self.path))
            yield from in_real_time(self, video, self._speed)


class VideoMoment(FrameSource):
    """The last seven frames of a clip up to `at` seconds (None: the end): what a wearer had just seen when asking."""

    def __init__(self, path: Path, at: float | None = None, framing: Framing | None = None) -> None:
        super().__init__(str(path) if at is None else f"{path} at {at:g} s", live=False, framing=framing)
        self._path = path
        self._at = at

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields at most `RING_SIZE` frames at once, the one on show at the position last."""
        with opened(str(self._path)) as video:
            if video is None:
                raise LegoError(_unreadable(self._path))
            fps = frames_per_second(video)
            last = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) - 1  # an estimate, as is all that containers say of indices
            if self._at is not None:
                last = min(last, int(self._at * fps)) if last > 0 else int(self._at * fps)
            start = max(0, last - RING_SIZE + 1)
        back = RING_SIZE
        while True:
            frames, ended = self._read_from(start)
            if len(frames) == RING_SIZE or start == 0:
                break
            # The estimate was off, the rate varies, or one cannot seek in the file: begin earlier, at last at its
            # start.
            start, back = max(0, start - back), 4 * back
        if not frames:
            raise LegoError(_unreadable(self._path))
        end = frames[-1][1] + 1 / fps
        if ended and self._at is not None and self._at > end + _SAME_MOMENT_S:
            raise LegoError(f"{self._path} lasts {end:.2f} s; {self._at:g} s is after its end")
        yield from frames

    def _read_from(self, start: int) -> tuple[deque[tuple[NDArray[np.uint8], float]], bool]:
        """Reads from frame `start` up to the position; returns the newest, and whether the file ended before."""
        frames: deque[tuple[NDArray[np.uint8], float]] = deque(maxlen=RING_SIZE)
        with opened(str(self._path)) as video:
            if video is None or (start > 0 and not video.set(cv2.CAP_PROP_POS_FRAMES, start)):
                return frames, True
            for moment in _times(video, start):
                if self.closing or (self._at is not None and moment > self._at + _SAME_MOMENT_S):
                    return frames, False
                if (pixels := retrieve_rgb(video)) is not None:
                    frames.append((pixels, moment))
        return frames, True


def in_real_time(
    source: FrameSource, video: cv2.VideoCapture, speed: float
) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
    """Yields the frames of an open clip with their times, each when it is due.

    Raises:
        LegoError: It has none.
    """
    began = time.monotonic()
    read_any = False
    for moment in _times(video, 0):
        if (pixels := retrieve_rgb(video)) is None:
            continue
        source.pause(began + moment / speed - time.monotonic())
        read_any = True
        yield pixels, moment
    if not read_any:
        raise LegoError(f"{source.name} holds no frame that can be read; check that it plays elsewhere")


def _times(video: cv2.VideoCapture, start: int) -> Iterator[float]:
    """Grabs frame after frame and yields the seconds at which each is due, as the file says, else by its mean rate."""
    fps = frames_per_second(video)
    before, index = -1.0, start
    while video.grab():
        moment = float(video.get(cv2.CAP_PROP_POS_MSEC)) / 1000
        if moment <= before or (moment == 0 and index > 0):  # no time stamps, or damaged ones
            moment = index / fps if before < 0 else before + 1 / fps
        yield moment
        before, index = moment, index + 1


def _unreadable(path: Path) -> str:
    return f"{path} cannot be read as a video; it is damaged or in a format this OpenCV lacks: convert it to H.264 MP4"
