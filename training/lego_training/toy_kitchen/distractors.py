"""Painters of things that no action touches."""

import numpy as np

from lego_training.toy_kitchen.canvas import Canvas
from lego_training.toy_kitchen.geometry import Point
from lego_training.toy_kitchen.palette import RGB, scaled
from lego_training.toy_kitchen.scene import Thing


def _ball(canvas: Canvas, base: Point, radius: float, rgb: RGB) -> None:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 7)
    canvas.lathe(base, [(radius * float(np.cos(a)), radius * (1 + float(np.sin(a)))) for a in angle], rgb, segments=14)


def draw_distractor(canvas: Canvas, thing: Thing) -> None:
    """Paints a fruit bowl, toaster, jar, plant, plate or paper roll."""
    with canvas.named(thing.key):
        _PAINTERS[thing.kind](canvas, thing)


def _fruit_bowl(canvas: Canvas, thing: Thing) -> None:
    x, y, z = thing.position
    canvas.lathe((x, y, z), [(0.05, 0), (0.085, 0.03), (0.11, 0.075)], thing.rgb)
    canvas.fill(canvas.place(canvas.ring((x, y + 0.075, z), 0.11)), scaled(thing.rgb, 0.6))
    for dx, dz, rgb in ((-0.045, 0.035, (226, 168, 50)), (0.05, 0.03, (198, 60, 48)), (0.0, -0.03, (128, 172, 70))):
        _ball(canvas, (x + dx, y + 0.045, z + dz), 0.045, rgb)


def _toaster(canvas: Canvas, thing: Thing) -> None:
    x, y, z = thing.position
    canvas.box((x - 0.12, y + 0.005, z - 0.07), (x + 0.12, y + 0.14, z + 0.07), thing.rgb)
    for dz in (-0.025, 0.03):
        slot = [(x - 0.09, y + 0.141, z + dz - 0.012), (x + 0.09, y + 0.141, z + dz - 0.012)]
        slot += [(x + 0.09, y + 0.141, z + dz + 0.012), (x - 0.09, y + 0.141, z + dz + 0.012)]
        canvas.fill(canvas.place(slot), (44, 40, 40))


def _jar(canvas: Canvas, thing: Thing) -> None:
    x, y, z = thing.position
    canvas.lathe((x, y, z), [(0.055, 0), (0.058, 0.02), (0.058, 0.11), (0.048, 0.125)], thing.rgb)
    canvas.lathe((x, y, z), [(0.054, 0.125), (0.054, 0.15)], (120, 90, 66))
    canvas.fill(canvas.place(canvas.ring((x, y + 0.15, z), 0.054)), (150, 116, 86))


def _plant(canvas: Canvas, thing: Thing) -> None:
    x, y, z = thing.position
    canvas.lathe((x, y, z), [(0.045, 0), (0.06, 0.08)], (190, 106, 74))
    canvas.fill(canvas.place(canvas.ring((x, y + 0.08, z), 0.06)), (84, 58, 42))
    for dx, dy, dz in (
        (-0.07, 0.16, 0.03),
        (0.07, 0.17, 0.03),
        (0.0, 0.21, 0.03),
        (-0.04, 0.15, -0.03),
        (0.045, 0.14, -0.03),
    ):
        stem = canvas.place([(x, y + 0.08, z), (x + dx, y + dy, z + dz)])
        metre = canvas.metre_at(thing.position)
        canvas.capsule(stem[0], stem[1], 0.008 * metre, 0.028 * metre, scaled(thing.rgb, 0.8 + dy))


def _plate(canvas: Canvas, thing: Thing) -> None:
    x, y, z = thing.position
    canvas.fill(canvas.place(canvas.ring((x, y + 0.004, z), 0.10)), scaled(thing.rgb, 0.7))
    canvas.fill(canvas.place(canvas.ring((x, y + 0.016, z), 0.10)), canvas.shade(thing.rgb, (0, 1, 0)))
    canvas.fill(canvas.place(canvas.ring((x, y + 0.012, z), 0.066)), scaled(canvas.shade(thing.rgb, (0, 1, 0)), 0.9))


def _paper_roll(canvas: Canvas, thing: Thing) -> None:
    x, y, z = thing.position
    canvas.lathe((x, y, z), [(0.06, 0), (0.06, 0.2)], thing.rgb)
    canvas.fill(canvas.place(canvas.ring((x, y + 0.2, z), 0.06)), scaled(thing.rgb, 1.02))
    canvas.fill(canvas.place(canvas.ring((x, y + 0.201, z), 0.02)), (140, 112, 84))


_PAINTERS = {
    "fruit bowl": _fruit_bowl,
    "toaster": _toaster,
    "jar": _jar,
    "plant": _plant,
    "plate": _plate,
    "paper roll": _paper_roll,
}
