"""Frames as they arrive: checked cheaply at once, decoded only when a query needs them."""

from __future__ import annotations

from dataclasses import dataclass

from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.images import decode_image, frame_to_pixels, frame_to_vision_pixels, open_image

from lego_server.config import ServerConfig
from lego_server.engines.base import Array, FrameFeatures
from lego_server.failures import Reason, RequestError


@dataclass
class PreparedFrame:
    """A decoded frame.

    Attributes:
        pixels: (3, R, R) float32 in [-1, 1], for the autoencoder.
        vision_pixels: (3, V, V) float32, normalised for the vision tower.
        width: Of the frame as captured, in pixels.
        height: Of the frame as captured, in pixels.
        features: The engine's encoding, kept from the first query on, so that a second one need not encode again.
    """

    pixels: Array
    vision_pixels: Array
    width: int
    height: int
    features: FrameFeatures | None = None


def check_frame(data: bytes, config: ServerConfig) -> int:
    """Reads a frame's header only: refuses what is no picture or of a wrong size before anything is decoded.

    Returns:
        Its pixels, width times height.

    Raises:
        RequestError: INVALID, with the value and the limit.
    """
    if len(data) > config.max_image_bytes:
        raise RequestError(
            Reason.INVALID, f"the image is {len(data)} bytes; the limit is {config.max_image_bytes}: send a smaller one"
        )
    try:
        image = open_image(data, config.max_image_pixels)
    except LegoError as error:
        raise RequestError(Reason.INVALID, str(error)) from error
    return image.width * image.height


def prepare_frame(data: bytes, config: ServerConfig, lego: LegoConfig) -> PreparedFrame:
    """Decodes a frame and makes both networks' inputs of it; tens of milliseconds, so not for the event loop.

    Raises:
        RequestError: INVALID: not a picture, damaged, or above a limit.
    """
    check_frame(data, config)
    try:
        image = decode_image(data, config.max_image_pixels)
    except LegoError as error:
        raise RequestError(Reason.INVALID, str(error)) from error
    return PreparedFrame(
        pixels=frame_to_pixels(image, lego.resolution),
        vision_pixels=frame_to_vision_pixels(image, lego.vision),
        width=image.width,
        height=image.height,
    )
