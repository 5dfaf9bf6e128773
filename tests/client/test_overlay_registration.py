"""Where the asked frame lies in a view, against motion that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.overlay.homography import corners, fit_homography, is_plausible, scaling, transform, uncertainty
from lego_client.overlay.registration import Means, Registration, SceneTracker
from lego_client.overlay.smoothing import OneEuroFilter
from numpy.typing import NDArray
from PIL import Image

from benchmarks.panning import VIEW_SIZE, Look, textured_scene, truth, wandering

Spoiler = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

SCENE = textured_scene(0)
ASKED = Look()

LOOKS = {
    "the same": Look(),
    "a pan": Look(right=90, down=-50),
    "a wide pan": Look(right=280),
    "a roll": Look(roll=15),
    "a steep roll": Look(roll=-40),
    "a step nearer": Look(zoom=1.35),
    "a step back": Look(zoom=0.7),
    "from the side": Look(slant=0.2),
    "all at once": Look(right=-80, down=30, roll=8, zoom=1.15, slant=-0.1),
}


def error(found: NDArray[np.float64], true: NDArray[np.float64], size: tuple[int, int]) -> float:
    """The largest distance from the truth over what both pictures show, in pixels of a view 640 wide."""
    across, down = (np.linspace(0, side - 1, 9) for side in size)
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2).astype(np.float32)
    places = transform(true, grid)
    visible = ((places >= 0) & (places <= np.array(size) - 1)).all(axis=1)
    assert visible.any()
    distances = np.linalg.norm(transform(found, grid) - places, axis=1)
    return float(distances[visible].max()) * 640 / size[0]


def found_at(registration: Registration) -> NDArray[np.float64]:
    assert registration.confidence >= 0.5 and registration.homography is not None
    return registration.homography


def smeared(view: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """A view blurred by sideways motion."""
    return cv2.filter2D(view, -1, np.full((1, pixels), 1 / pixels, np.float32))


def noisy(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 12, view.shape)
    return np.clip(view + noise, 0, 255).astype(np.uint8)


SPOILERS: dict[str, Spoiler] = {
    "as it is": lambda view: view,
    "darker": lambda view: (view * 0.5).astype(np.uint8),
    "brighter": lambda view: np.clip(view * 1.25 + 25.0, 0, 255).astype(np.uint8),
    "in other light": lambda view: np.clip(view * np.array([1.1, 1.0, 0.85]), 0, 255).astype(np.uint8),
    "blurred by motion": lambda view: smeared(view, 9),
    "noisy": noisy,
}


@pytest.fixture(scope="module")
def asked() -> NDArray[np.uint8]:
    return ASKED.view(SCENE)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_asked_frame_is_found_within_a_pixel(asked: NDArray[np.uint8], look: Look) -> None:
    registration = SceneTracker(asked).locate(look.view(SCENE))
    assert registration.means is Means.RELOCALISED
    assert error(found_at(registration), truth(ASKED, look), VIEW_SIZE) < 1.0


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_light_blur_and_noise_cost_less_than_three_pixels(asked: NDArray[np.uint8], spoil: Spoiler) -> None:
    look = LOOKS["all at once"]
    registration = SceneTracker(asked).locate(spoil(look.view(SCENE)))
    assert error(found_at(registration), truth(ASKED, look), VIEW_SIZE) < 3.0


def test_a_wandering_look_is_followed_without_drift(asked: NDArray[np.uint8]) -> None:
    tracker = SceneTracker(asked)
    errors = []
    for frame in range(90):
        look = wandering(frame / 15)
        registration = tracker.locate(look.view(SCENE))
        assert registration.means is (Means.FOLLOWED if frame else Means.RELOCALISED)
        errors.append(error(found_at(registration), truth(ASKED, look), VIEW_SIZE))
    assert np.median(errors) < 0.3
    assert max(errors) < 1.0


def test_a_scene_is_lost_when_the_wearer_looks_elsewhere_and_found_on_return(asked: NDArray[np.uint8]) -> None:
    tracker = SceneTracker(asked)
    elsewhere = textured_scene(1)
    near, back = Look(right=60), Look(right=-70, roll=5)
    first = tracker.locate(near.view(SCENE))
    assert first.confidence >= 0.5
    for frame in range(5):
        lost = tracker.locate(wandering(frame / 15).view(elsewhere))
        assert lost.confidence == 0 and lost.means is Means.NONE
        assert lost.homography is first.homography  # where it was last
    found = tracker.locate(back.view(SCENE))
    assert found.means is Means.RELOCALISED
    assert error(found_at(found), truth(ASKED, back), VIEW_SIZE) < 1.0
    assert tracker.locate(back.view(SCENE)).means is Means.FOLLOWED


def test_a_hand_over_a_third_of_the_view_does_not_push_the_frame_away(asked: NDArray[np.uint8]) -> None:
    tracker = SceneTracker(asked)
    rng = np.random.default_rng(3)
    skin = rng.integers(150, 220, (480, 640, 3)).astype(np.uint8)
    for frame in range(12):
        look = wandering(frame / 15)
        view = look.view(SCENE)
        reach = 40 * frame
        hand = np.zeros((480, 640), np.uint8)
        cv2.ellipse(hand, (640 - reach // 2, 480), (120, reach), 0, 0, 360, 255, -1)
        view[hand > 0] = skin[hand > 0]
        registration = tracker.locate(view)
        assert error(found_at(registration), truth(ASKED, look), VIEW_SIZE) < 4.0


def plain_walls() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(5)
    ramp = np.linspace(120, 180, 640)[None, :, None] * np.ones((480, 1, 3))
    grain = np.clip(150 + rng.normal(0, 3, (480, 640, 3)), 0, 255)
    edge = np.full((480, 640, 3), 200.0)
    edge[:, 320:] = 90
    return {
        name: wall.astype(np.uint8)
        for name, wall in {"grey": np.full((480, 640, 3), 128.0), "ramp": ramp, "grain": grain, "edge": edge}.items()
    }


@pytest.mark.parametrize("wall", plain_walls().values(), ids=plain_walls())
def test_on_a_plain_wall_nothing_is_claimed(wall: NDArray[np.uint8]) -> None:
    tracker = SceneTracker(wall)
    moved = np.roll(wall, 25, axis=1)
    for view in (wall, moved, noisy(moved), ASKED.view(SCENE)):
        assert tracker.locate(view).confidence < 0.5


def test_a_scene_is_not_found_on_a_plain_wall(asked: NDArray[np.uint8]) -> None:
    tracker = SceneTracker(asked)
    tracker.locate(asked)
    for wall in plain_walls().values():
        assert tracker.locate(wall).confidence == 0


def test_a_few_things_in_one_corner_are_no_ground_for_a_warp(asked: NDArray[np.uint8]) -> None:
    wall = np.full_like(asked, 150)
    wall[:70, :70] = asked[200:270, 300:370]
    tracker = SceneTracker(wall)
    for look in (Look(), Look(right=10), Look(roll=5)):
        moved = cv2.warpPerspective(wall, truth(ASKED, look), VIEW_SIZE, borderMode=cv2.BORDER_REPLICATE)
        registration = tracker.locate(moved)
        if registration.confidence >= 0.5:  # then it must be right
            assert error(found_at(registration), truth(ASKED, look), VIEW_SIZE) < 8.0


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (960, 540), (240, 320)])
def test_views_of_another_size_or_aspect_ratio_are_registered_in_their_own_pixels(
    asked: NDArray[np.uint8], size: tuple[int, int]
) -> None:
    scale = size[0] / VIEW_SIZE[0]
    to_view = scaling(VIEW_SIZE, (round(VIEW_SIZE[0] * scale), round(VIEW_SIZE[1] * scale)))
    true = to_view @ truth(ASKED, Look(right=40, roll=4))
    view = cv2.warpPerspective(asked, true, size, flags=cv2.INTER_AREA)
    registration = SceneTracker(asked).locate(view)
    expected, found = transform(true, corners(VIEW_SIZE)), transform(found_at(registration), corners(VIEW_SIZE))
    assert np.linalg.norm(found - expected, axis=1).max() / scale < 4.0


def test_a_size_that_changes_while_following_is_borne(asked: NDArray[np.uint8]) -> None:
    tracker = SceneTracker(asked)
    tracker.locate(asked)
    small = cv2.resize(Look(right=4).view(SCENE), (320, 240), interpolation=cv2.INTER_AREA)
    assert tracker.locate(small).confidence >= 0.5


@pytest.mark.parametrize("shade", [0, 255])
def test_the_smallest_pictures_are_lost_and_not_an_error(shade: int) -> None:
    tiny = np.full((16, 16, 3), shade, np.uint8)
    assert SceneTracker(tiny).locate(tiny).confidence == 0
    assert SceneTracker(tiny).locate(ASKED.view(SCENE)).confidence == 0
    assert SceneTracker(ASKED.view(SCENE)).locate(tiny).confidence == 0


def photographs(fixtures: Path) -> list[NDArray[np.uint8]]:
    paths = sorted((fixtures / "images" / "epic_frames").glob("*.jpg"))[::6]
    assert paths
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def moved(photograph: NDArray[np.uint8], look: Look) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    size = photograph.shape[1], photograph.shape[0]
    scale = size[0] / VIEW_SIZE[0]
    true = truth(ASKED, replace(look, right=look.right * scale, down=look.down * scale), size)
    return cv2.warpPerspective(photograph, true, size, borderMode=cv2.BORDER_REFLECT), true


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_real_photographs_are_found_within_three_pixels(fixtures: Path, look: Look) -> None:
    for photograph in photographs(fixtures):
        view, true = moved(photograph, look)
        registration = SceneTracker(photograph).locate(view)
        assert error(found_at(registration), true, (photograph.shape[1], photograph.shape[0])) < 3.0


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_real_photographs_bear_light_blur_and_noise(fixtures: Path, spoil: Spoiler) -> None:
    errors = []
    for photograph in photographs(fixtures):
        view, true = moved(photograph, Look(right=40, down=-15, roll=6, zoom=1.1))
        registration = SceneTracker(photograph).locate(spoil(view))
        errors.append(error(found_at(registration), true, (photograph.shape[1], photograph.shape[0])))
    assert np.median(errors) < 2.0
    assert max(errors) < 6.0


def test_one_real_kitchen_is_not_taken_for_another(fixtures: Path) -> None:
    by_person: dict[str, NDArray[np.uint8]] = {}
    for path in sorted((fixtures / "images" / "epic_frames").glob("*.jpg")):
        by_person.setdefault(path.name.split("KITCHENS_")[1][:3], np.asarray(Image.open(path).convert("RGB")))
    assert len(by_person) >= 3
    for here, first in by_person.items():
        tracker = SceneTracker(first)
        for there, other in by_person.items():
            if here != there:
                assert tracker.locate(other).confidence == 0


def test_a_fit_bears_outliers_and_says_who_they_are() -> None:
    rng = np.random.default_rng(0)
    true = truth(ASKED, LOOKS["all at once"])
    points = rng.uniform((0, 0), VIEW_SIZE, (100, 2)).astype(np.float32)
    targets = transform(true, points) + rng.normal(0, 0.2, (100, 2)).astype(np.float32)
    targets[:40] += rng.uniform(15, 80, (40, 2)).astype(np.float32)
    fit = fit_homography(points, targets, 2.0)
    assert fit is not None
    assert error(fit.homography, true, VIEW_SIZE) < 1.0
    assert not fit.inliers[:40].any() and fit.inliers[40:].mean() > 0.9
    assert fit.rms == pytest.approx(0.28, abs=0.1)


@pytest.mark.parametrize("pairs", [0, 3, 7])
def test_too_few_pairs_are_no_fit(pairs: int) -> None:
    points = np.random.default_rng(0).uniform(0, 100, (pairs, 2)).astype(np.float32)
    assert fit_homography(points, points, 2.0) is None


def test_pairs_in_one_place_are_no_fit_that_is_believed() -> None:
    points = np.zeros((30, 2), np.float32)
    fit = fit_homography(points, points, 2.0)
    assert fit is None or not np.isfinite(uncertainty(fit, points, corners(VIEW_SIZE)))


def test_uncertainty_tells_the_error_to_expect() -> None:
    rng = np.random.default_rng(1)
    true = truth(ASKED, Look(right=30, roll=3))
    for reach in (60, 150, 400):  # pixels over which the points are spread
        points = rng.uniform((320 - reach / 2, 240 - reach / 2), (320 + reach / 2, 240 + reach / 2), (80, 2))
        points = points.astype(np.float32)
        said, made = [], []
        for _ in range(30):
            targets = transform(true, points) + rng.normal(0, 0.5, (80, 2)).astype(np.float32)
            fit = fit_homography(points, targets, 3.0)
            assert fit is not None
            said.append(uncertainty(fit, points, corners(VIEW_SIZE)))
            distances = transform(fit.homography, corners(VIEW_SIZE)) - transform(true, corners(VIEW_SIZE))
            made.append(np.linalg.norm(distances, axis=1).max())
        assert 0.3 < np.median(said) / np.median(made) < 3.0


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("mirrored", np.diag([-1.0, 1.0, 1.0])),
        ("far too small", np.diag([0.1, 0.1, 1.0])),
        ("far too large", np.diag([6.0, 6.0, 1.0])),
        ("a line", np.diag([1.0, 0.01, 1.0])),
        ("behind the camera", np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])),
        ("folded", np.array([[1, 0, 0], [0, 1, 0], [-0.0014, -0.0014, 1.0]])),
    ],
)
def test_what_no_camera_could_see_is_implausible(name: str, matrix: NDArray[np.float64]) -> None:
    assert not is_plausible(matrix, VIEW_SIZE), name


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_a_camera_sees_is_plausible(look: Look) -> None:
    assert is_plausible(truth(ASKED, look), VIEW_SIZE)


def test_no_points_are_mapped_to_none() -> None:
    assert transform(np.eye(3), np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_the_filter_steadies_what_stands_and_hardly_delays_what_moves() -> None:
    rng = np.random.default_rng(0)
    still, moving = OneEuroFilter(2.5, 0.16), OneEuroFilter(2.5, 0.16)
    jitter, lag = [], []
    for frame in range(90):
        noise = rng.normal(0, 0.5, (4, 2))
        jitter.append((np.std(noise), np.std(still(100 + noise, frame / 30) - 100)))
        place = np.full((4, 2), 300.0 * frame / 30)
        lag.append(float(np.abs(moving(place, frame / 30) - place).max()))
    before, after = np.mean(jitter[10:], axis=0)
    assert after < 0.75 * before
    assert max(lag[15:]) < 1.5  # pixels, at 300 pixels a second


def test_the_filter_takes_the_first_value_as_it_is_and_the_first_after_a_reset() -> None:
    smooth = OneEuroFilter(1.0, 0.0)
    assert smooth(np.array([[5.0, 6.0]]), 0.0).tolist() == [[5.0, 6.0]]
    assert smooth(np.array([[50.0, 60.0]]), 0.0).tolist() == [[5.0, 6.0]]  # no time has passed
    assert 5 < smooth(np.array([[50.0, 60.0]]), 0.03)[0, 0] < 50
    smooth.reset()
    assert smooth(np.array([[50.0, 60.0]]), 0.06).tolist() == [[50.0, 60.0]]
