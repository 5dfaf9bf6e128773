"""Which cameras this machine has, and which of them a user means."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field

import cv2
from cv2_enumerate_cameras import enumerate_cameras
from lego_core.errors import LegoError

from lego_client.sources import v4l2

BACKEND = {"linux": cv2.CAP_V4L2, "darwin": cv2.CAP_AVFOUNDATION, "win32": cv2.CAP_MSMF}.get(sys.platform, cv2.CAP_ANY)


@dataclass(frozen=True)
class Camera:
    """A camera attached to this machine.

    Attributes:
        number: What OpenCV calls it; on Linux, the N of /dev/videoN.
        name: As its maker calls it.
        path: As the system calls it.
        formats: Its formats' four letters with their sizes (width, height); empty where the platform does not tell.
    """

    number: int
    name: str
    path: str
    formats: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def list_cameras(*, with_formats: bool = True) -> list[Camera]:
    """Returns the cameras in order of their numbers; none of them is started, no light goes on.

    Args:
        with_formats: Ask each for its formats, where the platform tells.
    """
    found = {camera.index: camera for camera in enumerate_cameras(BACKEND)}
    return [
        Camera(number, camera.name or f"camera {number}", camera.path or "", _formats(camera.path, with_formats))
        for number, camera in sorted(found.items())
    ]


def find_camera(wanted: int | str) -> Camera:
    """Returns the camera that a user means.

    Args:
        wanted: Its number; its path, or a link to that; or its name, or a part that only its name has. Upper and lower
            case are the same.

    Raises:
        LegoError: There is none, or more than one.
    """
    cameras = list_cameras(with_formats=False)
    if isinstance(wanted, int):
        fitting = [camera for camera in cameras if camera.number == wanted]
    elif os.sep in wanted:
        real = os.path.realpath(wanted)
        fitting = [camera for camera in cameras if camera.path in (wanted, real)]
    else:
        name = wanted.casefold()
        exact = [camera for camera in cameras if camera.name.casefold() == name]
        fitting = exact or [camera for camera in cameras if name in camera.name.casefold()]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise LegoError(f"{len(fitting)} cameras are called {wanted!r}; give a number: {described(fitting)}")
    raise LegoError(f"there is no camera {wanted}: {described(cameras)}")


def described(cameras: list[Camera]) -> str:
    """Returns the cameras in words, to end a message with."""
    if not cameras:
        return "none is attached; plug one in, or name a picture, a video, a folder or a stream instead"
    return "present are " + ", ".join(f"{camera.number} ({camera.name})" for camera in cameras)


def _formats(path: str | None, wanted: bool) -> dict[str, list[tuple[int, int]]]:
    if wanted and path and sys.platform == "linux":
        with contextlib.suppress(OSError):  # not ours to open: it is listed all the same
            return v4l2.formats(path)
    return {}
