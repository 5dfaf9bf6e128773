"""A wearer's look over a scene drawn in code: views whose true place in the scene is known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SCENE_SIZE = 1600, 1100  # pixels
VIEW_SIZE = 640, 480


def textured_scene(seed: int = 0) -> NDArray[np.uint8]:
    """Returns things of many sizes on a grainy ground: (1100, 1600, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    width, height = SCENE_SIZE
    grain = cv2.resize(rng.normal(0, 12, (height // 6, width // 6, 3)).astype(np.float32), SCENE_SIZE)
    scene = np.clip(rng.integers(90, 170, 3) + grain, 0, 255).astype(np.uint8)
    for _ in range(320):
        centre = rng.integers((0, 0), SCENE_SIZE)
        colour = [int(value) for value in rng.integers(20, 240, 3)]
        reach = int(rng.choice((10, 18, 30, 55)))
        kind = rng.integers(3)
        if kind == 0:
            cv2.circle(scene, centre.tolist(), reach, colour, int(rng.choice((-1, 3))), cv2.LINE_AA)
        elif kind == 1:
            corners = centre + rng.integers(-reach, reach + 1, (int(rng.integers(3, 7)), 2))
            cv2.fillPoly(scene, [cv2.convexHull(corners.astype(np.int32))], colour, cv2.LINE_AA)
        else:
            cv2.line(scene, centre.tolist(), (centre + rng.integers(-60, 61, 2)).tolist(), colour, 3, cv2.LINE_AA)
    return scene


@dataclass(frozen=True)
class Look:
    """Where a wearer looks.

    Attributes:
        right: Pixels of the scene from its middle to the view's.
        down: The same, downwards.
        roll: Degrees, clockwise.
        zoom: Pixels of the view per pixel of the scene, in the middle.
        slant: How much nearer the view's right border is than its middle, as a share; perspective.
    """

    right: float = 0.0
    down: float = 0.0
    roll: float = 0.0
    zoom: float = 1.0
    slant: float = 0.0

    def homography(self, size: tuple[int, int] = VIEW_SIZE) -> NDArray[np.float64]:
        """Returns (3, 3), from pixels of the scene to pixels of a view of (width, height)."""
        angle = np.deg2rad(self.roll)
        turn = self.zoom * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        to_middle = np.eye(3)
        to_middle[:2, 2] = -(SCENE_SIZE[0] / 2 + self.right), -(SCENE_SIZE[1] / 2 + self.down)
        look = np.eye(3)
        look[:2, :2], look[2, 0] = turn, -2 * self.slant / size[0]
        from_middle = np.eye(3)
        from_middle[:2, 2] = size[0] / 2, size[1] / 2
        matrix: NDArray[np.float64] = from_middle @ look @ to_middle
        return matrix / matrix[2, 2]

    def view(self, scene: NDArray[np.uint8], size: tuple[int, int] = VIEW_SIZE) -> NDArray[np.uint8]:
        """Returns what is seen: (H, W, 3) uint8 RGB."""
        view: NDArray[np.uint8] = cv2.warpPerspective(
            scene, self.homography(size), size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        return view


def wandering(seconds: float) -> Look:
    """Returns where a wearer looks at a time, who looks around a workplace and comes back to it every 6 seconds."""
    phase = 2 * np.pi * seconds / 6
    return Look(
        right=150 * np.sin(phase), down=60 * np.sin(2 * phase), roll=6 * np.sin(phase + 1) - 6 * np.sin(1),
        zoom=1 + 0.12 * np.sin(phase), slant=0.1 * np.sin(phase),
    )  # fmt: skip


def truth(asked: Look, now: Look, size: tuple[int, int] = VIEW_SIZE) -> NDArray[np.float64]:
    """Returns the homography (3, 3) from the frame seen at one look to the view seen at another."""
    matrix: NDArray[np.float64] = now.homography(size) @ np.linalg.inv(asked.homography(size))
    return matrix / matrix[2, 2]
