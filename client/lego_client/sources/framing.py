"""How captured pixels become the wearer's view: RGB of 8 bits, no larger than needed, upright and not mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from lego_core.errors import LegoError
from lego_core.images import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lego_client.encoding import LONGEST_SIDE

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}  # by number of channels


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


def bounded(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns the pixels (H, W, ...), averaged over blocks where that leaves as many as are ever sent.

    Blocks of a whole number of pixels are several times as cheap as a scaling by a fraction. At most the last few rows
    and columns that fill no block are lost.
    """
    height, width = pixels.shape[:2]
    block = max(height, width) // LONGEST_SIDE
    rows, columns = height // max(1, block), width // max(1, block)
    if block <= 1 or not rows or not columns:
        return pixels
    whole = pixels[: rows * block, : columns * block]
    reduced: NDArray[Any] = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return reduced


def rgb_from_image(image: Image.Image) -> NDArray[np.uint8]:
    """Decodes a picture that Pillow has opened: (H, W, 3) uint8 RGB, bounded, upright as its EXIF orientation says.

    Raises:
        Exception: One of the many types that Pillow's decoders raise on damaged data.
    """
    # A JPEG is decoded at a half, a quarter or an eighth of its size, at so much less work; others whole.
    spare = max(1.0, max(image.size) / LONGEST_SIDE)
    image.draft(None, (int(image.width / spare), int(image.height / spare)))
    ImageOps.exif_transpose(image, in_place=True)
    return bounded(np.asarray(image if image.mode == "RGB" else to_rgb(image)))


def rgb_from_bgr(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns (H, W, 3) uint8 RGB, bounded, of what OpenCV captured.

    Args:
        frame: (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA; of 8 or 16 bits.

    Raises:
        LegoError: It is of another shape or type.
    """
    code = _TO_RGB.get(1 if frame.ndim == 2 else frame.shape[-1])
    if frame.ndim not in (2, 3) or code is None or frame.dtype not in (np.uint8, np.uint16):
        raise LegoError(f"the camera delivers {frame.dtype} pixels of shape {frame.shape}; set it to colour or grey")
    small = bounded(frame)
    eight = (small >> 8).astype(np.uint8) if small.dtype == np.uint16 else small
    pixels: NDArray[np.uint8] = cv2.cvtColor(eight, code)
    return pixels
