"""The ghost: what of guidance stands out, where it lies, and how it comes and goes."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from lego_client.overlay.changes import changed_region
from lego_client.overlay.fade import Fade
from lego_client.overlay.ghost import Ghost
from lego_client.overlay.homography import transform
from numpy.typing import NDArray

from benchmarks.panning import VIEW_SIZE, Look, textured_scene, truth, wandering

SCENE = textured_scene(0)
ELSEWHERE = textured_scene(1)
ASKED = Look()
FPS = 30
HAND = np.array([(250, 479), (300, 250), (340, 190), (400, 230), (390, 300), (360, 479)])
SKIN = (214, 160, 130)


def hand_mask() -> NDArray[np.bool_]:
    mask = np.zeros(VIEW_SIZE[::-1], np.uint8)
    cv2.fillPoly(mask, [HAND], 1)
    return mask > 0


def generated(frame: NDArray[np.uint8], size: tuple[int, int] = (341, 256)) -> NDArray[np.uint8]:
    """A frame as a small autoencoder gives it back: softer, warmer, paler, shifted by a pixel, and compressed."""
    picture = cv2.GaussianBlur(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), (0, 0), 0.8)
    picture = cv2.warpAffine(picture, np.array([[1, 0, 0.8], [0, 1, -0.6]]), size, borderMode=cv2.BORDER_REPLICATE)
    coloured = picture * np.array([0.95, 0.93, 0.88]) + np.array([12, 8, 6])
    grain = np.random.default_rng(0).normal(0, 2.5, coloured.shape)
    coded = cv2.imencode(".jpg", np.clip(coloured + grain, 0, 255).astype(np.uint8)[..., ::-1])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.fixture(scope="module")
def asked() -> NDArray[np.uint8]:
    return ASKED.view(SCENE)


@pytest.fixture(scope="module")
def guidance(asked: NDArray[np.uint8]) -> NDArray[np.uint8]:
    acted = asked.copy()
    cv2.fillPoly(acted, [HAND], SKIN, cv2.LINE_AA)
    return generated(acted)


class Player:
    """Shows a ghost view after view at 30 a second."""

    def __init__(self, asked: NDArray[np.uint8], guidance: NDArray[np.uint8]) -> None:
        self.seconds = 0.0
        self.ghost = Ghost(asked, lambda: self.seconds)
        self.guidance = guidance

    def show(self, view: NDArray[np.uint8], times: int = 1) -> NDArray[np.uint8]:
        for _ in range(times):
            picture = self.ghost.compose(view, self.guidance)
            self.seconds += 1 / FPS
        return picture


def overlap(region: NDArray[np.uint8], true: NDArray[np.bool_]) -> float:
    found = cv2.resize(region, VIEW_SIZE, interpolation=cv2.INTER_NEAREST) > 0
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("size", [(341, 256), (256, 256), (640, 480), (171, 128)])
def test_what_was_painted_anew_is_found_and_nothing_else(asked: NDArray[np.uint8], size: tuple[int, int]) -> None:
    acted = asked.copy()
    cv2.fillPoly(acted, [HAND], SKIN, cv2.LINE_AA)
    assert overlap(changed_region(asked, generated(acted, size)), hand_mask()) > 0.75


def test_what_is_gone_is_found_too(asked: NDArray[np.uint8]) -> None:
    before = asked.copy()
    cv2.fillPoly(before, [HAND], SKIN, cv2.LINE_AA)
    assert overlap(changed_region(before, generated(asked)), hand_mask()) > 0.75


def test_a_picture_merely_generated_has_no_changed_region(asked: NDArray[np.uint8]) -> None:
    assert not changed_region(asked, generated(asked)).any()
    assert not changed_region(asked, asked).any()


def test_another_picture_altogether_has_no_region_that_stands_out(asked: NDArray[np.uint8]) -> None:
    inverted = 255 - asked[::-1]
    assert not changed_region(asked, inverted).any()


def test_grey_and_plain_pictures_are_compared(asked: NDArray[np.uint8]) -> None:
    grey = np.full_like(asked, 120)
    acted = grey.copy()
    cv2.fillPoly(acted, [HAND], SKIN)
    assert not changed_region(grey, grey).any()
    assert overlap(changed_region(grey, acted), hand_mask()) > 0.8


@pytest.mark.parametrize("look", [Look(), Look(right=70, down=20), Look(roll=12, zoom=1.2), Look(zoom=0.8, slant=0.1)])
def test_the_ghost_lies_on_the_scene(asked: NDArray[np.uint8], guidance: NDArray[np.uint8], look: Look) -> None:
    view = look.view(SCENE)
    picture = Player(asked, guidance).show(view, times=20)
    true = truth(ASKED, look)
    inside = transform(true, np.array([(340, 260), (330, 300), (350, 330)], np.float32)).astype(int)
    for x, y in inside:
        there = picture[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3).mean(axis=0)
        expected = 0.8 * (np.array(SKIN) * [0.95, 0.93, 0.88] + [12, 8, 6]) + 0.2 * view[y, x]
        assert np.abs(there - expected).max() < 25
    mask = cv2.warpPerspective(hand_mask().astype(np.uint8), true, VIEW_SIZE)
    far = cv2.dilate(mask, np.ones((31, 31), np.uint8)) == 0
    assert np.abs(picture.astype(int) - view)[far].mean() < 8  # faint elsewhere


def test_the_changed_region_is_outlined(asked: NDArray[np.uint8], guidance: NDArray[np.uint8]) -> None:
    picture = Player(asked, guidance).show(asked, times=20)
    outline = np.linalg.norm(picture.astype(int) - (116, 190, 255), axis=2) < 12
    rows, columns = np.nonzero(outline)
    assert len(rows) > 400
    distances = [abs(cv2.pointPolygonTest(HAND.reshape(-1, 1, 2).astype(np.float32), (float(x), float(y)), True))
                 for x, y in zip(columns, rows, strict=True)]  # fmt: skip
    assert np.median(distances) < 8


def test_the_ghost_comes_softly_and_then_stays(asked: NDArray[np.uint8], guidance: NDArray[np.uint8]) -> None:
    player = Player(asked, guidance)
    assert (player.show(asked) == asked).all()
    opacities = []
    for frame in range(45):
        player.show(wandering(frame / FPS).view(SCENE))
        opacities.append(player.ghost.opacity)
    assert np.diff([0.0, *opacities]).max() <= 0.14  # 0.25 s to full
    assert opacities[10:] == [1.0] * 35
    assert not player.ghost.lost


def test_a_lost_scene_takes_its_ghost_away_and_brings_it_back(
    asked: NDArray[np.uint8], guidance: NDArray[np.uint8]
) -> None:
    player = Player(asked, guidance)
    player.show(asked, times=12)
    other = Look().view(ELSEWHERE)
    opacities = []
    for _ in range(15):
        picture = player.show(other)
        opacities.append(player.ghost.opacity)
    assert all(later <= earlier for earlier, later in pairwise(opacities))
    assert opacities[0] > 0.8 and opacities[-1] == 0
    assert player.ghost.lost and (picture == other).all()
    back = Look(right=50).view(SCENE)
    player.show(back, times=3)
    assert player.ghost.opacity == 0  # it must settle first
    player.show(back, times=14)
    assert player.ghost.opacity == 1 and not player.ghost.lost


def test_a_preview_gives_way_to_the_picture(asked: NDArray[np.uint8], guidance: NDArray[np.uint8]) -> None:
    player = Player(asked, np.full((32, 43, 3), (0, 0, 250), np.uint8))
    blue = player.show(asked, times=12)
    player.guidance = guidance
    skin = player.show(asked)
    assert blue[300, 340, 2] > blue[300, 340, 0] and skin[300, 340, 0] > skin[300, 340, 2]


def test_the_ghost_keeps_its_own_copy_of_the_asked_frame(asked: NDArray[np.uint8], guidance: NDArray[np.uint8]) -> None:
    mine = asked.copy()
    player = Player(mine, guidance)
    mine[:] = 0
    player.show(asked, times=12)
    assert player.ghost.opacity == 1


def test_smoothing_keeps_within_two_pixels_of_a_moving_scene(
    asked: NDArray[np.uint8], guidance: NDArray[np.uint8]
) -> None:
    player = Player(asked, guidance)
    corners = np.array([(0, 0), (639, 0), (639, 479), (0, 479)], np.float32)
    errors = []
    for frame in range(90):  # at up to 180 pixels a second
        look = wandering(frame / FPS)
        player.show(look.view(SCENE))
        assert player.ghost.homography is not None
        distances = transform(player.ghost.homography, corners) - transform(truth(ASKED, look), corners)
        errors.append(np.linalg.norm(distances, axis=1).max())
    assert np.median(errors) < 1.5 and max(errors) < 3


def test_a_scene_that_comes_and_goes_does_not_flicker() -> None:
    fade = Fade()
    for frame in range(15):
        fade.update(True, frame / FPS)
    assert fade.opacity == 1
    opacities = [fade.update(frame % 2 == 0, (15 + frame) / FPS) for frame in range(30)]
    assert all(later <= earlier for earlier, later in pairwise(opacities))
    assert opacities[-1] == 0


def test_a_scene_lost_for_one_frame_keeps_most_of_its_ghost() -> None:
    fade = Fade()
    for frame in range(15):
        fade.update(True, frame / FPS)
    opacities = [fade.update(frame != 0, (15 + frame) / FPS) for frame in range(15)]
    assert min(opacities) > 0.5 and opacities[-1] == 1


def test_a_clock_that_jumps_back_does_no_harm() -> None:
    fade = Fade()
    assert [fade.update(True, time) for time in (5.0, 5.1, 3.0, 3.1)] == pytest.approx([0, 0.4, 0.4, 0.8])
