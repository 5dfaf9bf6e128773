"""How captured pixels become the wearer's view: RGB of 8 bits, no larger than needed, upright and not mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

LONGEST_KEPT = 1920  # pixels: more than is ever sent, and seven such frames are still light
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class Framing:
    """How a camera is mounted.

    Attributes:
        rotate: Degrees clockwise by which its picture is turned to stand upright: 0, 90, 180 or 270.
        mirror: Whether it delivers mirrored pictures; they are put right before they are turned.
    """

    rotate: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.rotate not in (0, *_TURNS):
            raise LegoError(f"rotate is {self.rotate}; it must be 0, 90, 180 or 270 degrees clockwise")

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the view: (H, W, 3) uint8 RGB in, the same or (W, H, 3) out."""
        if self.mirror:
            pixels = cv2.flip(pixels, 1)
        return cv2.rotate(pixels, _TURNS[self.rotate]) if self.rotate else pixels


def bounded(pixels: NDArray[np.uint8], longest: int = LONGEST_KEPT) -> NDArray[np.uint8]:
    """Returns the pixels (H, W, ...), scaled down by a whole number where a side is longer than `longest`.

    A whole number, as OpenCV then averages blocks: several times as fast as a fraction, and no sharpness is invented.
    """
    height, width = pixels.shape[:2]
    divisor = -(-max(height, width) // longest)
    if divisor <= 1:
        return pixels
    size = (max(1, width // divisor), max(1, height // divisor))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def rgb_from_bgr(frame: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Returns (H, W, 3) uint8 RGB, bounded, of what OpenCV captured.

    Args:
        frame: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; of 8 or 16 bits.

    Raises:
        LegoError: It is of another shape or type.
    """
    channels = 1 if frame.ndim == 2 else frame.shape[-1]
    if frame.ndim not in (2, 3) or channels not in (1, 3, 4) or frame.dtype not in (np.uint8, np.uint16):
        raise LegoError(f"the camera delivers {frame.dtype} pixels of shape {frame.shape}; set it to colour or grey")
    small = bounded(frame)  # type: ignore[arg-type]
    eight: NDArray[np.uint8] = (small >> 8).astype(np.uint8) if small.dtype == np.uint16 else small
    code = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}[channels]
    return cv2.cvtColor(eight, code)
