"""Which of neighbouring frames is sent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from lego_client.sharpness import sharpest, sharpness
from lego_client.sources import CapturedFrame
from lego_client.sources.images import read_image
from numpy.typing import NDArray

from tests.client.scenes import scene


def frames_of(*pictures: NDArray[np.uint8]) -> list[CapturedFrame]:
    return [CapturedFrame(pixels, number / 10, number) for number, pixels in enumerate(pictures, 1)]


def blurred(pixels: NDArray[np.uint8], sigma: float = 2.0) -> NDArray[np.uint8]:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def test_blur_lowers_the_score_the_more_the_stronger() -> None:
    picture = scene()
    assert sharpness(picture) > sharpness(blurred(picture, 1)) > sharpness(blurred(picture, 3)) > 0


def test_a_flat_picture_scores_zero() -> None:
    assert sharpness(np.full((90, 160, 3), 77, np.uint8)) == 0


def test_the_one_sharp_frame_of_seven_is_picked() -> None:
    pictures = [blurred(scene())] * 3 + [scene()] + [blurred(scene())] * 3
    assert sharpest(frames_of(*pictures)).sequence == 4


def test_of_frames_equally_sharp_the_newest_is_picked() -> None:
    assert sharpest(frames_of(*[scene()] * 7)).sequence == 7


def test_a_newer_blurred_copy_of_a_real_photograph_is_not_picked(fixtures: Path) -> None:
    for photograph in sorted((fixtures / "images" / "epic_frames").glob("*.jpg"))[:6]:
        pixels = read_image(photograph)
        assert sharpest(frames_of(pixels, blurred(pixels, 1.5))).sequence == 1


def test_a_single_frame_is_picked() -> None:
    assert sharpest(frames_of(scene())).sequence == 1
