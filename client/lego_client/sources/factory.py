"""From what a user writes after --source to the source itself."""

from __future__ import annotations

import difflib
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.sources.base import FrameSource
from lego_client.sources.images import IMAGE_SUFFIXES, ImageFile, ImageFolder
from lego_client.sources.video import NetworkStream, VideoFile, VideoMoment
from lego_client.sources.webcam import Webcam

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".ts"})
STREAM_SCHEMES = ("rtsp://", "rtsps://", "http://", "https://")


def open_source(spec: str, at: float | None = None) -> FrameSource:
    """Returns the source, not yet started, that shows what the wearer sees when asking.

    Args:
        spec: A camera index, the address of a stream, or the path of a picture, a video or a folder of pictures.
        at: Position in a video file in seconds; None means its end.

    Raises:
        LegoError: There is no such file, its type is not supported, or `at` does not fit the source.
    """
    if at is not None and not 0 <= at < float("inf"):
        raise LegoError(f"the position is {at:g} s; it counts from the start of the video, 0 upwards")
    suffix = Path(spec).suffix.lower()
    is_stream = spec.lower().startswith(STREAM_SCHEMES)
    if at is not None and (is_stream or suffix not in VIDEO_SUFFIXES):
        raise LegoError(f"a position of {at:g} s needs a video file; {spec!r} is none")
    if is_stream:
        return NetworkStream(spec)
    if spec.isascii() and spec.isdigit():
        return Webcam(int(spec))
    path = existing_path(spec)
    if path.is_dir():
        return ImageFolder(path)
    if suffix in IMAGE_SUFFIXES:
        return ImageFile(path)
    if suffix in VIDEO_SUFFIXES:
        return VideoMoment(path, at)
    raise _unsupported(path)


def open_camera(spec: str) -> FrameSource:
    """Returns the source, not yet started, that shows what the wearer sees from now on: a video file is played.

    Raises:
        LegoError: As `open_source`.
    """
    if not spec.lower().startswith(STREAM_SCHEMES) and Path(spec).suffix.lower() in VIDEO_SUFFIXES:
        return open_clip(spec)
    return open_source(spec)


def open_clip(spec: str, speed: float = 1.0) -> VideoFile:
    """Returns a video file, not yet started, that plays `speed` seconds per second.

    Raises:
        LegoError: There is no such file, it is no video, or the speed is not above 0.
    """
    if not 0 < speed <= 1000:
        raise LegoError(f"the speed is {speed:g}; it must be above 0 and at most 1000, 1 being real time")
    path = existing_path(spec)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise _unsupported(path)
    return VideoFile(path, speed)


def existing_path(spec: str) -> Path:
    """Returns the path of what exists.

    Raises:
        LegoError: Nothing is there, and the message names the nearest name that is; or it may not be looked at.
    """
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
    raise LegoError(f"there is no {spec!r}; give a picture, a video, a folder, a camera index or a stream's address")


def _unsupported(path: Path) -> LegoError:
    return LegoError(
        f"{path} is of an unsupported type {path.suffix or '(no suffix)'!r}; "
        f"pictures: {' '.join(sorted(IMAGE_SUFFIXES))}; videos: {' '.join(sorted(VIDEO_SUFFIXES))}"
    )
