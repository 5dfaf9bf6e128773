"""Compositions by the names that people type."""

from __future__ import annotations

import time
from collections.abc import Callable

from lego_core.errors import LegoError

from lego_client.overlay.compositions import Composition, PictureInPicture, SideBySide, Slider
from lego_client.overlay.ghost import Ghost
from lego_client.overlay.pixels import Picture

MODES = ("ghost", "side-by-side", "picture-in-picture", "slider")


def composition(
    mode: str,
    asked: Picture | None = None,
    *,
    corner: str = "top-right",
    size: float = 0.4,
    position: float = 0.5,
    clock: Callable[[], float] = time.monotonic,
) -> Composition:
    """Returns a new composition.

    Args:
        mode: One of `MODES`.
        asked: The frame that was asked about; ghost and slider need it.
        corner: See `PictureInPicture`, as for `size`.
        size: Share of the view.
        position: See `Slider`.
        clock: See `Ghost`.

    Raises:
        LegoError: There is no such mode, it lacks what it needs, or a value is out of range.
    """
    if mode not in MODES:
        raise LegoError(f"the mode is {mode!r}; it must be one of {', '.join(MODES)}")
    if mode == "side-by-side":
        return SideBySide()
    if mode == "picture-in-picture":
        return PictureInPicture(corner, size)
    if asked is None:
        raise LegoError(f"the mode {mode} needs the frame that was asked about")
    return Ghost(asked, clock) if mode == "ghost" else Slider(asked, position)
