"""How long queries take, learnt from those that have been answered."""

from __future__ import annotations

_SMOOTHING = 0.2


class Pace:
    """Engine seconds of a query, by the rows the U-Net evaluates and all the rest; 0 until one has been answered."""

    def __init__(self) -> None:
        self._row: float | None = None
        self._rest: float | None = None

    def learn(self, denoising: float, rows: float, rest: float) -> None:
        """Takes note of a query that has been answered.

        Args:
            denoising: Seconds its denoising steps took.
            rows: What they cost, as `lego_core.branches.cost` counts it; above 0.
            rest: Seconds all its other engine calls took.
        """
        self._row = _smoothed(self._row, denoising / rows)
        self._rest = _smoothed(self._rest, rest)

    def seconds(self, rows: float) -> float:
        """Returns what a query takes, about, whose denoising steps cost so much."""
        return (self._row or 0.0) * rows + (self._rest or 0.0)


def _smoothed(known: float | None, value: float) -> float:
    return value if known is None else known + _SMOOTHING * (value - known)
