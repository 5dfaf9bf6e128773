"""A camera attached to this machine: through Video4Linux, AVFoundation or Media Foundation."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.backoff import Backoff, Outage
from lego_client.pace import Pace
from lego_client.sources.base import LIVE_FPS, FrameSource
from lego_client.sources.cameras import BACKEND, Camera, find_camera
from lego_client.sources.framing import Framing
from lego_client.sources.opencv import opened, retrieve_rgb
from lego_client.sources.watch import STILL_S, PictureWatch

# A wearer may take long to find the plug; looking costs little.
_PATIENCE = Backoff(seconds=24 * 3600, base=0.5, cap=2.0)
_OLDEST_S = 10.0  # a time stamp further back is of another clock


class Webcam(FrameSource):
    """A camera by its number, its name or its path.

    One that is unplugged while it runs is looked for until it is back, under another number too.
    """

    def __init__(self, camera: int | str, framing: Framing | None = None) -> None:
        """Names the camera; it is not opened yet.

        Args:
            camera: See `find_camera`.
            framing: How it is mounted.
        """
        self._picture = PictureWatch(finds_still=True)
        super().__init__(f"camera {camera}", live=True, framing=framing, watch=self._picture)
        self._wanted = camera
        self._known_as = ""
        self._stood = self._stands_again = False

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields frames at the camera's own rate, at most `LIVE_FPS`."""
        outage: Outage | None = None
        while not self.closing:
            try:
                for frame in self._frames(self._find()):
                    outage = None
                    yield frame
                if self._stands_again:  # opened anew, which cures some
                    continue
                fault = _fault(self._find())
            except LegoError as error:
                fault = f"{self.name} is gone: plug it in again" if self._known_as else str(error)
            if not self._known_as:
                raise LegoError(fault)
            self.report(fault)
            outage = outage or Outage(_PATIENCE)
            self.pause(outage.next_wait())

    def _find(self) -> Camera:
        """Returns the camera as it is called now: one that is plugged in again may have another number.

        Raises:
            LegoError: It is not there.
        """
        try:
            camera = find_camera(self._wanted)
            if self._known_as in ("", camera.name):
                return camera
        except LegoError:
            if not self._known_as:
                raise
        return find_camera(self._known_as)

    def _frames(self, camera: Camera) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        pace = Pace(LIVE_FPS)
        self._stands_again = False
        with opened(camera.number, BACKEND) as capture:
            if capture is None:
                return
            # A driver that queues frames would show the past; asking for a queue of one keeps to the present.
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            while not self.closing and capture.grab():
                now = time.monotonic()
                if not pace.due(now) or (pixels := retrieve_rgb(capture)) is None:
                    continue
                pace.take(now)
                self._known_as = camera.name
                yield pixels, self.elapsed() - _age(capture)
                if self._begins_to_stand():
                    return

    def _begins_to_stand(self) -> bool:
        stands = self._picture.still_seconds(time.monotonic()) >= STILL_S
        self._stands_again = stands and not self._stood
        self._stood = stands
        return self._stands_again


def _age(capture: cv2.VideoCapture) -> float:
    """Returns the seconds since the frame was captured, as far as the driver's time stamp tells; else 0."""
    if BACKEND != cv2.CAP_V4L2:
        return 0.0
    age = time.monotonic() - float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
    return age if 0 <= age <= _OLDEST_S else 0.0


def _fault(camera: Camera) -> str:
    """Returns why a camera that is there gives no frame, and the cure."""
    what = f"camera {camera.number} ({camera.name})"
    match sys.platform:
        case "linux" if not os.access(camera.path, os.R_OK | os.W_OK):
            return f"{what} may not be used: allow access to {camera.path}, as 'sudo usermod -aG video $USER' does"
        case "darwin":
            allow = ", and allow access under System Settings, Privacy & Security, Camera"
        case "win32":
            allow = ", and allow access under Settings, Privacy, Camera"
        case _:
            allow = ""
    return f"{what} gives no picture: close the program that uses it{allow}, or unplug it and plug it in again"
