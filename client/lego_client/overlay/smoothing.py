"""The One Euro filter: steady while nothing moves, and hardly late while something does.

Casiez, Roussel and Vogel, "1€ Filter", CHI 2012: a low-pass filter whose cutoff rises with speed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class OneEuroFilter:
    """Smooths an array that is seen again and again. All of it is smoothed alike, so that shapes keep their shape.

    Args:
        cutoff: Hz while nothing moves; lower is steadier.
        beta: Hz of cutoff per unit of speed; at high speed the filter lags by 1 / (2 π beta) units.
        speed_cutoff: Hz at which the speed itself is smoothed.
    """

    def __init__(self, cutoff: float, beta: float, speed_cutoff: float = 2.0) -> None:
        self._cutoff = cutoff
        self._beta = beta
        self._speed_cutoff = speed_cutoff
        self._time: float | None = None
        self._value: Values = np.zeros(0)
        self._velocity: Values = np.zeros(0)

    def reset(self) -> None:
        """Forgets what was seen, so that the next value is taken as it is."""
        self._time = None

    def __call__(self, value: Values, time: float) -> Values:
        """Returns the smoothed value.

        Args:
            value: Any shape with coordinates in its last axis, the same at each call.
            time: Seconds; a time that has not advanced changes nothing.
        """
        if self._time is None:
            self._time, self._value, self._velocity = time, value.astype(np.float64), np.zeros(value.shape)
            return self._value
        passed = time - self._time
        if passed <= 0:
            return self._value
        velocity = (value - self._value) / passed
        self._velocity = self._velocity + _share(self._speed_cutoff, passed) * (velocity - self._velocity)
        speed = float(np.linalg.norm(self._velocity, axis=-1).max())
        share = _share(self._cutoff + self._beta * speed, passed)
        self._value = self._value + share * (value - self._value)
        self._time = time
        return self._value


def _share(cutoff: float, passed: float) -> float:
    """Returns how much of a new value a low-pass filter takes over after so many seconds."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * passed))
