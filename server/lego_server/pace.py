"""How long queries take, learnt from those that have been answered."""

from __future__ import annotations

_SMOOTHING = 0.2


class Pace:
    """Engine seconds of a query, by its U-Net evaluations and all the rest together; 0 until one has been answered.

    Evaluations are counted as `lego_core.branches.cost` does.
    """

    def __init__(self) -> None:
        self._evaluation: float | None = None
        self._rest: float | None = None

    def learn(self, denoising: float, evaluations: float, rest: float) -> None:
        """Takes note of a query that has been answered.

        Args:
            denoising: Seconds its denoising steps took.
            evaluations: How many there were, at least 1.
            rest: Seconds all its other engine calls took.
        """
        self._evaluation = _smoothed(self._evaluation, denoising / evaluations)
        self._rest = _smoothed(self._rest, rest)

    def seconds(self, evaluations: float) -> float:
        """Returns what a query of so many evaluations takes, about."""
        return (self._evaluation or 0.0) * evaluations + (self._rest or 0.0)


def _smoothed(known: float | None, value: float) -> float:
    return value if known is None else known + _SMOOTHING * (value - known)
