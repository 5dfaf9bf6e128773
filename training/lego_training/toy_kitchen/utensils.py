"""Painters of the things that hands move: cup, bottle, kettle, pan, board, vegetables, knife, cloth."""

import numpy as np

from lego_training.toy_kitchen import parts
from lego_training.toy_kitchen.canvas import Canvas
from lego_training.toy_kitchen.furniture import WATER
from lego_training.toy_kitchen.geometry import Floats, Point, rotation_about_z
from lego_training.toy_kitchen.palette import RGB, mixed, scaled
from lego_training.toy_kitchen.scene import Look, Thing

_WOOD: RGB = (196, 146, 92)
_STEEL: RGB = (206, 210, 216)
_FLESH: dict[str, RGB] = {"carrot": (248, 170, 84), "cucumber": (206, 232, 158), "tomato": (240, 110, 88)}


def draw_cup(canvas: Canvas, cup: Thing, look: Look) -> None:
    """Paints a mug with its handle at the facing side."""
    x, y, z = cup.position
    radius, height = parts.CUP_RADIUS, parts.CUP_HEIGHT
    with canvas.named(cup.key):
        bend = np.linspace(-np.pi / 2, np.pi / 2, 7)
        ear = [(x + cup.facing * (radius - 0.006 + 0.038 * np.cos(a)), y + 0.066 + 0.036 * np.sin(a), z) for a in bend]
        canvas.tube(ear, 0.012, cup.rgb)
        canvas.lathe((x, y, z), [(radius * 0.84, 0), (radius * 0.95, 0.03), (radius, height)], cup.rgb)
        canvas.fill(canvas.place(canvas.ring((x, y + height, z), radius)), scaled(cup.rgb, 1.15))
        canvas.fill(canvas.place(canvas.ring((x, y + height, z), radius * 0.87)), scaled(cup.rgb, 0.45))
        if cup.amount:
            canvas.fill(canvas.place(canvas.ring((x, y + height - 0.02, z), radius * 0.78)), WATER)


def draw_bottle(canvas: Canvas, bottle: Thing, look: Look) -> None:
    """Paints a bottle with a label, and its cap on the neck or in the air."""
    x, y, z = bottle.position
    with canvas.named(bottle.key):
        canvas.lathe(
            (x, y, z),
            [(0.050, 0), (0.053, 0.02), (0.053, 0.14), (0.04, 0.175), (0.024, 0.195), (0.023, 0.235)],
            bottle.rgb,
        )
        canvas.lathe((x, y, z), [(0.0535, 0.045), (0.0535, 0.115)], (240, 232, 210))
        mouth = canvas.ring((x, y + 0.235, z), 0.023)
        canvas.fill(canvas.place(mouth), scaled(bottle.rgb, 1.3))
        canvas.fill(canvas.place(canvas.ring((x, y + 0.236, z), 0.016)), (24, 26, 26))
        if not bottle.amount:
            draw_cap(canvas, bottle)


def draw_cap(canvas: Canvas, bottle: Thing) -> None:
    """Paints the bottle's cap where it is."""
    x, y, z = parts.bottle_cap(bottle)
    cap = (236, 70, 56) if bottle.colour != "red" else (250, 206, 70)
    canvas.lathe((x, y - 0.02, z), [(0.033, 0), (0.031, 0.04)], cap)
    canvas.fill(canvas.place(canvas.ring((x, y + 0.02, z), 0.031)), scaled(cap, 1.12))


def draw_kettle(canvas: Canvas, kettle: Thing, look: Look) -> None:
    """Paints a kettle with its handle at the facing side."""
    turn = parts.kettle_turn(kettle)

    def path(*points: tuple[float, float]) -> list[Point]:
        return [parts.kettle_part(kettle, np.array([px, py, 0.0])) for px, py in points]

    dark = scaled(kettle.rgb, 0.35) if sum(kettle.rgb) > 240 else (90, 90, 96)
    with canvas.named(kettle.key):
        canvas.tube(path((-0.07, 0.05), (-0.115, 0.085), (-0.155, 0.135)), 0.028, scaled(kettle.rgb, 0.92), 0.015)
        canvas.tube(path((0.06, 0.16), (0.115, 0.165), (0.128, 0.12), (0.12, 0.06), (0.085, 0.035)), 0.016, dark)
        canvas.lathe(
            kettle.position, [(0.088, 0), (0.096, 0.03), (0.092, 0.08), (0.07, 0.14), (0.05, 0.155)], kettle.rgb, turn
        )
        lid = parts.kettle_part(kettle, np.array([0.0, 0.155, 0.0]))
        canvas.face(canvas.ring(lid, 0.05, turn), scaled(kettle.rgb, 1.1), turn @ np.array([0.0, 1.0, 0.0]))
        canvas.tube(path((0, 0.16), (0, 0.178)), 0.018, dark)


def draw_pouring(canvas: Canvas, kettle: Thing, cup: Thing) -> None:
    """Paints the water that falls from the kettle into the cup, and its steam."""
    spout = parts.kettle_spout(kettle)
    x, y, z = cup.position
    start, end = canvas.place([spout])[0], canvas.place([(x, y + parts.CUP_HEIGHT - 0.02, z)])[0]
    metre = canvas.metre_at(cup.position)
    canvas.capsule(start, end, 0.017 * metre, 0.013 * metre, scaled(WATER, 0.9))
    canvas.capsule(start, end, 0.008 * metre, 0.006 * metre, (244, 250, 255))
    _steam(canvas, (x - kettle.facing * 0.04, y + 0.2, z), 0.5)


def _steam(canvas: Canvas, point: Point, strength: float) -> None:
    metre = canvas.metre_at(point)
    for rise, drift, size in ((0.0, 0.0, 0.055), (0.06, 0.015, 0.065), (0.12, -0.01, 0.075)):
        centre = canvas.place([(point[0] + drift, point[1] + rise, point[2])])[0]
        canvas.mist(centre, (size * metre, size * metre * 1.1), (244, 246, 250), strength * (1.0 - rise * 3))


def draw_pan(canvas: Canvas, pan: Thing, look: Look) -> None:
    """Paints a pan of soup with its spoon; stirring shows as a whirl and steam."""
    x, y, z = pan.position
    radius, height = parts.PAN_RADIUS, parts.PAN_HEIGHT
    with canvas.named(pan.key):
        lift = y + height - 0.012
        canvas.tube(
            [(x - pan.facing * 0.09, lift, z - 0.05), (x - pan.facing * 0.175, lift + 0.02, z - 0.14)],
            0.02,
            (52, 50, 52),
        )
        canvas.lathe((x, y, z), [(radius * 0.9, 0), (radius, height)], pan.rgb, segments=24)
        canvas.fill(canvas.place(canvas.ring((x, y + height, z), radius)), scaled(pan.rgb, 1.2))
        canvas.fill(canvas.place(canvas.ring((x, y + height, z), radius * 0.92)), scaled(pan.rgb, 0.5))
        canvas.fill(canvas.place(canvas.ring((x, y + height - 0.015, z), radius * 0.86)), look.soup)
        if pan.amount:
            angle = np.linspace(0, 4.2 * np.pi, 40)
            reach = np.linspace(0.2, 0.78, 40) * radius
            whirl = np.stack([x + reach * np.cos(angle), np.full(40, y + height - 0.012), z + reach * np.sin(angle)], 1)
            canvas.stroke(canvas.place(whirl), mixed(look.soup, (255, 250, 230), 0.55), 5)
        else:
            for dx, dz in ((-0.05, 0.03), (0.03, -0.04), (0.045, 0.045)):
                fleck = canvas.ring((x + dx, y + height - 0.012, z + dz), 0.014)
                canvas.fill(canvas.place(fleck), mixed(look.soup, (80, 140, 60), 0.6))
        bowl, end = parts.spoon(pan)
        canvas.tube([bowl, end], 0.013, _WOOD)
        if not pan.amount:
            canvas.tube([bowl, tuple(np.array(bowl) + 0.15 * (np.array(end) - bowl))], 0.026, scaled(_WOOD, 0.9), 0.012)
    if pan.amount:
        _steam(canvas, (x - pan.facing * 0.06, y + 0.09, z + 0.03), 0.55)


def draw_board(canvas: Canvas, board: Thing, look: Look) -> None:
    """Paints a chopping board."""
    x, _, z = board.position
    with canvas.named(board.key):
        canvas.box(
            (x - 0.158, 0.001, z - 0.16),
            (x + 0.158, parts.BOARD_HEIGHT, z + 0.16),
            mixed(board.rgb, (236, 214, 176), 0.45),
        )


def draw_vegetable(canvas: Canvas, vegetable: Thing, look: Look) -> None:
    """Paints a carrot, cucumber or tomato: whole, or with slices cut off at its facing side."""
    x, y, z = vegetable.position
    kind, rgb, towards = vegetable.kind, vegetable.rgb, vegetable.facing
    lying = rotation_about_z(-90.0 * towards)  # the profile's height runs along x towards the facing side
    with canvas.named(vegetable.key):
        if kind == "tomato":
            _draw_tomato(canvas, vegetable)
            return
        radius = 0.036
        length = 0.235
        start = x - towards * length / 2
        if kind == "carrot":
            thin, thick = 0.55, 1.0
            for spread in (-0.022, 0.0, 0.022):
                canvas.tube(
                    [(start, y + radius, z), (start - towards * 0.045, y + radius + 0.02, z + spread)],
                    0.012,
                    (70, 150, 60),
                )
        else:
            thin, thick = 0.9, 1.0
        whole = [
            (0.5 * radius, 0.0),
            (thick * radius, 0.02),
            (thick * radius, 0.07),
            (thin * radius, 0.2),
            (0.25 * radius, length),
        ]
        if not vegetable.amount:
            canvas.lathe((start, y + radius, z), whole, rgb, lying)
            return
        canvas.lathe((start, y + radius, z), [*whole[:3], (thick * radius * 0.97, 0.095)], rgb, lying)
        _slice(canvas, (start + towards * 0.095, y + radius, z), radius * 0.97, rgb, _FLESH[kind])
        for index in range(3):
            _slice_flat(canvas, _slice_place(vegetable, index), radius, rgb, _FLESH[kind])


def _draw_tomato(canvas: Canvas, tomato: Thing) -> None:
    x, y, z = tomato.position
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    radius = 0.07
    ball = [(radius * float(np.cos(a)), radius * 0.86 * (1.0 + float(np.sin(a)))) for a in angle]
    if not tomato.amount:
        canvas.lathe((x, y, z), ball, tomato.rgb)
        crown = canvas.place([(x, y + 1.72 * radius, z)])[0]
        metre = canvas.metre_at((x, y, z))
        for turn in np.linspace(0, 2 * np.pi, 5, endpoint=False):
            canvas.capsule(
                crown, crown + 0.034 * metre * np.array([np.cos(turn), 0.7 * np.sin(turn)]), 4.0, 1.5, (64, 132, 56)
            )
        return
    towards = tomato.facing
    centre = (x - towards * 0.055, y + 0.06, z)
    half = [(radius * float(np.cos(a)), radius * 0.9 * float(np.sin(a))) for a in np.linspace(-np.pi / 2, 0, 6)]
    canvas.lathe(centre, half, tomato.rgb, rotation_about_z(-78.0 * towards))
    _slice(canvas, centre, radius, tomato.rgb, _FLESH["tomato"], 78.0)
    for index in range(3):
        _slice_flat(canvas, _slice_place(tomato, index), 0.045, tomato.rgb, _FLESH["tomato"])


def _slice_place(vegetable: Thing, index: int) -> Point:
    """Slices lie in a row at the front of the board, where the hand with the knife does not hide them."""
    x, y, z = vegetable.position
    return x - vegetable.facing * (0.095 - 0.06 * index), y + 0.012, z - 0.125


def _slice(canvas: Canvas, centre: Point, radius: float, skin: RGB, flesh: RGB, tilt: float = 90.0) -> None:
    """A cut face standing across the x axis, drawn a little larger than life so that it is seen."""
    turn = rotation_about_z(tilt)
    canvas.fill(canvas.place(canvas.ring(centre, radius, turn)), scaled(skin, 0.9))
    canvas.fill(canvas.place(canvas.ring(centre, radius * 0.8, turn)), flesh)


def _slice_flat(canvas: Canvas, centre: Point, radius: float, skin: RGB, flesh: RGB) -> None:
    x, y, z = centre
    canvas.fill(canvas.place(canvas.ring((x, y - 0.012, z), radius)), scaled(skin, 0.6))
    canvas.fill(canvas.place(canvas.ring(centre, radius)), skin)
    canvas.fill(canvas.place(canvas.ring(centre, radius * 0.78)), flesh)


def draw_knife(canvas: Canvas, knife: Thing, look: Look) -> None:
    """Paints a knife lying along x, or held with its blade pointing away from the wearer."""
    x, y, z = knife.position
    with canvas.named(knife.key):
        if knife.held:
            f = knife.facing

            def along(share: float, drop: float = 0.0) -> Point:
                return x - f * 0.10 * share, y - 0.085 * share - drop, z + 0.18 * share

            blade: list[Point] = [along(0.2), along(1.0), along(1.12, 0.02), along(0.95, 0.045), along(0.22, 0.05)]
            handle = [along(-0.3), along(0.2)]
        else:
            f = knife.facing
            blade = [
                (x + f * 0.035, y, z + 0.022),
                (x - f * 0.11, y, z + 0.022),
                (x - f * 0.145, y, z - 0.01),
                (x + f * 0.035, y, z - 0.022),
            ]
            handle = [(x + f * 0.035, y + 0.008, z), (x + f * 0.14, y + 0.008, z)]
        placed: Floats = canvas.place(blade)
        canvas.fill(placed, _STEEL)
        canvas.stroke(placed[-3:] if knife.held else placed[2:], (150, 154, 162), 2)
        canvas.stroke(placed[:2], (250, 252, 255), 3)
        canvas.tube(handle, 0.019, knife.rgb)


def draw_cloth(canvas: Canvas, cloth: Thing, look: Look) -> None:
    """Paints a cloth with a spill behind it, or with the wiped wet streak in front of it."""
    x, y, z = cloth.position
    if cloth.amount:
        streak = [
            (x - 0.085, 0.001, z - 0.22),
            (x + 0.085, 0.001, z - 0.22),
            (x + 0.085, 0.001, z),
            (x - 0.085, 0.001, z),
        ]
        wet = scaled(look.worktop, 1.28) if sum(look.worktop) < 420 else scaled(look.worktop, 0.76)
        canvas.glaze(canvas.place(streak), wet, 0.85)
        shine = [(x - 0.05, 0.001, z - 0.21), (x - 0.02, 0.001, z - 0.21), (x - 0.02, 0.001, z), (x - 0.05, 0.001, z)]
        canvas.glaze(canvas.place(shine), (255, 255, 255), 0.5)
    else:
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        wobble = 1.0 + 0.16 * np.sin(3 * angle + 1.0) + 0.08 * np.cos(5 * angle)
        puddle = np.stack(
            [x + 0.10 * wobble * np.cos(angle), np.full(28, 0.001), z + 0.22 + 0.075 * wobble * np.sin(angle)], 1
        )
        canvas.fill(canvas.place(puddle), (112, 66, 40))
        gleam = canvas.ring((x - 0.03, 0.002, z + 0.235), 0.028)
        canvas.glaze(canvas.place(gleam), (220, 190, 160), 0.5)
    with canvas.named(cloth.key):
        corners = np.array(
            [(-0.105, -0.07), (0.0, -0.082), (0.105, -0.07), (0.112, 0.0), (0.1, 0.075), (0.0, 0.065), (-0.1, 0.078),
             (-0.11, 0.0)]
        )  # fmt: skip
        rim = np.stack([x + corners[:, 0], np.full(8, y + 0.004), z + corners[:, 1]], 1)
        thickness = np.array([0, 0.012, 0])
        canvas.fill(canvas.place(rim - thickness / 3), scaled(cloth.rgb, 0.6))
        canvas.face(rim + thickness, cloth.rgb, (0, 1, 0))
        for dz in (-0.045, 0.045):
            stripe = [
                (x - 0.1, y + 0.016, z + dz - 0.009),
                (x + 0.1, y + 0.016, z + dz - 0.009),
                (x + 0.1, y + 0.016, z + dz + 0.009),
                (x - 0.1, y + 0.016, z + dz + 0.009),
            ]
            canvas.fill(canvas.place(stripe), mixed(canvas.shade(cloth.rgb, (0, 1, 0)), (255, 255, 255), 0.65))
