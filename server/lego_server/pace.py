"""How long queries take, learnt from those that have been answered."""

from __future__ import annotations

_SMOOTHING = 0.2


class Pace:
    """Engine seconds of a query, by its denoising steps and all the rest together; 0 until one has been answered."""

    def __init__(self) -> None:
        self._step: float | None = None
        self._rest: float | None = None

    def learn(self, denoising: float, steps: int, rest: float) -> None:
        """Takes note of a query that has been answered.

        Args:
            denoising: Seconds its denoising steps took.
            steps: How many there were, at least 1.
            rest: Seconds all its other engine calls took.
        """
        self._step = _smoothed(self._step, denoising / steps)
        self._rest = _smoothed(self._rest, rest)

    def seconds(self, steps: int) -> float:
        """Returns what a query of so many denoising steps takes, about."""
        return (self._step or 0.0) * steps + (self._rest or 0.0)


def _smoothed(known: float | None, value: float) -> float:
    return value if known is None else known + _SMOOTHING * (value - known)
