"""A metric's value over all pictures, and how far it would move with other pictures of the same kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.integer]


class Score(Protocol):
    """What a metric returns."""

    @property
    def count(self) -> int:
        """Pictures it is of."""

    def value(self, rows: Rows | None = None) -> float:
        """The value over all pictures, or over those of the rows, which may repeat."""

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The 95 % confidence interval by bootstrap."""


@dataclass(frozen=True)
class MeanScore:
    """The mean of one number a picture.

    Attributes:
        names: Of the pictures.
        values: (n,), finite or infinite.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Pictures it is of."""
        return len(self.values)

    def value(self, rows: Rows | None = None) -> float:
        """The mean."""
        return float(np.mean(self.values if rows is None else self.values[rows]))

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The 2.5th and 97.5th percentile of the means of pictures drawn with replacement."""
        if not np.isfinite(self.values).all():
            return self.value(), self.value()
        rng = np.random.default_rng(seed)
        means = [self.value(rng.integers(self.count, size=self.count)) for _ in range(resamples)]
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)
