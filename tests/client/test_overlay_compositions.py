"""View and guidance in one picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lego_client.overlay.compositions import CORNERS, PictureInPicture, SideBySide, Slider
from lego_client.overlay.modes import MODES, composition
from lego_client.overlay.pixels import lay_over
from lego_core.errors import LegoError
from numpy.typing import NDArray

RED, GREEN, BLUE = (220, 30, 30), (30, 200, 60), (40, 60, 220)


def plain(colour: tuple[int, int, int], width: int = 640, height: int = 480) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, np.uint8)


def share_of(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    return float((picture == np.array(colour)).all(axis=2).mean())


sides = st.integers(16, 70)


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(MODES), view=st.tuples(sides, sides), guidance=st.tuples(sides, sides),
    asked=st.tuples(sides, sides), seed=st.integers(0, 1000), calls=st.integers(1, 3),
    corner=st.sampled_from(CORNERS), size=st.floats(0.1, 0.9), position=st.floats(0, 1),
)  # fmt: skip
def test_every_mode_gives_the_views_size_and_changes_nothing_it_was_given(
    mode: str, view: tuple[int, int], guidance: tuple[int, int], asked: tuple[int, int], seed: int, calls: int,
    corner: str, size: float, position: float,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in (view, guidance, asked)]
    originals = [picture.copy() for picture in pictures]
    times = iter(range(10))
    how = composition(
        mode, pictures[2], corner=corner, size=size, position=position, clock=lambda: float(next(times))
    )  # fmt: skip
    for _ in range(calls):
        composed = how.compose(pictures[0], pictures[1])
        assert composed.shape == pictures[0].shape and composed.dtype == np.uint8
        assert not any(np.shares_memory(composed, picture) for picture in pictures)
        composed[:] = 0
    for picture, original in zip(pictures, originals, strict=True):
        assert (picture == original).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((48, 64), np.uint8), "48x64 uint8; it must be .height, width, 3. uint8, RGB"),
        (np.zeros((48, 64, 4), np.uint8), "48x64x4 uint8"),
        (np.zeros((48, 64, 3), np.float32), "48x64x3 float32"),
        (np.zeros((1, 1, 3), np.uint8), "1x1 pixels; both sides must be at least 16"),
        (np.zeros((0, 64, 3), np.uint8), "64x0 pixels"),
        (np.zeros((480, 15, 3), np.uint8), "15x480 pixels"),
    ],
)
def test_what_is_no_picture_is_named(mode: str, pixels: NDArray[np.uint8], message: str) -> None:
    good = plain(RED, 64, 48)
    with pytest.raises(LegoError, match=f"the view is {message}"):
        composition(mode, good).compose(pixels, good)
    with pytest.raises(LegoError, match=f"the guidance frame is {message}"):
        composition(mode, good).compose(good, pixels)
    if mode in ("ghost", "slider"):
        with pytest.raises(LegoError, match=f"the frame asked about is {message}"):
            composition(mode, pixels)


@pytest.mark.parametrize("mode", MODES)
def test_pictures_may_lie_anyhow_in_memory(mode: str) -> None:
    view, guidance = plain(RED)[::-1, ::-1], plain(GREEN, 512, 512)[::2, ::2]
    assert composition(mode, view).compose(view, guidance).shape == view.shape


def test_side_by_side_shows_both_whole() -> None:
    page = SideBySide().compose(plain(RED), plain(GREEN, 341, 256))
    assert share_of(page[:, :318], RED) == pytest.approx(0.5, abs=0.02)
    assert share_of(page[:, 322:], GREEN) == pytest.approx(0.5, abs=0.02)
    assert share_of(page[:, :318], GREEN) == share_of(page[:, 322:], RED) == 0


def test_side_by_side_keeps_aspect_ratios() -> None:
    page = SideBySide().compose(plain(RED), plain(GREEN, 256, 256))
    rows, columns = np.nonzero((page == GREEN).all(axis=2))
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == 318


@pytest.mark.parametrize("corner", CORNERS)
def test_picture_in_picture_keeps_to_its_corner_and_size(corner: str) -> None:
    page = PictureInPicture(corner, 0.25).compose(plain(RED), plain(GREEN, 400, 100))
    rows, columns = np.nonzero((page == GREEN).all(axis=2))
    assert 150 <= np.ptp(columns) <= 160 and 35 <= np.ptp(rows) <= 40
    assert (columns.mean() < 320) == corner.endswith("left")
    assert (rows.mean() < 240) == corner.startswith("top")
    assert share_of(page, RED) > 0.9


def test_the_slider_shows_before_left_and_after_right_of_its_line() -> None:
    slider = Slider(plain(BLUE), 0.25)
    page = slider.compose(plain(RED), plain(GREEN, 341, 256))
    assert share_of(page[:, :150], BLUE) == share_of(page[:, 170:], GREEN) == 1
    assert share_of(page, RED) == 0
    slider.position = 0.75
    assert share_of(slider.compose(plain(RED), plain(GREEN))[:, :470], BLUE) == 1


@pytest.mark.parametrize(("position", "colour"), [(0.0, GREEN), (1.0, BLUE)])
def test_the_slider_at_either_end_shows_one_picture_only(position: float, colour: tuple[int, int, int]) -> None:
    page = Slider(plain(BLUE), position).compose(plain(RED), plain(GREEN))
    assert share_of(page, colour) == 1


def test_the_slider_fits_a_frame_of_another_aspect_ratio_into_the_view() -> None:
    page = Slider(plain(BLUE, 480, 480), 0.5).compose(plain(RED), plain(GREEN, 256, 256))
    assert share_of(page[:, :78], BLUE) == share_of(page[:, 562:], GREEN) == 0
    assert share_of(page[:, 82:310], BLUE) == share_of(page[:, 330:558], GREEN) == 1


@pytest.mark.parametrize("position", [-0.1, 1.1, float("nan")])
def test_a_position_out_of_range_is_refused(position: float) -> None:
    with pytest.raises(LegoError, match=r"the position is .*; it must be from 0 to 1"):
        Slider(plain(RED), position)


@pytest.mark.parametrize("size", [0.0, 0.95, float("nan")])
def test_an_inset_size_out_of_range_is_refused(size: float) -> None:
    with pytest.raises(LegoError, match=r"the size is .*; it must be from 0\.1 to 0\.9"):
        PictureInPicture(size=size)


def test_an_unknown_corner_and_an_unknown_mode_are_answered_with_the_known() -> None:
    with pytest.raises(LegoError, match="'middle'; it must be one of top-left, top-right"):
        PictureInPicture("middle")
    with pytest.raises(LegoError, match="'hologram'; it must be one of ghost, side-by-side"):
        composition("hologram")


@pytest.mark.parametrize("mode", ["ghost", "slider"])
def test_modes_that_need_the_asked_frame_say_so(mode: str) -> None:
    with pytest.raises(LegoError, match=f"the mode {mode} needs the frame that was asked about"):
        composition(mode)


@given(alpha=st.integers(0, 255), below=st.integers(0, 255), colour=st.integers(0, 255), opacity=st.floats(0, 1))
def test_a_layer_is_laid_over_as_its_alpha_and_opacity_say(
    alpha: int, below: int, colour: int, opacity: float
) -> None:  # fmt: skip
    layer = np.full((2, 2, 4), round(colour * alpha / 255), np.uint8)
    layer[..., 3] = alpha
    result = lay_over(np.full((2, 2, 3), below, np.uint8), layer, opacity)
    share = opacity * alpha / 255
    assert result[0, 0, 0] == pytest.approx(share * colour + (1 - share) * below, abs=2)
