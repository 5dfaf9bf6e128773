"""Video files, and streams over the network."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.sources.base import RING_SIZE, FrameSource
from lego_client.sources.opencv import frames_per_second, opened, read_rgb

_NETWORK_TIMEOUT_MS = 8000
_RECONNECT_DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds


class VideoFile(FrameSource):
    """A clip played as if it were happening now, `speed` seconds of it per second."""

    def __init__(self, path: Path, speed: float = 1.0) -> None:
        super().__init__(str(path), live=False)
        self.path = path
        self._speed = speed

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields every frame when it is due."""
        with opened(str(self.path)) as video:
            if video is None:
                raise LegoError(_unreadable(self.path))
            yield from _in_real_time(self, video, self._speed)


class VideoMoment(FrameSource):
    """The last seven frames of a clip up to `at` seconds (None: the end): what a wearer had just seen when asking."""

    def __init__(self, path: Path, at: float | None = None) -> None:
        super().__init__(str(path) if at is None else f"{path} at {at:g} s", live=False)
        self._path = path
        self._at = at

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields at most `RING_SIZE` frames at once, the one at the position last."""
        with opened(str(self._path)) as video:
            if video is None:
                raise LegoError(_unreadable(self._path))
            fps = frames_per_second(video)
            count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate: containers may overstate it
            last = self._last_index(count, fps)
            first = max(0, (count - 1 if last is None else last) - RING_SIZE + 1)
            video.set(cv2.CAP_PROP_POS_FRAMES, first)
            frames = _read_up_to(video, first, last)
        if not frames and first > 0:
            with opened(str(self._path)) as video:  # seeking failed: read the clip through instead
                frames = _read_up_to(video, 0, last) if video is not None else deque()
        if not frames:
            raise LegoError(_unreadable(self._path))
        for index, pixels in frames:
            yield pixels, index / fps

    def _last_index(self, count: int, fps: float) -> int | None:
        if self._at is None:
            return None
        duration = count / fps
        if count > 0 and self._at > duration:
            raise LegoError(f"{self._path} lasts {duration:.2f} s; {self._at:g} s is after its end")
        # The frame on show at that moment; the clip's very end still shows its last frame.
        index = int(self._at * fps + 1e-6)
        return min(index, count - 1) if count > 0 else index


class NetworkStream(FrameSource):
    """A stream by its address: RTSP, or HTTP (MJPEG, HLS or a file), as phones and wearables serve them."""

    def __init__(self, url: str) -> None:
        # The name stands in messages and records, where a password in the address has no business.
        super().__init__(re.sub(r"//[^/@]*@", "//", url), live=True)
        self._url = url

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields frames as they arrive; a stream that breaks off is opened again a few times."""
        began = time.monotonic()
        delays = iter(_RECONNECT_DELAYS)
        seen_any = False
        options = (
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _NETWORK_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _NETWORK_TIMEOUT_MS,
        )  # fmt: skip
        while True:
            with opened(self._url, cv2.CAP_FFMPEG, options) as stream:
                if stream is None:
                    if not seen_any:
                        raise LegoError(f"no video at {self.name}; check the address and that the stream is on")
                elif stream.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a stored file arrives faster than it happened
                    yield from _in_real_time(self, stream, 1.0)
                    return
                else:
                    while (pixels := read_rgb(stream)) is not None:
                        seen_any, delays = True, iter(_RECONNECT_DELAYS)  # the patience is per break
                        yield pixels, time.monotonic() - began
            delay = next(delays, None)
            if delay is None:
                raise LegoError(f"{self.name} broke off and did not come back; check the network and the camera")
            self.pause(delay)
            if self._closing.is_set():
                return


def _in_real_time(
    source: FrameSource, video: cv2.VideoCapture, speed: float
) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
    fps = frames_per_second(video)
    began = time.monotonic()
    index = 0
    while (pixels := read_rgb(video)) is not None:
        source.pause(began + index / fps / speed - time.monotonic())
        yield pixels, index / fps
        index += 1
    if index == 0:
        raise LegoError(f"{source.name} holds no frame that can be read; check that it plays elsewhere")


def _read_up_to(video: cv2.VideoCapture, first: int, last: int | None) -> deque[tuple[int, NDArray[np.uint8]]]:
    """Reads from frame `first` to `last` (None: the end) and keeps the newest with their indices."""
    frames: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=RING_SIZE)
    index = first
    while (last is None or index <= last) and (pixels := read_rgb(video)) is not None:
        frames.append((index, pixels))
        index += 1
    return frames


def _unreadable(path: Path) -> str:
    return f"{path} cannot be read as a video; it is damaged or in a format this OpenCV lacks: convert it to H.264 MP4"
