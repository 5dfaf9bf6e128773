"""Where the frame that was asked about lies in the live view, as the wearer's head moves.

A frame is followed in two steps, as patch trackers for phones do: points are followed from the last view into this one
by Lucas-Kanade, which bears fast motion; then the asked frame, warped to where it should be, is aligned with the view
itself, which keeps errors from adding up. What was lost is looked for with ORB. Every result is believed only as far as
the two pictures look alike under it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.overlay.homography import (
    Fit,
    Matrix,
    Points,
    fit_homography,
    is_plausible,
    scaling,
    transform,
    uncertainty,
)
from lego_client.overlay.likeness import Grey, correlations, exposed_like, same_tints

FOUND_FROM = 0.5  # confidence
LOST_BELOW = 0.05

_LONGER_SIDE = 480  # pixels at which frames are registered
_MARGIN = 10  # pixels from the border within which no point is used
_CANDIDATES = 1500
_CELLS, _POINTS_IN_A_CELL = (6, 4), 12  # the picture is divided, so that points lie everywhere and not in one bush
_POINT_SPACING = 8  # pixels
_POINT_QUALITY = 0.002  # of the best point
_LEAST_CORNER = 2e-4  # smallest eigenvalue of a point's structure; below is noise
_WINDOW = 21  # pixels of Lucas-Kanade
_FOLLOW_LEVELS, _ANCHOR_LEVELS = 3, 1
_KEYPOINTS = 1000
_FAST_THRESHOLD = 7
_RATIO = 0.8  # Lowe's test
_FOLLOW_TOLERANCE, _MATCH_TOLERANCE = 2.0, 3.0  # pixels
_ALIKE = 0.6  # correlation
_TINT_SIDE = 120  # pixels of the picture from which colours are taken
_PROBES = np.stack(np.meshgrid(np.linspace(0.02, 0.98, 6), np.linspace(0.02, 0.98, 6)), axis=-1).reshape(-1, 2)


class Means(Enum):
    """How the asked frame was found in a view."""

    NONE = "none"
    FOLLOWED = "followed"
    RELOCALISED = "relocalised"


@dataclass(frozen=True)
class Registration:
    """Where the asked frame lies in a view.

    Attributes:
        homography: (3, 3) from pixels of the asked frame to pixels of the view; where it was last, if it is lost; None
            before it was first found.
        confidence: 0 to 1; 0 where it is lost.
        means: How it was found.
        agreement: Share of the points that should be seen which look like those of the asked frame.
        uncertainty: Pixels by which the worst visible place may be off.
    """

    homography: Matrix | None
    confidence: float
    means: Means
    agreement: float = 0.0
    uncertainty: float = float("inf")


@dataclass(frozen=True)
class _Frame:
    """A picture at the size at which it is registered.

    Attributes:
        grey: (H, W), a little smooth.
        tint: (h, w, 2) float32, much smaller: the shares of red and of blue.
    """

    grey: Grey
    tint: NDArray[np.float32]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> _Frame:
        """Takes (H, W, 3) uint8 RGB of any size."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        size = _size_within((pixels.shape[1], pixels.shape[0]), _LONGER_SIDE)
        if size[0] < grey.shape[1]:
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        small = cv2.resize(pixels, _size_within(size, _TINT_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        # The constant draws dark colours, of which little is known, towards grey.
        tint = (small[..., ::2] + 10) / (small.sum(axis=2, keepdims=True) + 30)
        return cls(cv2.GaussianBlur(grey, (3, 3), 0), tint)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.grey.shape[1], self.grey.shape[0]

    def tints(self, points: Points) -> NDArray[np.float32]:
        """Returns (N, 2), the colours at points of `grey`."""
        height, width = self.tint.shape[:2]
        across, down = points.T * [[width / self.size[0]], [height / self.size[1]]]
        found: NDArray[np.float32] = self.tint[
            np.clip(down.astype(int), 0, height - 1), np.clip(across.astype(int), 0, width - 1)
        ]
        return found


@dataclass(frozen=True)
class _Pose:
    """A candidate, in pixels of the working size."""

    homography: Matrix
    confidence: float
    agreement: float
    uncertainty: float


class SceneTracker:
    """Follows one asked frame through the views that come after it.

    Args:
        asked: (H, W, 3) uint8 RGB.
    """

    def __init__(self, asked: NDArray[np.uint8]) -> None:
        self._asked_size = asked.shape[1], asked.shape[0]
        frame = _Frame.of(asked)
        self._asked, self._size = frame.grey, frame.size
        self._points = _corner_points(frame.grey)
        self._tints = frame.tints(self._points)
        self._orb = cv2.ORB.create(_KEYPOINTS, fastThreshold=_FAST_THRESHOLD)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
        keypoints, self._descriptors = self._orb.detectAndCompute(self._asked, None)
        self._keypoints = _positions(keypoints)
        self._probes = (_PROBES * self._size).astype(np.float32)
        self._last_view: Grey | None = None
        self._last: Matrix | None = None
        self._tracking = False
        self._result = Registration(None, 0.0, Means.NONE)

    def locate(self, view: NDArray[np.uint8]) -> Registration:
        """Finds the asked frame in the next view: (H, W, 3) uint8 RGB of any size."""
        frame = _Frame.of(view)
        pose, means = None, Means.NONE
        if self._tracking:
            pose, means = self._follow(frame), Means.FOLLOWED
        if pose is None:
            pose, means = self._relocalise(frame), Means.RELOCALISED
        self._tracking = pose is not None
        if pose is None:
            self._result = replace(self._result, confidence=0.0, means=Means.NONE)
        else:
            self._last_view, self._last = frame.grey, pose.homography
            to_view = scaling(frame.size, (view.shape[1], view.shape[0]))
            full = to_view @ pose.homography @ scaling(self._asked_size, self._size)
            self._result = Registration(full / full[2, 2], pose.confidence, means, pose.agreement, pose.uncertainty)
        return self._result

    def _follow(self, view: _Frame) -> _Pose | None:
        """Finds the frame near where it was in the last view."""
        assert self._last_view is not None and self._last is not None
        points, fit = np.zeros((0, 2), np.float32), None
        if self._last_view.shape == view.grey.shape:
            before = transform(self._last, self._points)
            seen = _inside(before, view.size)
            after, found = _flow(self._last_view, view.grey, before[seen], _FOLLOW_LEVELS)
            points = self._points[seen][found]
            fit = fit_homography(points, after[found], _FOLLOW_TOLERANCE)
            if fit is not None and not is_plausible(fit.homography, self._size):
                fit = None
        pose = self._anchor(view, self._last if fit is None else fit.homography)
        if pose is None or pose.confidence < FOUND_FROM:  # much has changed: it may be better to trust the last view
            candidates = [each for each in (pose, self._judge(fit, points, view)) if each is not None]
            pose = max(candidates, key=lambda each: each.confidence, default=None)
        return pose if pose is not None and pose.confidence >= LOST_BELOW else None

    def _relocalise(self, view: _Frame) -> _Pose | None:
        """Finds the frame wherever it is."""
        keypoints, descriptors = self._orb.detectAndCompute(view.grey, None)
        if self._descriptors is None or descriptors is None or len(keypoints) < 2:
            return None
        pairs = self._matcher.knnMatch(self._descriptors, descriptors, k=2)
        good = [first for first, second in pairs if first.distance < _RATIO * second.distance]
        points = self._keypoints[[match.queryIdx for match in good]]
        targets = _positions(keypoints)[[match.trainIdx for match in good]]
        fit = fit_homography(points, targets, _MATCH_TOLERANCE)
        if fit is None or not is_plausible(fit.homography, self._size):
            return None
        pose = self._anchor(view, fit.homography)
        return pose if pose is not None and pose.confidence >= FOUND_FROM else None

    def _anchor(self, view: _Frame, prediction: Matrix) -> _Pose | None:
        """Aligns the asked frame itself, warped to where it is thought to be, with the view."""
        expected = transform(prediction, self._points)
        seen = _inside(expected, view.size)
        warped = exposed_like(self._warp(prediction, view), view.grey, expected[seen])
        after, found = _flow(warped, view.grey, expected[seen], _ANCHOR_LEVELS)
        points = self._points[seen][found]
        return self._judge(fit_homography(points, after[found], _FOLLOW_TOLERANCE), points, view)

    def _judge(self, fit: Fit | None, points: Points, view: _Frame) -> _Pose | None:
        """Says how far a fit can be believed; None if not at all."""
        if fit is None or not is_plausible(fit.homography, self._size):
            return None
        expected = transform(fit.homography, self._points)
        visible = _inside(expected, view.size)
        if not visible.any():
            return None
        likeness = correlations(self._warp(fit.homography, view), view.grey, expected[visible])
        same_colour = same_tints(self._tints[visible], view.tints(expected[visible]))
        alike = int(np.count_nonzero((likeness >= _ALIKE) & same_colour))
        agreement = alike / int(np.count_nonzero(visible))
        probes = self._probes[_inside(transform(fit.homography, self._probes), view.size, 0)]
        error = uncertainty(fit, points, probes)
        confidence = _ramp(agreement, 0.15, 0.55) * _ramp(-error, -8.0, -2.0) * _ramp(alike, 6, 20)
        return _Pose(fit.homography, confidence, agreement, error)

    def _warp(self, homography: Matrix, view: _Frame) -> Grey:
        warped: Grey = cv2.warpPerspective(self._asked, homography, view.size, borderMode=cv2.BORDER_REPLICATE)
        return warped


def _size_within(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    scale = min(1.0, longer_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _corner_points(grey: Grey) -> Points:
    """Returns the corners (N, 2) that can be followed, the best of every part of the picture."""
    strength = cv2.cornerMinEigenVal(grey, 3)
    best = float(strength.max())
    if best < _LEAST_CORNER:
        return np.zeros((0, 2), np.float32)
    mask = np.zeros_like(grey)
    mask[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = 255
    quality = max(_POINT_QUALITY, min(1.0, _LEAST_CORNER / best))
    found = cv2.goodFeaturesToTrack(grey, _CANDIDATES, quality, _POINT_SPACING, mask=mask)
    if found is None:
        return np.zeros((0, 2), np.float32)
    points = found.reshape(-1, 2)
    across, down = (points / (grey.shape[1], grey.shape[0]) * _CELLS).astype(int).T
    taken: Counter[int] = Counter()
    chosen = []
    for index, cell in enumerate((down * _CELLS[0] + across).tolist()):
        taken[cell] += 1
        if taken[cell] <= _POINTS_IN_A_CELL:
            chosen.append(index)
    return points[chosen]


def _positions(keypoints: Sequence[cv2.KeyPoint]) -> Points:
    return np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)


def _inside(points: Points, size: tuple[int, int], margin: int = _MARGIN) -> NDArray[np.bool_]:
    width, height = size
    inside: NDArray[np.bool_] = (
        (points[:, 0] >= margin) & (points[:, 0] < width - margin)
        & (points[:, 1] >= margin) & (points[:, 1] < height - margin)
    )  # fmt: skip
    return inside


def _flow(before: Grey, after: Grey, points: Points, levels: int) -> tuple[Points, NDArray[np.bool_]]:
    """Follows points (N, 2) from one picture into another; also says which of them were found."""
    if not len(points):
        return points, np.zeros(0, bool)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points.reshape(-1, 1, 2), None, winSize=(_WINDOW, _WINDOW), maxLevel=levels,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.02),
    )  # fmt: skip
    moved = moved.reshape(-1, 2)
    return moved, (found.ravel() > 0) & _inside(moved, (after.shape[1], after.shape[0]), 0)


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))
