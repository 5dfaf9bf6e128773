"""Frames in, frames out: the one place where pictures become tensors and back."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lego_core.config import Fidelity, VisionInput
from lego_core.errors import LegoError

JPEG_QUALITY: dict[Fidelity, int] = {"default": 90, "original": 75}

_FORMATS = ("JPEG", "PNG", "WEBP")

# Pillow warns from half its own limit on. Sizes are judged here, by the caller's limit: its warning says nothing new.
# Set once and not around each call: `catch_warnings` is not safe where several threads open pictures.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def open_image(data: bytes, max_pixels: int = 50_000_000) -> Image.Image:
    """Reads an untrusted picture's header and judges its size; no pixel is decoded.

    Raises:
        LegoError: No JPEG, PNG or WebP picture, larger than `max_pixels`, or too small or narrow.
    """
    if not data:
        raise LegoError("the image is empty (0 bytes); send a JPEG, PNG or WebP picture")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow has a limit of its own, which it applies before it tells the size.
        raise LegoError(f"the image is too large ({error}); the limit is {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise LegoError(f"the {len(data)} bytes are not a JPEG, PNG or WebP picture") from error
    except Exception as error:  # Pillow raises many types on damaged headers
        raise _undecodable(error) from error
    width, height = image.size
    if width * height > max_pixels:
        raise LegoError(f"the image is {width}x{height} pixels; the limit is {max_pixels} pixels: send a smaller one")
    if min(width, height) < 8 or max(width, height) > 32 * min(width, height):
        raise LegoError(f"the image is {width}x{height} pixels; both sides must be at least 8 and within 1:32")
    return image


def decode_image(data: bytes, max_pixels: int = 50_000_000) -> Image.Image:
    """Decodes an untrusted JPEG, PNG or WebP; its size is checked before any pixel is decoded.

    Returns:
        An RGB image, turned upright as its EXIF orientation says.

    Raises:
        LegoError: Not a picture, truncated, larger than `max_pixels`, or too small or narrow.
    """
    image = open_image(data, max_pixels)
    try:
        image.load()
        return to_rgb(_upright(image))
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise _undecodable(error) from error


def read_image(path: Path) -> Image.Image:
    """Decodes a picture file; see `decode_image`.

    Raises:
        LegoError: It is not there, or no picture that can be taken; the message names it.
    """
    if not path.is_file():
        raise LegoError(f"{path} is no file; give a JPEG, PNG or WebP picture")
    try:
        return decode_image(path.read_bytes())
    except LegoError as error:
        raise LegoError(f"{path}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns the picture in RGB, 8 bits a channel; transparency is dropped."""
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip at 255 and so turn white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _undecodable(error: Exception) -> LegoError:
    return LegoError(f"the image cannot be decoded ({error}); send it again")


def _upright(image: Image.Image) -> Image.Image:
    turns: dict[int, Image.Transpose] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    try:
        turn = turns.get(image.getexif().get(0x0112, 1))
    except Exception:  # a damaged EXIF block says nothing of the pixels
        turn = None
    return image if turn is None else image.transpose(turn)


def frame_to_pixels(image: Image.Image, resolution: int) -> NDArray[np.float32]:
    """Squashes a frame to the square the autoencoder works on (lego-reference B).

    Returns:
        (3, resolution, resolution) float32 in [-1, 1].
    """
    return (np.asarray(frame_square(image, resolution), np.float32) / 127.5 - 1.0).transpose(2, 0, 1)


def frame_square(image: Image.Image, resolution: int) -> Image.Image:
    """Returns the whole frame, squashed to `resolution` pixels a side."""
    return image.resize((resolution, resolution), Image.Resampling.LANCZOS)


def frame_to_vision_pixels(image: Image.Image, vision: VisionInput) -> NDArray[np.float32]:
    """Prepares a frame for the vision tower (lego-reference C5).

    Returns:
        (3, size, size) float32, normalised with the tower's mean and standard deviation.
    """
    return normalise_vision(np.asarray(vision_square(image, vision)), vision)


def vision_square(image: Image.Image, vision: VisionInput) -> Image.Image:
    """Returns the square picture, `vision.size` pixels a side, that the vision tower is shown."""
    width, height = image.size
    if vision.fit == "squash":
        picture = image.resize((vision.size, vision.size), Image.Resampling.BICUBIC)
    else:
        # Whole numbers throughout: a side rounded the other way would shift the crop by a pixel.
        shortest = min(width, height)
        resized = vision.size * width // shortest, vision.size * height // shortest
        left, top = (resized[0] - vision.size) // 2, (resized[1] - vision.size) // 2
        picture = image.resize(resized, Image.Resampling.BICUBIC)
        picture = picture.crop((left, top, left + vision.size, top + vision.size))
    return picture


def normalise_vision(squares: NDArray[np.uint8], vision: VisionInput) -> NDArray[np.float32]:
    """Turns vision squares (..., V, V, 3) uint8 into what the tower takes: (..., 3, V, V) float32."""
    mean, std = np.array(vision.mean, np.float32), np.array(vision.std, np.float32)
    normalised: NDArray[np.float32] = (squares.astype(np.float32) / np.float32(255) - mean) / std
    return np.moveaxis(normalised, -1, -3)


def pixels_to_frame(pixels: NDArray[np.float32], width: int, height: int) -> Image.Image:
    """Turns decoded pixels into a picture at the input frame's aspect ratio.

    Args:
        pixels: (3, R, R) in [-1, 1]; values beyond are clamped.
        width: Width of the input frame in pixels.
        height: Height of the input frame in pixels.

    Returns:
        An RGB image whose shorter side is R: more pixels would only be interpolation.
    """
    resolution = pixels.shape[-1]
    values = np.clip((pixels.transpose(1, 2, 0) + 1.0) * 127.5, 0, 255)
    square = Image.fromarray(np.rint(values).astype(np.uint8))
    return square.resize(output_size(resolution, width, height), Image.Resampling.BICUBIC)


def original_frame(pixels: NDArray[np.float32], width: int, height: int) -> Image.Image:
    """Turns decoded pixels into a picture as the original code does (lego-reference B).

    Bicubic to R rows, then each picture's own darkest and brightest values are stretched to 0 and 255, over all
    channels at once, and the fraction is cut off. Brightness and contrast of the input frame are not kept.

    Args:
        pixels: (3, R, R), any range.
        width: Width of the input frame in pixels.
        height: Height of the input frame in pixels.

    Returns:
        An RGB image of height R, whichever side is the shorter; black if all pixels are equal.
    """
    resolution = pixels.shape[-1]
    rows = _bicubic_weights(resolution, resolution)
    columns = _bicubic_weights(resolution, max(1, round(width / height * resolution)))
    resized = np.einsum("yi,cij,xj->yxc", rows, pixels, columns, optimize=True)
    darkest, brightest = resized.min(), resized.max()
    # The original divides by zero here.
    stretched = (resized - darkest) / (brightest - darkest) * 255 if brightest > darkest else np.zeros_like(resized)
    return Image.fromarray(stretched.astype(np.uint8))


def _bicubic_weights(size: int, new_size: int) -> NDArray[np.float32]:
    """The matrix (new_size, size) of torch's bicubic interpolation: a = -0.75, half-pixel centres, no antialiasing."""
    a = -0.75
    centres = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    first = np.floor(centres).astype(int) - 1
    weights = np.zeros((new_size, size), np.float32)
    for tap in range(4):
        distance = np.abs(centres - (first + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        # Beyond the border the outermost pixel is repeated, so that it may count more than once.
        source = np.clip(first + tap, 0, size - 1)
        np.add.at(weights, (np.arange(new_size), source), np.where(distance <= 1, near, far))
    return weights


def guidance_frame(pixels: NDArray[np.float32], width: int, height: int, fidelity: Fidelity) -> Image.Image:
    """Turns decoded pixels (3, R, R) into the picture of `pixels_to_frame` or, if so asked, of `original_frame`."""
    finish = original_frame if fidelity == "original" else pixels_to_frame
    return finish(pixels, width, height)


def output_size(resolution: int, width: int, height: int) -> tuple[int, int]:
    """Returns (width, height) in pixels of the guidance frame: the shorter side is the model's resolution."""
    if width >= height:
        return max(1, round(resolution * width / height)), resolution
    return resolution, max(1, round(resolution * height / width))


def encode_jpeg(image: Image.Image, quality: int | None = None, fidelity: Fidelity = "default") -> bytes:
    """Returns JPEG bytes without chroma subsampling: thin coloured edges of hands and handles stay sharp.

    Args:
        image: RGB.
        quality: 1 to 100; None takes the fidelity's own of `JPEG_QUALITY`.
        fidelity: "original" halves the colours' resolution (4:2:0), as Pillow does unless told otherwise.
    """
    buffer = io.BytesIO()
    quality = JPEG_QUALITY[fidelity] if quality is None else quality
    subsampling = "4:2:0" if fidelity == "original" else "4:4:4"
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
