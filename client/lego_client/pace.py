"""How often something is done that could be done more often: looking at a camera, sending what it sees."""

from __future__ import annotations

_EARLY = 0.25  # of a period: a camera of twice the rate is not made to wait for its third frame by a little jitter


class Pace:
    """Says which frames are due so that at most `fps` a second are taken, evenly."""

    def __init__(self, fps: float) -> None:
        self._period = 1 / fps
        self._next = float("-inf")

    def due(self, now: float) -> bool:
        """Whether the frame that is there now may be taken."""
        return now >= self._next - _EARLY * self._period

    def take(self, now: float) -> None:
        """One is taken: the next is due a period later."""
        self._next = max(self._next, now) + self._period

    def wait(self, now: float) -> float:
        """Returns the seconds until the next frame is due, 0 if one is."""
        return max(0.0, self._next - now)
