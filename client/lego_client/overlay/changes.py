"""Where a guidance frame differs from the frame that was asked about: the hands and the thing they act on.

A generated picture differs a little everywhere: colours are shifted, fine texture is repainted, edges lie a pixel off.
What counts is what no small shift of colour or place explains, and what is more than the picture's usual difference.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.overlay.pixels import Picture, scaled

Mask = NDArray[np.uint8]

_SIDE = 256  # pixels of the shorter side at which pictures are compared
_BLUR = 1.5  # pixels: texture finer than this is repainted in any case
_SHIFT = 3  # pixels by which a repainted edge may be off
_COMMON = 0.003  # share of the picture that a shade must have to count
_FLOOR = 9.0  # difference in CIE Lab below which nothing counts as changed
_USUAL = 4.0  # times the picture's usual difference, that must be exceeded
_WEAK = 0.5  # share of the threshold that suffices beside what is surely changed
_LEAST_AREA = 0.003  # share of the picture; smaller is a speck
_LEAST_SHARE = 0.1  # of the largest region; smaller is beside the point
_UNLIKE = 8.0  # usual difference from which it is another picture altogether: nothing in it stands out


def changed_region(asked: Picture, guidance: Picture) -> Mask:
    """Returns where guidance differs from the frame asked about.

    Args:
        asked: (H, W, 3) uint8 RGB.
        guidance: (h, w, 3) uint8 RGB, of the same view at any size.

    Returns:
        (h', w') uint8, 255 where changed and 0 elsewhere, its shorter side at most 256; all 0 if nothing has changed,
        or if it is another picture altogether.
    """
    height, width = guidance.shape[:2]
    scale = min(1.0, _SIDE / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    before, after = (cv2.GaussianBlur(scaled(picture, size), (0, 0), _BLUR) for picture in (asked, guidance))
    difference = _unexplained(_lab(_recoloured(before, after)), _lab(after))
    usual = float(np.median(difference))
    if usual >= _UNLIKE:
        return np.zeros(difference.shape, np.uint8)
    threshold = max(_FLOOR, usual + _USUAL * 1.4826 * float(np.median(np.abs(difference - usual))))
    return _grown(difference, threshold)


def _lab(pixels: Picture) -> NDArray[np.float32]:
    lab: NDArray[np.float32] = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return lab


def _recoloured(before: Picture, after: Picture) -> Picture:
    """Gives the frame the guidance's overall colours: one line for each of red, green and blue.

    Every shade counts alike, however much of the picture has it, and the line is the median of those through any two
    of them (Theil and Sen), so that what was painted anew does not bend it.
    """
    result = np.empty_like(before)
    for channel in range(3):
        x, y = before[..., channel], after[..., channel]
        shades = [x // 16 == shade for shade in range(16)]
        common = [shade for shade in shades if np.count_nonzero(shade) >= _COMMON * x.size]
        xs, ys = (np.array([np.median(values[shade]) for shade in common], np.float64) for values in (x, y))
        first, second = np.triu_indices(len(xs), 1)
        slopes = (ys[second] - ys[first]) / (xs[second] - xs[first])
        slope = float(np.clip(np.median(slopes), 0.7, 1.4)) if len(slopes) else 1.0
        offset = float(np.median(ys - slope * xs)) if len(xs) else 0.0
        curve = np.clip(slope * np.arange(256) + offset, 0, 255).astype(np.uint8)
        result[..., channel] = cv2.LUT(np.ascontiguousarray(x), curve)
    return result


def _unexplained(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns (h, w): the distance of each colour from all that the frame shows within `_SHIFT` pixels."""
    around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _SHIFT + 1, 2 * _SHIFT + 1))
    low, high = cv2.erode(before, around), cv2.dilate(before, around)
    beyond = np.maximum(0, np.maximum(low - after, after - high))
    # And the other way: what was there and is gone.
    low, high = cv2.erode(after, around), cv2.dilate(after, around)
    beyond = np.maximum(beyond, np.maximum(0, np.maximum(low - before, before - high)))
    distance: NDArray[np.float32] = np.sqrt((beyond**2).sum(axis=2))
    return distance


def _grown(difference: NDArray[np.float32], threshold: float) -> Mask:
    """Keeps what is surely changed with what is weakly changed around it, without specks and holes."""
    surely = (difference >= threshold).astype(np.uint8)
    weakly = (difference >= _WEAK * threshold).astype(np.uint8)
    small = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    large = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (11, 11))
    surely = cv2.morphologyEx(surely, cv2.MORPH_OPEN, small)
    _, labels = cv2.connectedComponents(weakly)
    chosen = np.unique(labels[surely > 0])
    region = np.isin(labels, chosen[chosen > 0]).astype(np.uint8)
    region = cv2.morphologyEx(region, cv2.MORPH_CLOSE, large)
    region = cv2.morphologyEx(region, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [cv2.contourArea(outline) for outline in outlines]
    least = max(_LEAST_AREA * region.size, _LEAST_SHARE * max(areas, default=0.0))
    mask: Mask = np.zeros_like(region)
    for outline, area in zip(outlines, areas, strict=True):
        if area >= least:
            cv2.drawContours(mask, [outline], -1, 255, cv2.FILLED)
    return mask
