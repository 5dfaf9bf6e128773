"""A metric's value over all pictures, and how far it would move with other pictures of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.integer]
_Z = 1.959964  # of a 95 % interval


class Score(Protocol):
    """What a metric returns."""

    @property
    def names(self) -> tuple[str, ...]:
        """The samples it is of."""

    def take(self, rows: Rows) -> Score:
        """Returns the score of some of the samples, which may repeat."""

    def value(self) -> float:
        """The value over all samples."""

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The 95 % confidence interval by bootstrap."""


@dataclass(frozen=True)
class MeanScore:
    """The mean of one number a picture.

    Attributes:
        names: Of the samples.
        values: (n,), finite or infinite.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]

    def take(self, rows: Rows) -> MeanScore:
        """Returns the mean of some."""
        return MeanScore(tuple(self.names[row] for row in rows), self.values[rows])

    def value(self) -> float:
        """The mean."""
        return float(np.mean(self.values))

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The 2.5th and 97.5th percentile of the means of pictures drawn with replacement."""
        if not np.isfinite(self.values).all():
            return self.value(), self.value()
        rng, count = np.random.default_rng(seed), len(self.values)
        means = [float(np.mean(self.values[rng.integers(count, size=count)])) for _ in range(resamples)]
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, in 0 to 1 (Wilson 1927).

    A bootstrap of outcomes that are all alike knows no other: its interval has no width at 0 and 1, and too little
    near them.

    Args:
        successes: 0 to `trials`.
        trials: 1 or more, independent of each other.
    """
    share, extra = successes / trials, _Z**2 / trials
    middle = (share + extra / 2) / (1 + extra)
    half = _Z / (1 + extra) * ((share * (1 - share) + extra / 4) / trials) ** 0.5
    # At the ends they meet but for rounding.
    return 0.0 if not successes else middle - half, 1.0 if successes == trials else middle + half


def mcnemar(first_only: int, second_only: int) -> float:
    """Returns the two-sided p value of McNemar's exact test: of pairs that differ, either side is as likely."""
    differ = first_only + second_only
    tail = sum(comb(differ, each) for each in range(min(first_only, second_only) + 1))
    return min(1.0, 2 * tail / 2**differ)


def holm(p: Sequence[float]) -> list[float]:
    """Returns p values of several tests made at once, each as it would be were all of them one (Holm 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = largest
    return adjusted
