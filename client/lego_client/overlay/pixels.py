"""Pictures as arrays: what a composition takes and gives, fitted into one another and laid over one another."""

from __future__ import annotations

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

LEAST_SIDE = 16  # pixels

_DARK = (18, 20, 24)


def checked(pixels: Picture, name: str) -> Picture:
    """Returns a picture as OpenCV takes it, without copying one that already is so.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        name: What to call it in an error.

    Raises:
        LegoError: It is none, or has a side of less than `LEAST_SIDE` pixels.
    """
    shape = "x".join(map(str, pixels.shape))
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise LegoError(f"{name} is {shape} {pixels.dtype}; it must be (height, width, 3) uint8, RGB")
    if min(pixels.shape[:2]) < LEAST_SIDE:
        raise LegoError(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]} pixels; both sides must be at least {LEAST_SIDE}"
        )
    return np.ascontiguousarray(pixels)


def size_of(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns (width, height) in pixels."""
    return pixels.shape[1], pixels.shape[0]


def blank(size: tuple[int, int]) -> Picture:
    """Returns a dark picture of (width, height)."""
    return np.full((size[1], size[0], 3), _DARK, np.uint8)


def scaled(pixels: Picture, size: tuple[int, int]) -> Picture:
    """Returns the picture at (width, height), averaged where it shrinks."""
    if size_of(pixels) == size:
        return pixels
    shrinks = size[0] * size[1] < pixels.shape[0] * pixels.shape[1]
    result: Picture = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return result


def fitted(pixels: Picture, room: tuple[int, int]) -> Picture:
    """Returns the picture as large as its aspect ratio allows within (width, height)."""
    width, height = size_of(pixels)
    scale = min(room[0] / width, room[1] / height)
    return scaled(pixels, (max(1, round(width * scale)), max(1, round(height * scale))))


def put_centred(page: Picture, pixels: Picture, left: int, width: int) -> None:
    """Draws a picture, as large as fits, into the middle of a strip of the page's height."""
    inner = fitted(pixels, (width, page.shape[0]))
    x, y = left + (width - inner.shape[1]) // 2, (page.shape[0] - inner.shape[0]) // 2
    page[y : y + inner.shape[0], x : x + inner.shape[1]] = inner


def lay_over(below: Picture, layer: NDArray[np.uint8], opacity: float = 1.0) -> Picture:
    """Returns a picture with a layer over it.

    Args:
        below: (H, W, 3) RGB; is not changed.
        layer: (H, W, 4) RGBA, its colours multiplied by its alpha.
        opacity: 0 to 1, of the whole layer.
    """
    if opacity < 1:
        layer = cv2.convertScaleAbs(layer, alpha=opacity)
    *colours, alpha = cv2.split(layer)
    through = cv2.bitwise_not(alpha)
    kept = cv2.multiply(below, cv2.merge([through] * 3), scale=1 / 255)
    result: Picture = cv2.add(kept, cv2.merge(colours))
    return result
