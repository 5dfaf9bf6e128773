"""Whether two pictures look alike around given points, in structure and in colour, whatever the exposure."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.overlay.homography import Points

Grey = NDArray[np.uint8]

_PATCH = 5  # pixels to each side of a point whose likeness is judged
_NOISE = 2.5  # variance of a patch, in shades squared, that noise alone may give it
_SAME_TINT = 0.05  # of chromaticity, 0 to 1
_WHITE_BALANCE = 0.08  # of chromaticity, by which all colours may be shifted alike


def exposed_like(warped: Grey, view: Grey, points: Points) -> Grey:
    """Gives the warped frame the brightness and contrast that the view has around the points: exposure changes."""
    if not len(points):
        return warped
    x, y = np.rint(points).astype(int).T
    ours, theirs = warped[y, x].astype(np.float64), view[y, x].astype(np.float64)
    gain = float(np.clip(theirs.std() / max(ours.std(), 1.0), 0.25, 4.0))
    curve = np.clip(theirs.mean() + gain * (np.arange(256) - ours.mean()), 0, 255).astype(np.uint8)
    adapted: Grey = cv2.LUT(warped, curve)
    return adapted


def correlations(first: Grey, second: Grey, points: Points) -> NDArray[np.float64]:
    """Returns (N,): how alike two pictures are around each point, by normalised cross-correlation, -1 to 1."""
    offsets = np.arange(-_PATCH, _PATCH + 1)
    x, y = np.rint(points).astype(int).T
    rows, columns = y[:, None, None] + offsets[:, None], x[:, None, None] + offsets
    a, b = (picture[rows, columns].reshape(len(points), -1).astype(np.float64) for picture in (first, second))
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)) + _NOISE * a.shape[1]
    likeness: NDArray[np.float64] = (a * b).sum(axis=1) / norms
    return likeness


def same_tints(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns (N,): which colours are the same, but for one shift of them all, as a camera's white balance makes."""
    difference = second - first
    difference -= np.clip(np.median(difference, axis=0), -_WHITE_BALANCE, _WHITE_BALANCE)
    same: NDArray[np.bool_] = np.linalg.norm(difference, axis=1) <= _SAME_TINT
    return same
