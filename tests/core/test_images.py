"""Frames in, frames out."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from lego_core.config import VisionInput
from lego_core.errors import LegoError
from lego_core.images import (
    decode_image,
    encode_jpeg,
    frame_to_pixels,
    frame_to_vision_pixels,
    original_frame,
    output_size,
    pixels_to_frame,
)
from PIL import Image

GOLDEN = Path(__file__).parents[3] / "shared/golden/original_small.npz"


def smooth_picture(width: int, height: int) -> Image.Image:
    """Colours that change slowly, so that every resampling filter agrees on them, with one corner apart."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (255 * x / width, 255 * y / height, 127 + 100 * np.sin(x / 30 + y / 50))
    picture = np.stack(channels, axis=-1).astype(np.uint8)
    picture[: height // 4, : width // 4] = (250, 10, 10)
    return Image.fromarray(picture)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_three_formats_decode(kind: str) -> None:
    image = decode_image(encoded(smooth_picture(64, 48), kind))

    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert np.abs(np.asarray(image, float) - np.asarray(smooth_picture(64, 48), float)).mean() < 12


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises more pixels than any machine should decode."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 30_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(LegoError, match="the limit is 50000000 pixels"):
        decode_image(png_bomb(side, side))


def test_the_limit_is_the_callers() -> None:
    with pytest.raises(LegoError, match="64x48 pixels; the limit is 1000 pixels: send a smaller one"):
        decode_image(encoded(smooth_picture(64, 48)), max_pixels=1000)


@pytest.mark.parametrize(("size", "allowed"), [((320, 10), True), ((321, 10), False), ((8, 8), True), ((7, 8), False)])
def test_slivers_are_refused(size: tuple[int, int], allowed: bool) -> None:
    data = encoded(Image.new("RGB", size))
    if allowed:
        assert decode_image(data).size == size
    else:
        with pytest.raises(LegoError, match="both sides must be at least 8 and within 1:32"):
            decode_image(data)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the image is empty"),
        (b"GET / HTTP/1.1", "the 14 bytes are not a JPEG, PNG or WebP picture"),
        (encoded(Image.new("RGB", (16, 16)), "GIF"), "not a JPEG, PNG or WebP"),
        (half(encoded(smooth_picture(64, 48), "JPEG")), "cannot be decoded .* send it again"),
        (half(encoded(smooth_picture(64, 48), "PNG")), "cannot be decoded .* send it again"),
        (half(encoded(smooth_picture(64, 48), "WEBP")), "picture|cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "picture|cannot be decoded"),
    ],
)
def test_damage_is_told_in_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(LegoError, match=message):
        decode_image(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int) -> None:
    upright = smooth_picture(64, 48)
    # How a camera in each position stores it: the inverse of the turn that the tag asks for.
    stored = {
        1: upright, 2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180), 4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE), 6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE), 8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation

    decoded = decode_image(encoded(stored, "PNG", exif=exif))

    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_costs_only_the_turn() -> None:
    data = encoded(smooth_picture(64, 48), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")

    assert decode_image(data).size == (64, 48)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    grey = Image.new("L", (16, 16), 255)
    image = Image.fromarray(np.full((16, 16), 65535, np.uint16)) if mode == "I;16" else grey.convert(mode)

    decoded = decode_image(encoded(image, "PNG"))

    assert decoded.mode == "RGB"
    assert np.asarray(decoded).min() == 255


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    shades = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)

    decoded = decode_image(encoded(Image.fromarray(shades), "PNG"))

    np.testing.assert_array_equal(np.asarray(decoded)[..., 0], shades >> 8)


def test_cmyk_photos_become_rgb() -> None:
    assert decode_image(encoded(smooth_picture(32, 32).convert("CMYK"), "JPEG")).mode == "RGB"


def test_a_frame_is_squashed_to_the_models_square() -> None:
    pixels = frame_to_pixels(smooth_picture(160, 90), 64)

    assert (pixels.shape, pixels.dtype) == ((3, 64, 64), np.float32)
    assert pixels.min() >= -1 and pixels.max() <= 1
    # Nothing is cropped: left and right edge, top and bottom are where they were.
    assert pixels[0, 40, 0] < -0.9 and pixels[0, 40, -1] > 0.9
    assert pixels[1, 0, 40] < -0.9 and pixels[1, -1, 40] > 0.9


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (455, 256), (333, 777), (224, 224), (100, 130)])
def test_the_centre_crop_is_clips(size: tuple[int, int]) -> None:
    transformers = pytest.importorskip("transformers")
    picture = smooth_picture(*size)
    expected = transformers.CLIPImageProcessor()(picture, return_tensors="np")["pixel_values"][0]

    pixels = frame_to_vision_pixels(picture, VisionInput())

    assert pixels.dtype == np.float32
    # One of 255 levels is 0.015 after normalisation: rounding may differ, the crop's place may not.
    assert np.abs(pixels - expected).mean() < 1e-3
    assert np.quantile(np.abs(pixels - expected), 0.999) < 1.6e-2


def test_a_squashed_vision_picture_shows_the_whole_frame() -> None:
    vision = VisionInput(size=32, fit="squash", mean=(0, 0, 0), std=(1, 1, 1))

    pixels = frame_to_vision_pixels(smooth_picture(320, 90), vision)

    assert pixels.shape == (3, 32, 32)
    assert pixels[0, 20, 0] < 0.05 and pixels[0, 20, -1] > 0.95


def test_mean_and_deviation_are_per_channel() -> None:
    vision = VisionInput(size=16, fit="squash", mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))

    pixels = frame_to_vision_pixels(Image.new("RGB", (16, 16), (255, 255, 255)), vision)

    np.testing.assert_allclose(pixels[:, 0, 0], (1.0, 3.0, 1.0))


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1920, 1080, (114, 64)), (1080, 1920, (64, 114)), (500, 500, (64, 64)), (3200, 100, (2048, 64))],
)
def test_guidance_has_the_input_frames_aspect_ratio(width: int, height: int, expected: tuple[int, int]) -> None:
    assert output_size(64, width, height) == expected
    assert pixels_to_frame(np.zeros((3, 64, 64), np.float32), width, height).size == expected


def test_pixels_survive_the_way_in_and_out() -> None:
    picture = smooth_picture(64, 64)

    back = pixels_to_frame(frame_to_pixels(picture, 64), 64, 64)

    np.testing.assert_array_equal(np.asarray(back), np.asarray(picture))


def test_values_beyond_the_range_are_clamped() -> None:
    pixels = np.stack([np.full((8, 8), value, np.float32) for value in (-3, 0, 3)])

    assert pixels_to_frame(pixels, 8, 8).getpixel((4, 4)) == (0, 128, 255)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the original code are not here")
def test_the_original_finish_is_the_original_codes() -> None:
    with np.load(GOLDEN) as golden:
        pixels, expected = golden["sampler.decoded"][0], golden["postprocess.original_uint8_hwc"]

    picture = np.asarray(original_frame(pixels, 1280, 720), int)

    assert picture.shape == expected.shape == (64, 114, 3)
    assert np.abs(picture - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("size", "expected"), [((1280, 720), (28, 16)), ((720, 1280), (9, 16)), ((8, 256), (1, 16))])
def test_the_original_finish_keeps_the_height_whichever_side_is_shorter(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert original_frame(frame_to_pixels(smooth_picture(16, 16), 16), *size).size == expected


def test_the_original_finish_stretches_what_is_there_to_the_whole_range() -> None:
    dim = np.linspace(-0.2, 0.1, 3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)

    picture = np.asarray(original_frame(dim, 8, 8))

    assert (picture.min(), picture.max()) == (0, 255)
    assert picture[..., 0].max() < 128 < picture[..., 2].min(), "one stretch for all channels"


def test_the_original_finish_of_one_colour_is_black() -> None:
    assert np.asarray(original_frame(np.full((3, 8, 8), 0.3, np.float32), 8, 8)).max() == 0


def test_the_originals_jpeg_is_pillows_own() -> None:
    picture, buffer = smooth_picture(64, 48), io.BytesIO()
    picture.save(buffer, "JPEG")

    assert encode_jpeg(picture, fidelity="original") == buffer.getvalue()
    assert encode_jpeg(picture, 40, "original") != buffer.getvalue()


def test_jpegs_keep_coloured_edges() -> None:
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2, 0] = 255
    stripes[:, 1::2, 2] = 255

    decoded = np.asarray(decode_image(encode_jpeg(Image.fromarray(stripes))), float)

    assert np.abs(decoded - stripes).mean() < 12
