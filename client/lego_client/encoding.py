"""From captured pixels to the JPEG that travels, within the server's limits."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from lego_core.errors import LegoError
from lego_core.images import decode_image, open_image
from numpy.typing import NDArray

from lego_client.sending import LEVELS, Level

LONGEST_SIDE = LEVELS[0].longest_side  # pixels: more than the model sees, and still quick on a wireless link
_LOWEST_QUALITY = 40
_SHORTEST_SIDE = 8  # pixels: what a server accepts at least


@dataclass(frozen=True)
class EncodedFrame:
    """A frame ready to send: JPEG bytes and the size in pixels they decode to."""

    jpeg: bytes
    width: int
    height: int


def check_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a frame as given, once it is known to be one: for arrays that come from other programs.

    Raises:
        LegoError: It is not (H, W, 3) uint8.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise LegoError(
            f"the frame is an array {pixels.shape} of {pixels.dtype}; it must be (height, width, 3) of uint8, RGB"
        )
    return pixels


def encode_frame(
    pixels: NDArray[np.uint8], max_bytes: int = 0, max_pixels: int = 0, level: Level = LEVELS[0], least_side: int = 0
) -> EncodedFrame:
    """Encodes a frame, scaled down where its sides, its area or its bytes are too many; never scaled up.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        max_bytes: The server's limit; 0 means none.
        max_pixels: The server's limit on width times height; 0 means none.
        level: How finely.
        least_side: Pixels below which the level does not bring the shorter side: the model sees as many. The server's
            limits may.

    Raises:
        LegoError: The frame is too small, or the limits leave nothing of it.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, max(level.longest_side / max(height, width), least_side / min(height, width)))
    scale = min(scale, LONGEST_SIDE / max(height, width))
    if max_pixels:
        scale = min(scale, (max_pixels / (height * width)) ** 0.5)
    quality = level.quality
    while True:
        # Rounded down, so that the area never passes the limit.
        size = (int(width * scale + 1e-9), int(height * scale + 1e-9))
        if min(size) < _SHORTEST_SIDE:
            raise LegoError(
                f"the frame of {width}x{height} pixels would be sent as {size[0]}x{size[1]}; "
                f"both sides need at least {_SHORTEST_SIDE} pixels: use a picture less narrow and not so small"
            )
        # Averaging by a fraction costs three times as much; above a half, each pixel counts without it too.
        how = cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR
        try:
            picture = pixels if size == (width, height) else cv2.resize(pixels, size, interpolation=how)
            bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            ok, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        except cv2.error as error:
            raise LegoError(f"the frame of {width}x{height} pixels cannot be encoded as JPEG: {error}") from error
        if not ok:
            raise LegoError(f"the frame of {width}x{height} pixels cannot be encoded as JPEG")
        if not max_bytes or jpeg.size <= max_bytes:
            return EncodedFrame(jpeg.tobytes(), *size)
        if quality > _LOWEST_QUALITY:
            quality -= 10
        else:
            scale *= 0.8


def encoded_jpeg(data: bytes) -> EncodedFrame:
    """Takes a JPEG as it is; only its header is read.

    Raises:
        LegoError: It is no JPEG, or far too large or too small.
    """
    image = open_image(data)
    if image.format != "JPEG":
        raise LegoError(f"the frame is a {image.format} picture; give a JPEG, or the decoded pixels")
    return EncodedFrame(data, *image.size)


def within_limits(frame: EncodedFrame, max_bytes: int = 0, max_pixels: int = 0) -> EncodedFrame:
    """Returns the frame itself where the server takes it, else one encoded anew; limits as for `encode_frame`.

    Raises:
        LegoError: The frame cannot be decoded, or the limits leave nothing of it.
    """
    small = not max_pixels or frame.width * frame.height <= max_pixels
    if small and (not max_bytes or len(frame.jpeg) <= max_bytes):
        return frame
    return encode_frame(np.asarray(decode_image(frame.jpeg)), max_bytes, max_pixels)
