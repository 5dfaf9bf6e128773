"""Which of a few neighbouring frames is sharp: head motion blurs many of a wearer's frames (LEGO, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lego_client.sources.base import CapturedFrame

_SCORED_SIDE = 320  # pixels: blur that matters is still seen, sensor noise no longer is
_AS_SHARP = 0.95  # a newer frame this close to the sharpest shows the present better


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Returns the variance of the Laplacian of a small grey copy: higher is sharper, 0 is a flat picture.

    Args:
        pixels: (H, W, 3) uint8 RGB. Scores compare only between frames of one camera.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, _SCORED_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    return float(deviation[0, 0]) ** 2


def sharpest(frames: Sequence[CapturedFrame]) -> CapturedFrame:
    """Returns the sharpest frame; the newest of those about as sharp.

    Args:
        frames: At least one, oldest first.
    """
    return next(frame for frame in reversed(frames) if as_sharp(frame, frames))


def as_sharp(frame: CapturedFrame, frames: Sequence[CapturedFrame]) -> bool:
    """Says whether a frame is about as sharp as the sharpest of some, at least one."""
    return frame.sharpness >= _AS_SHARP * max(each.sharpness for each in frames)
