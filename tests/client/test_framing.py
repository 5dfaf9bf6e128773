"""From what a camera delivers to the wearer's view, and what a view tells of its camera."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.sources import open_source
from lego_client.sources.framing import Framing, bounded, rgb_from_bgr
from lego_client.sources.images import read_image
from lego_client.sources.watch import PictureWatch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from PIL import Image

from tests.client.scenes import scene


@pytest.mark.parametrize(("rotate", "turns"), [(0, 0), (90, -1), (180, 2), (270, 1)])
def test_a_view_is_turned_clockwise(rotate: int, turns: int) -> None:
    np.testing.assert_array_equal(Framing(rotate).apply(scene()), np.rot90(scene(), turns))


def test_a_mirrored_view_is_put_right_before_it_is_turned() -> None:
    np.testing.assert_array_equal(Framing(90, mirror=True).apply(scene()), np.rot90(scene()[:, ::-1], -1))


@pytest.mark.parametrize("rotate", [-90, 45, 360])
def test_another_turn_is_refused(rotate: int) -> None:
    with pytest.raises(LegoError, match=f"rotate is {rotate}; it must be 0, 90, 180 or 270"):
        Framing(rotate)


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ((320, 180), (320, 180)), ((1920, 1080), (1920, 1080)), ((2560, 1440), (1280, 720)),
        ((3841, 2161), (1280, 720)), ((4320, 7680), (720, 1280)), ((5000, 2), (5000, 2)),
    ],
)  # fmt: skip
def test_a_view_is_kept_no_larger_than_needed(size: tuple[int, int], kept: tuple[int, int]) -> None:
    pixels = bounded(scene(width=size[0], height=size[1]))
    assert (pixels.shape[1], pixels.shape[0]) == kept


def test_bounding_averages() -> None:
    pixels = np.zeros((8, 5120, 3), np.uint8)
    pixels[:, ::2] = 200
    assert set(np.unique(bounded(pixels))) == {100}


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("layout", ["grey", "grey with a channel", "colour", "colour and alpha"])
def test_what_a_camera_delivers_becomes_rgb_of_8_bits(depth: int, layout: str) -> None:
    bgra = np.dstack([np.full((9, 7), value, np.uint8) for value in (10, 20, 30, 40)])
    frames: dict[str, NDArray[np.uint8]] = {
        "grey": bgra[..., 0], "grey with a channel": bgra[..., :1], "colour": bgra[..., :3], "colour and alpha": bgra,
    }  # fmt: skip
    frame = frames[layout]
    pixels = rgb_from_bgr(frame.astype(np.uint16) << 8 if depth == 16 else frame)
    assert pixels.dtype == np.uint8 and pixels.shape == (9, 7, 3)
    assert tuple(pixels[0, 0]) == ((10, 10, 10) if "grey" in layout else (30, 20, 10))


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_pixels_of_another_kind_are_refused(frame: NDArray[np.generic]) -> None:
    with pytest.raises(LegoError, match=r"the camera delivers .*; set it to colour or grey"):
        rgb_from_bgr(frame)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"]


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 30), 200 << 8, np.uint16))
    elif mode == "P":
        image = Image.new("RGB", (30, 20), (200, 200, 200)).quantize(4)
    else:
        image = Image.new("RGB", (30, 20), (200, 200, 200)).convert(mode)
    image.save(tmp_path / "picture.tif" if mode in ("CMYK", "YCbCr") else tmp_path / "picture.png")
    pixels = read_image(next(tmp_path.iterdir()))
    assert pixels.shape == (20, 30, 3)
    if mode != "1":  # dithered
        assert np.abs(pixels.astype(int) - 200).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_picture_is_read_small_and_upright(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(scene(width=4000, height=3000))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "phone.jpg", exif=exif)
    with open_source(str(tmp_path / "phone.jpg")) as source:
        (frame,) = source.wait_for(1, 20)
    assert frame.pixels.shape == ((2000, 1500, 3) if orientation > 4 else (1500, 2000, 3))


def noisy(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 2, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def watched(
    picture: NDArray[np.uint8], seconds: float = 8.0, *, finds_still: bool = True, noise: bool = True
) -> list[str]:
    """Returns what is said of a picture, each tenth of a second."""
    watch = PictureWatch(finds_still=finds_still)
    return [
        watch.look(noisy(picture, number) if noise else picture, 100 + number / 10)
        for number in range(round(seconds * 10))
    ]


def test_nothing_is_said_of_a_scene() -> None:
    assert set(watched(scene())) == {""}


def test_a_dim_room_is_no_covered_lens() -> None:
    assert set(watched((scene() // 8).astype(np.uint8))) == {""}


def test_a_covered_lens_is_told_of_after_a_moment() -> None:
    said = watched(np.full((180, 320, 3), 4, np.uint8))
    assert said[:15] == [""] * 15
    assert set(said[16:]) == {"the picture is black: uncover the lens, or switch on a light"}


def test_a_lens_with_something_white_before_it_is_told_of() -> None:
    assert watched(np.full((180, 320, 3), 230, np.uint8))[-1] == "the picture is blank: uncover or clean the lens"


def test_a_picture_without_the_least_change_is_told_of_where_that_is_a_fault() -> None:
    said = watched(scene(), noise=False)
    assert said[49] == "" and "one and the same picture for 5 s" in said[51]
    assert set(watched(scene(), noise=False, finds_still=False)) == {""}


def test_what_is_told_passes_when_the_camera_sees_again() -> None:
    watch = PictureWatch(finds_still=True)
    for number in range(30):
        watch.look(np.zeros((90, 160, 3), np.uint8), number / 10)
    assert watch.look(scene(), 3.0) == ""
    assert not watch.unsure


def test_real_photographs_are_told_nothing_of(fixtures: Path) -> None:
    for photograph in sorted((fixtures / "images" / "epic_frames").glob("*.jpg")):
        pixels = cv2.resize(read_image(photograph), (320, 180))
        assert set(watched(pixels, seconds=3)) == {""}
