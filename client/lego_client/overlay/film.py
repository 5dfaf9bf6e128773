"""A film of an overlay: guidance over every frame of a clip, as the wearer would have seen it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
from lego_core.errors import LegoError
from lego_core.files import read_json

from lego_client.mp4 import mp4_writer
from lego_client.overlay.compositions import Composition
from lego_client.overlay.ghost import Ghost
from lego_client.overlay.labels import State, Status, annotate
from lego_client.overlay.pixels import Picture, checked, size_of
from lego_client.sources.images import read_image
from lego_client.sources.opencv import frames_per_second, opened, read_rgb

Watch = Callable[[Iterable[Picture], int], Iterable[Picture]]


@dataclass(frozen=True)
class StoredAnswer:
    """What a film shows.

    Attributes:
        guidance: (h, w, 3) uint8 RGB.
        asked: (H, W, 3) uint8 RGB; None if it is not known.
        description: "" if there is none.
    """

    guidance: Picture
    asked: Picture | None
    description: str


class FilmClock:
    """The position in a film, for a `Ghost` to go by."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Returns the position in seconds."""
        return self.seconds


def read_answer(
    folder: Path | None, guidance: Path | None, asked: Path | None, description: str | None
) -> StoredAnswer:
    """Reads an answer from the folder in which it was saved, from single files, or from both, files first.

    Raises:
        LegoError: There is no guidance frame, or a file cannot be read.
    """
    if folder is not None:
        record = folder / "record.json"
        guidance, asked = guidance or folder / "guidance.jpg", asked or folder / "frame.jpg"
        if description is None:
            try:
                description = str(read_json(record)["description"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise LegoError(f"{folder} holds no answer ({record.name} cannot be read); name its folder") from error
    if guidance is None:
        raise LegoError("there is no guidance frame; give --answer FOLDER or --guidance PICTURE")
    return StoredAnswer(
        checked(_picture(guidance), str(guidance)),
        None if asked is None else checked(_picture(asked), str(asked)),
        description or "",
    )


def write_overlay_film(
    path: Path, clip: Path, answer: StoredAnswer, composition: Composition, clock: FilmClock, watch: Watch
) -> list[bool]:
    """Writes an MP4 of a clip with guidance over it, of the clip's size and pace.

    Args:
        path: Where to write.
        clip: The clip.
        answer: What to show.
        composition: How to show it.
        clock: Is set to each frame's time before it is composed.
        watch: Passes the frames on, told how many there should be; for a progress bar.

    Returns:
        For each frame, whether guidance was to be seen in it.

    Raises:
        LegoError: The clip cannot be read or the film cannot be written.
    """
    seen = []
    with opened(str(clip)) as video:
        first = None if video is None else read_rgb(video)
        if video is None or first is None:
            raise LegoError(f"{clip} cannot be read as a video")
        fps = frames_per_second(video)
        views = watch(_frames(first, video), int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
        with mp4_writer(path, fps, size_of(checked(first, str(clip)))) as write:
            for index, view in enumerate(views):
                clock.seconds = index / fps
                picture = composition.compose(view, answer.guidance)
                lost = isinstance(composition, Ghost) and composition.lost
                write(annotate(picture, answer.description, Status(State.LOST) if lost else None))
                seen.append(not lost)
    return seen


def _frames(first: Picture, video: cv2.VideoCapture) -> Iterator[Picture]:
    yield first
    while (pixels := read_rgb(video)) is not None:
        yield pixels


def _picture(path: Path) -> Picture:
    if not path.is_file():
        raise LegoError(f"{path} is no file; give a picture")
    return read_image(path)
