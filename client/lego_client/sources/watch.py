"""Looks at what a camera shows for what the wearer should know: a covered lens, a dark room, a picture that stands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GRID = 24  # points looked at along each side
_DARK = 14  # of 255: brighter than the noise of a sensor that sees nothing, darker than a dim room
_PLAIN = 3.0  # standard deviation over the points: a wall in even light has more
_SEEN_NOTHING_S = 1.5  # a camera that wakes up is black for a moment
STILL_S = 5.0  # the noise of a sensor that works never gives one picture for so long


class PictureWatch:
    """Judges frame after frame.

    Attributes:
        finds_still: Whether a picture that stays the same means a fault; for streams it may mean good compression.
    """

    def __init__(self, *, finds_still: bool) -> None:
        self.finds_still = finds_still
        self._points = b""
        self._changed = 0.0
        self._sees = 0.0
        self._began = False

    def look(self, pixels: NDArray[np.uint8], now: float) -> str:
        """Takes the next frame and returns a sentence for the wearer, "" when all is well.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            now: Seconds of a clock that never runs backwards.
        """
        height, width = pixels.shape[:2]
        points = np.ascontiguousarray(pixels[:: max(1, height // _GRID), :: max(1, width // _GRID)])
        if not self._began:
            self._began, self._changed, self._sees = True, now, now
        if (seen := points.tobytes()) != self._points:
            self._points, self._changed = seen, now
        dark, plain = np.percentile(points, 98) < _DARK, points.std(axis=(0, 1)).max() < _PLAIN
        if not dark and not plain:
            self._sees = now
        if now - self._sees >= _SEEN_NOTHING_S:
            what = "black: uncover the lens, or switch on a light" if dark else "blank: uncover or clean the lens"
            return f"the picture is {what}"
        if self.finds_still and self.still_seconds(now) >= STILL_S:
            return f"the camera has shown one and the same picture for {STILL_S:g} s: unplug it and plug it in again"
        return ""

    def still_seconds(self, now: float) -> float:
        """Returns for how long the picture has not changed in the least."""
        return now - self._changed
