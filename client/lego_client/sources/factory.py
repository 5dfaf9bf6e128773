"""From what a user writes after --source to the source itself."""

from __future__ import annotations

import difflib
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.sources.addresses import SCHEMES, is_address, shown
from lego_client.sources.base import FrameSource
from lego_client.sources.framing import Framing
from lego_client.sources.images import IMAGE_SUFFIXES, ImageFile, ImageFolder
from lego_client.sources.network import NetworkStream
from lego_client.sources.screen import SCHEME as SCREEN
from lego_client.sources.screen import Screen
from lego_client.sources.video import VideoFile, VideoMoment
from lego_client.sources.webcam import Webcam

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts"})
CAMERA = "camera:"
_DEVICES = "/dev/"


def open_source(spec: str, at: float | None = None, framing: Framing | None = None) -> FrameSource:
    """Returns the source, not yet started, that shows what the wearer sees when asking.

    Args:
        spec: A camera by its number ("0"), path ("/dev/video2") or name ("camera:brio"); the address of a stream; the
            path of a picture, a video or a folder of pictures; or "screen:".
        at: Position in a video file in seconds; None means its end.
        framing: How the camera is mounted; None for upright.

    Raises:
        LegoError: There is no such file, its type is not supported, or `at` does not fit the source.
    """
    if at is not None and not 0 <= at < float("inf"):
        raise LegoError(f"the position is {at:g} s; it counts from the start of the video, 0 upwards")
    live = _live_source(spec, framing)
    suffix = Path(spec).suffix.lower()
    if at is not None and (live is not None or suffix not in VIDEO_SUFFIXES):
        raise LegoError(f"a position of {at:g} s needs a video file; {live.name if live else spec!r} is none")
    if live is not None:
        return live
    path = existing_path(spec)
    if path.is_dir():
        return ImageFolder(path, framing)
    if suffix in IMAGE_SUFFIXES:
        return ImageFile(path, framing)
    if suffix in VIDEO_SUFFIXES:
        return VideoMoment(path, at, framing)
    raise _unsupported(path)


def open_camera(spec: str, framing: Framing | None = None) -> FrameSource:
    """Returns the source, not yet started, that shows what the wearer sees from now on: a video file is played.

    Raises:
        LegoError: As `open_source`.
    """
    if _live_source(spec, framing) is None and Path(spec).suffix.lower() in VIDEO_SUFFIXES:
        return open_clip(spec, framing=framing)
    return open_source(spec, framing=framing)


def open_clip(spec: str, speed: float = 1.0, framing: Framing | None = None) -> VideoFile:
    """Returns a video file, not yet started, that plays `speed` seconds per second.

    Raises:
        LegoError: There is no such file, it is no video, or the speed is not above 0.
    """
    if not 0 < speed <= 1000:
        raise LegoError(f"the speed is {speed:g}; it must be above 0 and at most 1000, 1 being real time")
    path = existing_path(spec)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise _unsupported(path)
    return VideoFile(path, speed, framing)


def _live_source(spec: str, framing: Framing | None) -> FrameSource | None:
    """Returns what shows the present; None for what can only be a path."""
    if is_address(spec):
        return NetworkStream(spec, framing)
    if spec.startswith(SCREEN):
        return Screen(spec, framing)
    if spec.startswith(_DEVICES):
        return Webcam(spec, framing)
    camera = spec.removeprefix(CAMERA)
    if camera.isascii() and camera.isdigit():
        return Webcam(int(camera), framing)
    if spec.startswith(CAMERA):
        if not camera.strip():
            raise LegoError("camera: names no camera; write camera:NAME, and see 'lego-client devices' for the names")
        return Webcam(camera.strip(), framing)
    return None


def existing_path(
    spec: str,
    wanted: str = "a picture, a video, a folder, a camera (its number, or camera:NAME), a stream's address or screen:",
) -> Path:
    """Returns the path of what exists.

    Args:
        spec: The path.
        wanted: What may be given instead, in words.

    Raises:
        LegoError: Nothing is there, and the message names the nearest name that is; or it may not be looked at.
    """
    if "://" in spec:  # a name or password may stand in it
        raise LegoError(f"{shown(spec)} is no path; streams begin with {', '.join(f'{s}://' for s in SCHEMES)}")
    try:
        path = Path(spec).expanduser()
        if spec and path.exists():
            return path
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, RuntimeError) as error:  # a name too long, a folder without access, a ~user that is none
        reason = getattr(error, "strerror", None) or error
        raise LegoError(f"{spec!r} cannot be looked for ({reason}); check the path") from error
    nearest = difflib.get_close_matches(path.name, siblings, n=1)
    if nearest:
        raise LegoError(f"there is no {spec!r}; did you mean {str(path.with_name(nearest[0]))!r}?")
    if not path.parent.is_dir():
        raise LegoError(f"there is no {spec!r}: the folder {str(path.parent)!r} does not exist")
    raise LegoError(f"there is no {spec!r}; give {wanted}")


def _unsupported(path: Path) -> LegoError:
    return LegoError(
        f"{path} is of an unsupported type {path.suffix or '(no suffix)'!r}; "
        f"pictures: {' '.join(sorted(IMAGE_SUFFIXES))}; videos: {' '.join(sorted(VIDEO_SUFFIXES))}"
    )
