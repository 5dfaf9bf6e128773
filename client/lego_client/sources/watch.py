"""Looks at what a camera shows for what the wearer should know: a covered lens, a dark room, a picture that stands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GRID = 24  # points looked at along each side
_DARK = 20  # of 255: brighter than the noise of a sensor that sees nothing, darker than a dim room
_PLAIN = 3.0  # standard deviation over the points: a wall in even light has more
_SEEN_NOTHING_S = 1.5  # a camera that wakes up is black for a moment
STILL_S = 5.0  # the noise of a sensor that works never gives one picture for so long


class PictureWatch:
    """Judges frame after frame.

    Attributes:
        finds_still: Whether a picture that stays the same means a fault; for streams it may mean good compression.
        unsure: Whether nothing is seen, but not yet for so long that it means something.
    """

    def __init__(self, *, finds_still: bool) -> None:
        self.finds_still = finds_still
        self.unsure = False
        self._points = b""
        self._changed = 0.0
        self._blind_since: float | None = None

    def look(self, pixels: NDArray[np.uint8], now: float) -> str:
        """Takes the next frame and returns a sentence for the wearer, "" when all is well.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            now: Seconds of a clock that never runs backwards.
        """
        height, width = pixels.shape[:2]
        points = np.ascontiguousarray(pixels[:: max(1, height // _GRID), :: max(1, width // _GRID)])
        if (seen := points.tobytes()) != self._points:
            self._points, self._changed = seen, now
        # Of all points but the brightest: a covered camera still has a few that are hot.
        dark, plain = np.percentile(points, 98) < _DARK, points.std(axis=(0, 1)).max() < _PLAIN
        self._blind_since = (now if self._blind_since is None else self._blind_since) if dark or plain else None
        blind = 0.0 if self._blind_since is None else now - self._blind_since
        self.unsure = self._blind_since is not None and blind < _SEEN_NOTHING_S
        if blind >= _SEEN_NOTHING_S:
            what = "black: uncover the lens, or switch on a light" if dark else "blank: uncover or clean the lens"
            return f"the picture is {what}"
        if self.finds_still and self.still_seconds(now) >= STILL_S:
            return f"the camera has shown one and the same picture for {STILL_S:g} s: unplug it and plug it in again"
        return ""

    def still_seconds(self, now: float) -> float:
        """Returns for how long the picture has not changed in the least."""
        return now - self._changed if self._points else 0.0
