"""Plane to plane: a homography fitted to pairs of points, and what speaks against believing it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Points = NDArray[np.float32]

_FEWEST = 8  # pairs; four always fit
_ITERATIONS = 500
_SURE = 0.995
_LEAST_SCALE, _MOST_SCALE = 0.2, 5.0  # sides of the warped frame beside the frame's own
_STEEPEST = 4.0  # how many times nearer one corner may be than another
_LEAST_SIGMA = 0.3  # pixels: points are not found better than this, however well a few of them fit


@dataclass(frozen=True)
class Fit:
    """A homography and the pairs it rests on.

    Attributes:
        homography: (3, 3) from points to targets, its last element 1.
        inliers: (N,) which pairs agree with it.
        rms: Root mean square distance, in pixels of the targets, of those that agree.
    """

    homography: Matrix
    inliers: NDArray[np.bool_]
    rms: float


def fit_homography(points: Points, targets: Points, tolerance: float) -> Fit | None:
    """Fits a homography by MAGSAC++, which bears outliers; None where there is none to be had.

    Args:
        points: (N, 2).
        targets: (N, 2), where each of them was seen.
        tolerance: Pixels of the targets within which a pair agrees.
    """
    if len(points) < _FEWEST:
        return None
    try:
        homography, mask = cv2.findHomography(
            points, targets, cv2.USAC_MAGSAC, tolerance, maxIters=_ITERATIONS, confidence=_SURE
        )
    except cv2.error:  # points that lie in one place, and the like
        return None
    if homography is None or mask is None or not np.isfinite(homography).all():
        return None
    distances = np.linalg.norm(transform(homography, points) - targets, axis=1)
    inliers = (mask.ravel() > 0) & (distances <= 2 * tolerance)
    if np.count_nonzero(inliers) < _FEWEST:
        return None
    return Fit(homography, inliers, float(np.sqrt(np.mean(distances[inliers] ** 2))))


def transform(homography: Matrix, points: Points) -> Points:
    """Maps points (N, 2) by a homography."""
    mapped: Points = cv2.perspectiveTransform(points.reshape(-1, 1, 2).astype(np.float32), homography)
    return mapped.reshape(-1, 2)


def corners(size: tuple[int, int]) -> Points:
    """Returns the outer corners of a picture of (width, height) pixels: (4, 2), clockwise from the upper left.

    Pixel centres have whole coordinates, as OpenCV's warps take them.
    """
    right, bottom = size[0] - 0.5, size[1] - 0.5
    return np.array([(-0.5, -0.5), (right, -0.5), (right, bottom), (-0.5, bottom)], np.float32)


def scaling(size: tuple[int, int], target: tuple[int, int]) -> Matrix:
    """Returns the homography that scales a picture of (width, height) to another, as `cv2.resize` does."""
    x, y = target[0] / size[0], target[1] / size[1]
    return np.array([(x, 0, x / 2 - 0.5), (0, y, y / 2 - 0.5), (0, 0, 1)], np.float64)


def is_plausible(homography: Matrix, size: tuple[int, int]) -> bool:
    """Says whether a camera could see a picture of (width, height) so: upright side forward, convex, not absurdly scaled."""
    quad = corners(size)
    depths = np.column_stack([quad, np.ones(4)]) @ homography[2]
    if depths.min() <= 0 or depths.max() > _STEEPEST * depths.min():
        return False
    warped = transform(homography, quad).astype(np.float64)
    sides = np.roll(warped, -1, axis=0) - warped
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    if turns.min() <= 0:  # not convex, or mirrored
        return False
    scales = np.linalg.norm(sides, axis=1) / (size[0], size[1], size[0], size[1])
    return bool(scales.min() >= _LEAST_SCALE and scales.max() <= _MOST_SCALE)


def uncertainty(fit: Fit, points: Points, probes: Points) -> float:
    """Returns how far from the truth, in pixels, the worst of a few places may well lie: their largest standard error.

    Points that are few, or close together, or nearly on a line, leave a homography free to swing where there are none.

    Args:
        fit: What was fitted.
        points: (N, 2), all that were given to the fit.
        probes: (P, 2), where the error matters, in the points' frame.
    """
    if not len(probes):
        return float("inf")
    rows = _derivatives(fit.homography, points[fit.inliers])
    information = rows.T @ rows
    # Elements of a homography have unlike units: scale them alike before asking whether the system is singular.
    units = 1 / np.sqrt(np.diag(information) + 1e-12)
    conditioned = information * np.outer(units, units)
    if np.linalg.cond(conditioned) > 1e12:
        return float("inf")
    covariance = np.linalg.inv(conditioned) * np.outer(units, units)
    at = _derivatives(fit.homography, probes)
    variances = np.einsum("ij,jk,ik->i", at, covariance, at).reshape(-1, 2).sum(axis=1)
    freedom = max(1, 2 * np.count_nonzero(fit.inliers) - 8)
    sigma = max(_LEAST_SIGMA, fit.rms * np.sqrt(np.count_nonzero(fit.inliers) / freedom))
    return float(sigma * np.sqrt(variances.max()))


def _derivatives(homography: Matrix, points: Points) -> Matrix:
    """Returns (2 N, 8): how the mapped x and y of each point change with the homography's first eight elements."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    depth = homography[2, 0] * x + homography[2, 1] * y + homography[2, 2]
    u, v = transform(homography, points).astype(np.float64).T
    zero, one = np.zeros_like(x), np.ones_like(x)
    across = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=1) / depth[:, None]
    down = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=1) / depth[:, None]
    return np.stack([across, down], axis=1).reshape(-1, 8)
