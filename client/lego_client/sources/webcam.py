"""A camera attached to this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from pathlib import Path

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.sources.base import FrameSource
from lego_client.sources.opencv import opened, read_rgb

_PROBED_INDICES = range(5)


class Webcam(FrameSource):
    """A camera by its index, 0 being the first."""

    def __init__(self, index: int) -> None:
        super().__init__(f"camera {index}", live=True)
        self._index = index

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields frames at the camera's own rate."""
        with opened(self._index) as camera:
            if camera is None:
                raise LegoError(_no_such_camera(self._index))
            # A driver that queues frames would show the past; asking for a queue of one keeps to the present.
            camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            began = time.monotonic()
            while (pixels := read_rgb(camera)) is not None:
                yield pixels, time.monotonic() - began
            raise LegoError(f"{self.name} stopped delivering frames; check its cable and that no other program uses it")


def present_cameras() -> list[int]:
    """Returns the indices of the cameras this machine has."""
    if sys.platform.startswith("linux"):  # listed by the kernel, without opening (and lighting up) each camera
        devices = Path("/sys/class/video4linux").glob("video*")
        return sorted(int(device.name.removeprefix("video")) for device in devices)
    present = []
    for index in _PROBED_INDICES:
        with opened(index) as camera:
            if camera is not None:
                present.append(index)
    return present


def _no_such_camera(index: int) -> str:
    present = present_cameras()
    if index in present:
        return f"camera {index} cannot be opened; close the program that uses it, or allow access to it"
    if present:
        return f"there is no camera {index}; present: {', '.join(map(str, present))}"
    return f"there is no camera {index}: none is attached; name a picture, a video, a folder or a stream instead"
