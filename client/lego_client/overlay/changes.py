"""Where a guidance frame differs from the frame that was asked about: the hands and the thing they act on.

A generated picture differs a little everywhere. Colours are shifted, fine texture is repainted, edges lie a pixel off.
What counts is what no small shift of colour or place explains, and what is more than the picture's own usual difference.
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
_FLOOR = 9.0  # difference in CIE Lab below which nothing counts as changed
_USUAL = 4.0  # times the picture's usual difference, that must be exceeded
_WEAK = 0.5  # share of the threshold that suffices beside what is surely changed
_LEAST_AREA = 0.003  # share of the picture; smaller is a speck
_LEAST_SHARE = 0.1  # of the largest region; smaller is beside the point
_MOST_AREA = 0.7  # a picture that differs nearly everywhere is another picture: nothing in it stands out


def changed_region(asked: Picture, guidance: Picture) -> Mask:
    """Returns where guidance differs from the frame asked about.

    Args:
        asked: (H, W, 3) uint8 RGB.
        guidance: (h, w, 3) uint8 RGB, of the same view at any size.

    Returns:
        (h', w') uint8, 255 where changed and 0 elsewhere, its shorter side at most 256; all 0 if nothing, or nearly
        everything, has changed.
    """
    height, width = guidance.shape[:2]
    scale = min(1.0, _SIDE / min(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    before, after = (_lab(scaled(picture, size)) for picture in (asked, guidance))
    difference = _unexplained(_recoloured(before, after), after)
    usual = float(np.median(difference))
    threshold = max(_FLOOR, usual + _USUAL * 1.4826 * float(np.median(np.abs(difference - usual))))
    region = _grown(difference, threshold)
    return region if np.mean(region > 0) <= _MOST_AREA else np.zeros_like(region)


def _lab(pixels: Picture) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(pixels, (0, 0), _BLUR)
    lab: NDArray[np.float32] = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return lab


def _recoloured(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gives the frame the guidance's overall colours: one line for each channel, fitted to what has not changed."""
    result = np.empty_like(before)
    for channel in range(3):
        x, y = before[..., channel].ravel()[::7], after[..., channel].ravel()[::7]
        kept = np.ones(len(x), bool)
        slope, offset = 1.0, 0.0
        for _ in range(4):
            spread = float(x[kept].std())
            if spread < 1.0:  # one colour: only its shift can be known
                slope, offset = 1.0, float(np.median(y - x))
                break
            slope, offset = np.polyfit(x[kept], y[kept], 1)
            slope = float(np.clip(slope, 0.7, 1.4))
            offset = float(np.median(y[kept] - slope * x[kept]))
            errors = np.abs(y - slope * x - offset)
            kept = errors <= max(1.0, 2.0 * float(np.median(errors)))
        result[..., channel] = slope * before[..., channel] + offset
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
