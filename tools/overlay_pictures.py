"""The pictures of docs/overlay.md, from the demo's film and answers.

python tools/overlay_pictures.py --demo out/demo --out docs/images
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from lego_client.overlay.film import FilmClock, StoredAnswer, read_answer
from lego_client.overlay.ghost import Ghost
from lego_client.overlay.labels import State, Status, annotate
from lego_client.overlay.modes import MODES, composition
from lego_client.overlay.pixels import Picture
from lego_client.sources.opencv import frames_per_second, opened, read_rgb
from lego_core.errors import LegoError
from PIL import Image

_ANSWER = "003"  # of the third kitchen, to which the film comes after 8 seconds
_MODES_AT = 10.4  # seconds of the film
_GHOST_AT = (7.5, 8.6, 9.4, 10.4)
_GAP = 6  # pixels
_QUALITY = 88


def main() -> int:
    """Writes overlay_modes.jpg and overlay_ghost.jpg; returns 0, or 2 for what the user can put right."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/overlay.md.")
    parser.add_argument("--demo", type=Path, default=Path("out/demo"), help="folder that make demo has filled")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    try:
        answer = read_answer(options.demo / _ANSWER, None, None, None)
        views, fps = _film(options.demo / "tour.mp4")
    except LegoError as error:
        print(f"error: {error}; run make demo first", file=sys.stderr)
        return 2
    ghosts = _ghosts(views, fps, answer)
    shown = Status(State.ANSWER, age_seconds=4)
    view = views[round(_MODES_AT * fps)]
    modes = [
        ghosts[round(_MODES_AT * fps)][0] if mode == "ghost" else composition(mode, answer.asked).compose(
            view, answer.guidance
        )
        for mode in MODES
    ]  # fmt: skip
    _save([annotate(picture, status=shown) for picture in modes], options.out / "overlay_modes.jpg")
    moments = [ghosts[round(second * fps)] for second in _GHOST_AT]
    labels = [Status(State.LOST) if lost else shown for _, lost in moments]
    captioned = [
        annotate(picture, answer.description, status)
        for (picture, _), status in zip(moments, labels, strict=True)
    ]  # fmt: skip
    _save(captioned, options.out / "overlay_ghost.jpg")
    return 0


def _film(path: Path) -> tuple[list[Picture], float]:
    views: list[Picture] = []
    with opened(str(path)) as video:
        if video is None:
            raise LegoError(f"{path} cannot be read as a video")
        while (view := read_rgb(video)) is not None:
            views.append(view)
        return views, frames_per_second(video)


def _ghosts(views: list[Picture], fps: float, answer: StoredAnswer) -> list[tuple[Picture, bool]]:
    """Returns each view with the ghost over it, and whether the scene is lost there."""
    assert answer.asked is not None
    clock = FilmClock()
    ghost = Ghost(answer.asked, clock)
    ghosts = []
    for index, view in enumerate(views):
        clock.seconds = index / fps
        ghosts.append((ghost.compose(view, answer.guidance), ghost.lost))
    return ghosts


def _save(pictures: list[Picture], path: Path) -> None:
    height = max(picture.shape[0] for picture in pictures)
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    row = [part for picture in pictures for part in (picture, gap)][:-1]
    Image.fromarray(np.hstack(row)).save(path, quality=_QUALITY)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
