"""The JPEG that travels: its size, its shape, its limits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from lego_client.encoding import encode_frame
from lego_core.errors import LegoError

from tests.client.scenes import scene


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_small_frame_keeps_its_size_and_colours() -> None:
    encoded = encode_frame(scene(200))
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded.jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert decoded.shape == (encoded.height, encoded.width, 3) == (180, 320, 3)
    assert np.abs(decoded.astype(int) - scene(200)).mean() < 6


def test_a_large_frame_is_scaled_to_the_longest_side_at_its_aspect_ratio() -> None:
    encoded = encode_frame(scene(width=3840, height=2160))
    assert (encoded.width, encoded.height) == (1280, 720)


def test_the_limit_on_pixels_is_kept() -> None:
    encoded = encode_frame(scene(width=640, height=480), max_pixels=50_000)
    assert encoded.width * encoded.height <= 50_000
    assert encoded.width / encoded.height == pytest.approx(4 / 3, abs=0.02)


@pytest.mark.parametrize("limit", [200_000, 40_000, 5_000])
def test_the_limit_on_bytes_is_kept_even_for_noise(limit: int) -> None:
    assert len(encode_frame(noise(640, 480), max_bytes=limit).jpeg) <= limit


def test_a_frame_too_small_to_send_is_refused() -> None:
    with pytest.raises(LegoError, match="at least 8 pixels"):
        encode_frame(noise(100, 4))


def test_limits_that_leave_nothing_are_reported() -> None:
    with pytest.raises(LegoError, match="at least 8 pixels"):
        encode_frame(noise(640, 480), max_bytes=10)
