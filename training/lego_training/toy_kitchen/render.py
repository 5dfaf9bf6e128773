"""Paints a scene with its hands into a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_training.toy_kitchen import furniture, parts, utensils
from lego_training.toy_kitchen.canvas import Box, Canvas, Picture
from lego_training.toy_kitchen.distractors import draw_distractor
from lego_training.toy_kitchen.geometry import Floats
from lego_training.toy_kitchen.hands import Hand, draw_hand
from lego_training.toy_kitchen.language import VEGETABLES
from lego_training.toy_kitchen.scene import DISTRACTORS, Look, Scene, Thing

_FRONTS = {"drawer": furniture.draw_drawer, "cupboard": furniture.draw_cupboard}
_FLAT = {"stove": furniture.draw_stove, "board": utensils.draw_board, "cloth": utensils.draw_cloth}
_STANDING = {
    "tap": furniture.draw_tap,
    "cup": utensils.draw_cup,
    "bottle": utensils.draw_bottle,
    "kettle": utensils.draw_kettle,
    "pan": utensils.draw_pan,
    "knife": utensils.draw_knife,
    **dict.fromkeys(VEGETABLES, utensils.draw_vegetable),
}
_SHADOW_RADIUS = {
    "tap": 0.05, "cup": 0.08, "bottle": 0.07, "kettle": 0.115, "carrot": 0.07, "cucumber": 0.07, "tomato": 0.08,
    "pan": 0.13, "knife": 0.03, "fruit bowl": 0.10, "toaster": 0.12, "jar": 0.075, "plant": 0.07, "plate": 0.11,
    "paper roll": 0.075, "board": 0.17, "stove": 0.0, "cloth": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Rendering:
    """A noise-free picture (size, size, 3) uint8 RGB and the boxes of things and hands, by name, in 0..1."""

    picture: Picture
    boxes: dict[str, Box]


def render(scene: Scene, hands: Sequence[Hand], size: int = 256) -> Rendering:
    """Paints the scene as the wearer sees it; hands are painted in the order given."""
    look = scene.look
    canvas = Canvas(scene.camera, look.light, size)
    furniture.draw_room(canvas, look)
    for thing in scene.things:
        if thing.kind in _FRONTS and thing.amount == 0:
            _FRONTS[thing.kind](canvas, thing, look)
    for thing in scene.things:
        if thing.kind in _FRONTS and thing.amount > 0:
            _FRONTS[thing.kind](canvas, thing, look)
    for thing in scene.things:
        if thing.kind == "tap":
            furniture.draw_sink(canvas, thing)
    on_top = [thing for thing in scene.things if thing.kind not in _FRONTS]
    canvas.darken([shadow for thing in on_top for shadow in _shadows(thing, look)], 0.012)
    for thing in on_top:
        if thing.kind in _FLAT:
            _FLAT[thing.kind](canvas, thing, look)
    standing = [thing for thing in on_top if thing.kind not in _FLAT]
    for thing in sorted(standing, key=lambda thing: (thing.held, -thing.position[2])):
        if thing.kind in DISTRACTORS:
            draw_distractor(canvas, thing)
            continue
        if thing.kind == "kettle" and thing.amount > 0:
            cup = next(cup for cup in scene.things if cup.kind == "cup" and cup.column == thing.column)
            utensils.draw_pouring(canvas, thing, cup)
        _STANDING[thing.kind](canvas, thing, look)
        if thing.kind == "bottle" and thing.amount > 0:
            utensils.draw_cap(canvas, thing)
    for hand in hands:
        draw_hand(canvas, hand, look)
    return Rendering(canvas.picture(exposure(look, size)), canvas.boxes)


def _shadows(thing: Thing, look: Look) -> list[tuple[Floats, float]]:
    x, y, z = thing.position
    radius = _SHADOW_RADIUS[thing.kind]
    if not radius:
        return []
    light = look.light.direction
    slope = np.array([-light[0], 0.0, -light[2]]) / light[1]
    count = 20
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    wide = 2.0 if thing.kind in ("carrot", "cucumber") else 1.0
    ground = np.stack([x + wide * radius * np.cos(angle), np.zeros(count), z + radius * np.sin(angle)], 1)
    lifted = max(0.0, y - parts.BOARD_HEIGHT)
    strength = 0.42 if lifted == 0 else 0.22
    ground += slope * lifted
    cast = ground + slope * 0.07
    return [(ground, strength), (cast, strength * 0.7)]


@lru_cache(maxsize=4)  # both frames of a pair, and all of a clip, share theirs
def exposure(look: Look, size: int) -> NDArray[np.float32]:
    """Light falling over the picture: level, warmth, gradient, vignette and faint mottling, (size, size, 3)."""
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    across, down = np.meshgrid(axis, axis)
    field = 1.0 + look.gradient[0] * across - look.gradient[1] * down - 0.07 * (across**2 + down**2)
    coarse = np.random.default_rng(look.mottling).normal(0, 0.018, (7, 7)).astype(np.float32)
    field = field + np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
    return np.asarray(field[..., None] * np.array(look.light.gain), np.float32)


def sense(picture: Picture, look: Look, rng: np.random.Generator) -> Picture:
    """What the sensor makes of a noise-free picture: slight motion blur on some scenes, mild noise."""
    seen = picture
    length, angle = look.blur
    if length > 0:
        seen = motion_blurred(seen, length, angle)
    noise = rng.standard_normal(seen.shape, dtype=np.float32) * look.noise
    return np.clip(seen + noise + 0.5, 0, 255).astype(np.uint8)


def motion_blurred(picture: Picture, length: float, angle: float) -> Picture:
    """Blurs along a line of `length` pixels at `angle` radians."""
    reach = max(1, int(np.ceil(length / 2)))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step in np.linspace(-length / 2, length / 2, 4 * reach + 1):
        kernel[round(reach + step * np.sin(angle)), round(reach + step * np.cos(angle))] += 1.0
    return np.asarray(cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)


def clipped(box: Box) -> Box:
    """A box cut to the picture."""
    x1, y1, x2, y2 = (min(1.0, max(0.0, edge)) for edge in box)
    return x1, y1, x2, y2
