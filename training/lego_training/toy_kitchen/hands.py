"""Hands and forearms, drawn in the picture plane at the scale of what they touch.

Hand coordinates: u runs from the wrist along the fingers, v towards the thumb, both in hand lengths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from lego_training.toy_kitchen.canvas import Canvas
from lego_training.toy_kitchen.geometry import Floats, Point
from lego_training.toy_kitchen.palette import RGB, mixed, scaled
from lego_training.toy_kitchen.scene import Look

Side = Literal["left", "right"]
PoseName = Literal["open", "grip", "flat", "pinch", "fist", "wrap"]
SIGN: Final[dict[str, int]] = {"left": -1, "right": 1}
HAND_LENGTH = 0.185  # metres

_Joints = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Pose:
    """Finger joints from little finger to index, thumb joints, and the (u, v) point that touches the object."""

    fingers: tuple[_Joints, ...]
    thumb: _Joints
    touch: tuple[float, float]
    inward: float  # degrees that the hand turns from the forearm towards the middle of the body
    nails: bool = False


_POSES: Final[dict[PoseName, _Pose]] = {
    "open": _Pose(
        (
            ((0.44, -0.17), (0.62, -0.23), (0.77, -0.27)),
            ((0.49, -0.06), (0.73, -0.10), (0.92, -0.12)),
            ((0.51, 0.05), (0.78, 0.05), (1.0, 0.05)),
            ((0.50, 0.16), (0.73, 0.20), (0.92, 0.23)),
        ),
        ((0.10, 0.15), (0.32, 0.33), (0.50, 0.42)),
        (0.98, 0.08),
        0.0,
        True,
    ),
    "grip": _Pose(
        (
            ((0.42, -0.17), (0.58, -0.19), (0.63, -0.18)),
            ((0.47, -0.06), (0.67, -0.07), (0.73, -0.06)),
            ((0.49, 0.05), (0.70, 0.05), (0.76, 0.05)),
            ((0.48, 0.16), (0.67, 0.17), (0.73, 0.16)),
        ),
        ((0.08, 0.16), (0.30, 0.31), (0.50, 0.33)),
        (0.66, 0.0),
        0.0,
    ),
    "flat": _Pose(
        (
            ((0.44, -0.16), (0.62, -0.18), (0.78, -0.19)),
            ((0.49, -0.06), (0.73, -0.07), (0.92, -0.07)),
            ((0.51, 0.05), (0.76, 0.05), (0.98, 0.05)),
            ((0.49, 0.15), (0.72, 0.17), (0.90, 0.17)),
        ),
        ((0.10, 0.15), (0.30, 0.31), (0.48, 0.36)),
        (0.62, 0.0),
        10.0,
        True,
    ),
    "pinch": _Pose(
        (
            ((0.42, -0.16), (0.54, -0.18), (0.58, -0.17)),
            ((0.47, -0.06), (0.62, -0.06), (0.66, -0.05)),
            ((0.49, 0.05), (0.68, 0.06), (0.78, 0.10)),
            ((0.48, 0.15), (0.70, 0.20), (0.86, 0.23)),
        ),
        ((0.08, 0.15), (0.32, 0.36), (0.56, 0.46), (0.76, 0.42)),
        (0.95, 0.35),
        24.0,
    ),
    "fist": _Pose(
        (
            ((0.36, -0.17), (0.50, -0.18), (0.53, -0.16)),
            ((0.41, -0.06), (0.58, -0.06), (0.61, -0.05)),
            ((0.43, 0.05), (0.61, 0.05), (0.64, 0.06)),
            ((0.42, 0.16), (0.58, 0.17), (0.62, 0.17)),
        ),
        ((0.06, 0.16), (0.30, 0.29), (0.52, 0.25)),
        (0.46, 0.06),
        6.0,
    ),
    "wrap": _Pose(
        (
            ((0.36, -0.20), (0.60, -0.19), (0.76, -0.14)),
            ((0.41, -0.08), (0.68, -0.08), (0.86, -0.05)),
            ((0.43, 0.04), (0.71, 0.03), (0.90, 0.04)),
            ((0.41, 0.16), (0.68, 0.15), (0.84, 0.13)),
        ),
        ((0.06, 0.15), (0.26, 0.34), (0.44, 0.44)),
        (0.62, 0.0),
        42.0,
    ),
}
_PALM: Final = np.array(
    [(-0.04, 0.115), (0.10, 0.18), (0.30, 0.225), (0.46, 0.225), (0.53, 0.13), (0.53, 0.0), (0.48, -0.14),
     (0.42, -0.225), (0.22, -0.20), (-0.04, -0.125)]
)  # fmt: skip


@dataclass(frozen=True)
class Hand:
    """One hand.

    Attributes:
        side: Which hand.
        pose: How it is shaped.
        target: World point it goes for; None lets it rest in its bottom corner.
        reach: Share of the way from its corner to the target, 0..1.
        rest: Picture position (x, y) in 0..1 of the fingertips at rest; y beyond 1.2 is out of view.
        elbow: How far outside the touch the arm comes in at the bottom, in picture widths; negative for inside.
    """

    side: Side
    pose: PoseName
    target: Point | None
    reach: float
    rest: tuple[float, float]
    elbow: float = 0.27


def draw_hand(canvas: Canvas, hand: Hand, look: Look) -> None:
    """Paints forearm, sleeve and hand, and notes the hand's box."""
    sign = SIGN[hand.side]
    pose = _POSES[hand.pose]
    corner = np.array(hand.rest) * canvas.pixels
    touch, length = corner, HAND_LENGTH * 1.18 * canvas.metre_at((0.0, -0.1, -0.1))
    if hand.target is not None:
        goal = canvas.place([hand.target])[0]
        # Sideways first, so that a hand half way there is already below what it goes for and nothing else.
        sideways = 1.0 - (1.0 - hand.reach) ** 2
        touch = corner + np.array([sideways, hand.reach]) * (goal - corner)
        length += hand.reach * (HAND_LENGTH * canvas.metre_at(hand.target) - length)
    # The elbow stays outside the bottom edge, further out than the hand, so the arm does not cover what is acted on.
    middle = canvas.pixels / 2
    elbow_x = touch[0] + sign * canvas.pixels * hand.elbow
    least = 0.30 if hand.elbow > 0 else 0.08
    elbow_x = middle + sign * np.clip(sign * (elbow_x - middle), canvas.pixels * least, canvas.pixels * 0.52)
    elbow = np.array([elbow_x, max(canvas.pixels * 1.16, touch[1] + length * 1.6)])

    forward = touch - elbow
    forward /= np.linalg.norm(forward)
    turn = -sign * np.radians(pose.inward)
    along = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ forward
    thumbwards = np.array([along[1], -along[0]]) * sign
    frame = np.stack([along, thumbwards])
    wrist = touch - length * (np.array(pose.touch) @ frame)

    def spot(joint: tuple[float, float]) -> Floats:
        offset: Floats = np.array(joint) @ frame
        return wrist + length * offset

    palm = wrist + length * (_PALM @ frame)
    shadow = spot((0.45, 0.0)) + np.array([sign * -0.06, 0.16]) * length
    canvas.mist(shadow, (0.62 * length, 0.5 * length), (20, 16, 16), 0.42)
    _draw_forearm(canvas, elbow, wrist, length, look)
    _draw_fingers(canvas, hand, pose, palm, spot, length, look.skin)


def _draw_forearm(canvas: Canvas, elbow: Floats, wrist: Floats, length: float, look: Look) -> None:
    axis = elbow - wrist
    reach = float(np.linalg.norm(axis))
    axis /= reach
    across = np.array([-axis[1], axis[0]])
    lit = 1.0 if across @ np.array([look.light.direction[0], -0.6]) > 0 else -1.0

    def band(start: float, end: float, growth: float, rgb: RGB) -> None:
        """A stretch of the arm from `start` to `end` pixels behind the wrist, rounded by three tones."""
        half = [growth * length * (0.15 + 0.16 * min(1.0, at / (2.6 * length))) for at in (start, end)]
        for low, high, factor in ((-1.0, 1.0, 0.72), (-0.72, 1.0, 0.88), (-0.4, 0.92, 1.0), (0.1, 0.7, 1.1)):
            corners = [
                wrist + axis * at + across * lit * side * width
                for at, width, side in (
                    (start, half[0], low),
                    (end, half[1], low),
                    (end, half[1], high),
                    (start, half[0], high),
                )
            ]
            canvas.fill(np.array(corners), scaled(rgb, factor))

    cuff = min(0.75 * length, 0.45 * reach)
    band(-0.08 * length, cuff + 4, 1.0, look.skin)
    canvas.mist(wrist + axis * cuff, (0.4 * length, 0.3 * length), (20, 14, 12), 0.5)
    band(cuff, reach, 1.34, look.sleeve)
    band(cuff, cuff + 0.14 * length, 1.42, scaled(look.sleeve, 1.16))


def _draw_fingers(
    canvas: Canvas, hand: Hand, pose: _Pose, palm: Floats, spot: Callable[[tuple[float, float]], Floats], length: float,
    skin: RGB,
) -> None:  # fmt: skip
    line, shine = scaled(mixed(skin, (120, 40, 20), 0.25), 0.62), scaled(skin, 1.1)
    rim = 0.018 * length

    def outlined_palm() -> None:
        centre = palm.mean(0)
        canvas.fill(centre + (palm - centre) * 1.07, line)

    def digit(joints: _Joints, radius: float) -> None:
        points = [spot(joint) for joint in joints]
        radii = np.linspace(radius, radius * 0.78, len(points)) * length
        for grow, rgb in ((rim, line), (0.0, skin)):
            for index in range(len(points) - 1):
                canvas.capsule(points[index], points[index + 1], radii[index] + grow, radii[index + 1] + grow, rgb)
        shift = np.array([0.0, -0.25 * radii[-1]])
        canvas.capsule(points[-2] + shift, points[-1] + shift, radii[-2] * 0.45, radii[-1] * 0.45, shine)
        if pose.nails:
            back = points[-1] - points[-2]
            tip = points[-1] + back / np.linalg.norm(back) * radii[-1] * 0.25
            canvas.disc(tip, radii[-1] * 0.55, mixed(skin, (255, 226, 220), 0.65))

    with canvas.named(f"{hand.side} hand"):
        outlined_palm()
        digit(pose.thumb, 0.078)
        for joints in pose.fingers:
            digit(joints, 0.066)
        # The palm again, without its outline, melts thumb and fingers into the back of the hand.
        centre = palm.mean(0)
        canvas.fill(centre + (palm - centre) * 0.97, skin)
        canvas.fill(centre + (palm - centre) * 0.55 + [0.0, -0.04 * length], scaled(skin, 1.05))
        for joints in pose.fingers:
            canvas.disc(spot(joints[0]), 0.045 * length, scaled(skin, 0.93))
