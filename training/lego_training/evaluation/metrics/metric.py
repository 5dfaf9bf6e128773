"""What every metric is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.samples import Fault, Sample
from lego_training.evaluation.metrics.scores import MeanScore, Score

# "published" does as the code of the paper does, its faults included; "corrected" as is right or usual.
Mode = Literal["published", "corrected"]
MODES: tuple[Mode, ...] = ("published", "corrected")


class Metric(Protocol):
    """One column of the paper's tables."""

    name: str
    title: str
    unit: str
    scale: float
    better: Literal["higher", "lower"]
    notes: dict[Mode, str]

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """Computes the metric.

        Returns:
            The score, and the samples that it could not be computed of.

        Raises:
            Absent: Its weights are not there.
            NotDefined: It has no such mode.
            LegoError: Its weights are damaged, or no sample is left.
        """


class NotDefined(LegoError):
    """The metric has no such mode; the message says why."""


def mean_score(
    samples: Sequence[Sample], values: NDArray[np.floating], allow_infinite: bool = False
) -> tuple[Score, list[Fault]]:
    """Returns the mean over the samples, and those left out because their value is no number.

    Raises:
        LegoError: None is left.
    """
    fine = ~np.isnan(values) if allow_infinite else np.isfinite(values)
    faults = [
        Fault(str(each.generated), "its value is no number") for each, ok in zip(samples, fine, strict=True) if not ok
    ]
    if not fine.any():
        raise LegoError(f"of {len(samples)} pictures none has a value; the first is {samples[0].generated}")
    names = tuple(each.name for each, ok in zip(samples, fine, strict=True) if ok)
    return MeanScore(names, values[fine].astype(np.float64)), faults


def cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the cosine of each pair of rows of (n, D) and (n, D), (n,); of a row of zeros it is 0."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(a, axis=1), 1e-8) * np.maximum(np.linalg.norm(b, axis=1), 1e-8)
    return np.asarray((a * b).sum(axis=1) / lengths)
