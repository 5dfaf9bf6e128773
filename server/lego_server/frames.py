"""Frames as they arrive: checked cheaply at once, decoded only when a query needs them."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.images import decode_image, frame_to_pixels, frame_to_vision_pixels, open_image

from lego_server.config import Limits
from lego_server.engines.base import Array, Condition, FrameFeatures
from lego_server.failures import Reason, RequestError

_second = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), thread_name_prefix="frames")


@dataclass(frozen=True)
class Described:
    """What was written of a frame, for one question.

    Attributes:
        asked: What it depends on beside the frame.
        description: The sentence.
        condition: What the U-Net attends to.
    """

    asked: Hashable
    description: str
    condition: Condition


@dataclass
class PreparedFrame:
    """A decoded frame.

    Attributes:
        pixels: (3, R, R) float32 in [-1, 1], for the autoencoder.
        vision_pixels: (3, V, V) float32, normalised for the vision tower.
        width: Of the frame as captured, in pixels.
        height: Of the frame as captured, in pixels.
        arrived: `time.perf_counter()` when it came in.
        decoding: The same when its decoding began, and when both inputs were made.
        features: The engine's encoding, kept from when it is first made, so that the next query need not encode again.
        described: What the last query was told, for when it is asked once more.
    """

    pixels: Array
    vision_pixels: Array
    width: int
    height: int
    arrived: float = 0.0
    decoding: tuple[float, float] = (0.0, 0.0)
    features: FrameFeatures | None = None
    described: Described | None = None

    @property
    def known_features(self) -> FrameFeatures:
        """The encoding, once it has been made."""
        assert self.features is not None
        return self.features


def check_frame(data: bytes, limits: Limits) -> int:
    """Reads a frame's header only: refuses what is no picture or of a wrong size before anything is decoded.

    Returns:
        Its pixels, width times height.

    Raises:
        RequestError: INVALID, with the value and the limit.
    """
    if len(data) > limits.max_image_bytes:
        raise RequestError(
            Reason.INVALID, f"the image is {len(data)} bytes; the limit is {limits.max_image_bytes}: send a smaller one"
        )
    try:
        image = open_image(data, limits.max_image_pixels)
    except LegoError as error:
        raise RequestError(Reason.INVALID, str(error)) from error
    return image.width * image.height


def prepare_frame(data: bytes, limits: Limits, lego: LegoConfig, arrived: float = 0.0) -> PreparedFrame:
    """Decodes a frame and makes both networks' inputs of it; tens of milliseconds, so not for the event loop.

    Raises:
        RequestError: INVALID: not a picture, damaged, or above a limit.
    """
    began = time.perf_counter()
    check_frame(data, limits)
    try:
        image = decode_image(data, limits.max_image_pixels)
    except LegoError as error:
        raise RequestError(Reason.INVALID, str(error)) from error
    vision = _second.submit(frame_to_vision_pixels, image, lego.vision)  # both resize without Python's lock
    pixels, vision_pixels = frame_to_pixels(image, lego.resolution), vision.result()
    decoding = began, time.perf_counter()
    return PreparedFrame(pixels, vision_pixels, image.width, image.height, arrived, decoding)
