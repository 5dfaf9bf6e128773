"""Painters of the fixed kitchen: room, unit fronts, sink with tap, stove."""

import cv2
import numpy as np

from lego_training.toy_kitchen import parts
from lego_training.toy_kitchen.canvas import Canvas
from lego_training.toy_kitchen.geometry import Floats, Point
from lego_training.toy_kitchen.palette import RGB, mixed, scaled
from lego_training.toy_kitchen.scene import WORKTOP_DEPTH, Look, Thing

WATER: RGB = (176, 216, 240)
_FLOOR_Y = -0.80
_REACH = 1.6  # how far the room goes to each side, metres


def draw_room(canvas: Canvas, look: Look) -> None:
    """Paints wall, floor, unit carcass and worktop."""
    wide, back = _REACH, WORKTOP_DEPTH
    canvas.image[:] = canvas.shade(look.wall, (0, 0, -1))
    canvas.face([(-wide, -0.1, back), (wide, -0.1, back), (wide, 0.23, back), (-wide, 0.23, back)], look.tile)
    grout = mixed(canvas.shade(look.tile, (0, 0, -1)), (90, 90, 90), 0.16)
    for x in np.arange(-wide, wide, 0.23):
        canvas.stroke(canvas.place([(x, 0, back), (x, 0.23, back)]), grout, 2)
    for y in (0.115, 0.23):
        canvas.stroke(canvas.place([(-wide, y, back), (wide, y, back)]), grout, 2)

    canvas.face(
        [(-wide, _FLOOR_Y, -0.6), (wide, _FLOOR_Y, -0.6), (wide, _FLOOR_Y, 0.1), (-wide, _FLOOR_Y, 0.1)], look.floor
    )
    boards = scaled(canvas.shade(look.floor, (0, 1, 0)), 0.9)
    for x in np.arange(-wide, wide, 0.2):
        canvas.stroke(canvas.place([(x, _FLOOR_Y, -0.6), (x, _FLOOR_Y, 0.1)]), boards, 2)
    canvas.face(
        [(-wide, _FLOOR_Y, 0.05), (wide, _FLOOR_Y, 0.05), (wide, -0.72, 0.05), (-wide, -0.72, 0.05)], (40, 38, 38)
    )
    carcass = scaled(look.unit, 0.62)
    canvas.face([(-wide, -0.73, 0), (wide, -0.73, 0), (wide, 0, 0), (-wide, 0, 0)], carcass)
    for x in (-0.64, 0.64):
        _panel(canvas, x, -0.70, -0.065, look.unit, look)

    top = look.worktop
    canvas.face([(-wide, 0, -0.02), (wide, 0, -0.02), (wide, 0, back), (-wide, 0, back)], top)
    if look.wooden:
        seam = scaled(canvas.shade(top, (0, 1, 0)), 0.93)
        for z in (0.13, 0.28, 0.43):
            canvas.stroke(canvas.place([(-wide, 0, z), (wide, 0, z)]), seam, 2)
    canvas.face([(-wide, -0.045, -0.02), (wide, -0.045, -0.02), (wide, 0, -0.02), (-wide, 0, -0.02)], scaled(top, 0.86))
    edge = scaled(canvas.shade(top, (0, 1, 0)), 1.1)
    canvas.stroke(canvas.place([(-wide, 0, -0.02), (wide, 0, -0.02)]), edge, 2)
    strips: list[tuple[Floats, float]] = [
        (np.array([(-wide, -0.05, 0.0), (wide, -0.05, 0.0), (wide, -0.10, 0.0), (-wide, -0.10, 0.0)]), 0.30),
        (np.array([(-wide, 0, back - 0.03), (wide, 0, back - 0.03), (wide, 0.02, back), (-wide, 0.02, back)]), 0.22),
        (
            np.array([(-wide, _FLOOR_Y, 0), (wide, _FLOOR_Y, 0), (wide, _FLOOR_Y, -0.12), (-wide, _FLOOR_Y, -0.12)]),
            0.35,
        ),
    ]
    canvas.darken(strips, 0.016)


def _panel(canvas: Canvas, x: float, bottom: float, top: float, rgb: RGB, look: Look) -> None:
    half = parts.UNIT_HALF_WIDTH
    canvas.box((x - half, bottom, -0.02), (x + half, top, 0.0), rgb)
    _inset(
        canvas,
        [(x - half, bottom, -0.021), (x + half, bottom, -0.021), (x + half, top, -0.021), (x - half, top, -0.021)],
        rgb,
    )


def _inset(canvas: Canvas, corners: list[Point], rgb: RGB) -> None:
    """Draws the recessed field of a panel inside its four corners (bottom left first, anticlockwise)."""
    outer = np.array(corners)
    middle = outer.mean(0)
    lengths = np.linalg.norm(outer[1] - outer[0]), np.linalg.norm(outer[3] - outer[0])
    along, up = (outer[1] - outer[0]) / lengths[0], (outer[3] - outer[0]) / lengths[1]
    border = 0.035
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    field = np.array(
        [middle + a * (lengths[0] / 2 - border) * along + b * (lengths[1] / 2 - border) * up for a, b in signs]
    )
    canvas.face(field, scaled(rgb, 0.93))
    placed = canvas.place(field)
    shaded = canvas.shade(rgb, (0, 0, -1))
    canvas.stroke(placed[[1, 0, 3]], scaled(shaded, 0.8), 2)
    canvas.stroke(placed[[1, 2, 3]], scaled(shaded, 1.1), 2)


def draw_drawer(canvas: Canvas, drawer: Thing, look: Look) -> None:
    """Paints a drawer, with its inside and contents where it is pulled out, and the fixed panel below it."""
    x, y, _ = drawer.position
    half, low, high = parts.UNIT_HALF_WIDTH, y - parts.DRAWER_HALF_HEIGHT, y + parts.DRAWER_HALF_HEIGHT
    _panel(canvas, x, -0.70, low - 0.02, drawer.rgb, look)
    front = parts.drawer_front(drawer)
    wood = (206, 176, 136)
    with canvas.named(drawer.key):
        if drawer.amount > 0:
            canvas.face(
                [(x - half, low, 0), (x + half, low, 0), (x + half, high, 0), (x - half, high, 0)], (34, 30, 28)
            )
            inner, base, rim = half - 0.012, low + 0.02, high - 0.02
            canvas.face(
                [(x - inner, base, 0), (x + inner, base, 0), (x + inner, base, front), (x - inner, base, front)], wood
            )
            for side in (-1, 1):
                wall = x + side * inner
                canvas.face(
                    [(wall, base, 0), (wall, base, front), (wall, rim, front), (wall, rim, 0)], scaled(wood, 0.8)
                )
                canvas.box(
                    (min(wall, wall - side * 0.012), rim - 0.01, front), (max(wall, wall - side * 0.012), rim, 0), wood
                )
            canvas.glaze(
                canvas.place(
                    [(x - inner, base, 0), (x + inner, base, 0), (x + inner, base, -0.05), (x - inner, base, -0.05)]
                ),
                (20, 16, 14),
                0.5,
            )
            for offset, shade in (
                (-0.08, (200, 204, 210)),
                (-0.03, (178, 182, 190)),
                (0.03, (200, 204, 210)),
                (0.085, (190, 60, 50)),
            ):
                canvas.tube([(x + offset, base + 0.01, -0.03), (x + offset, base + 0.01, front + 0.05)], 0.013, shade)
        canvas.box((x - half, low, front), (x + half, high, front + 0.02), drawer.rgb)
        near = front - 0.001
        _inset(
            canvas,
            [(x - half, low, near), (x + half, low, near), (x + half, high, near), (x - half, high, near)],
            drawer.rgb,
        )
        hx, hy, hz = parts.drawer_handle(drawer)
        for side in (-1, 1):
            canvas.tube([(hx + side * 0.06, hy, front), (hx + side * 0.06, hy, hz)], 0.010, scaled(look.metal, 0.7))
        canvas.tube([(hx - 0.078, hy, hz), (hx + 0.078, hy, hz)], 0.014, look.metal)


def draw_cupboard(canvas: Canvas, cupboard: Thing, look: Look) -> None:
    """Paints a cupboard, with its shelves and crockery where the door is open."""
    x = cupboard.position[0]
    half, low, high = parts.UNIT_HALF_WIDTH, parts.DOOR_BOTTOM, parts.DOOR_TOP
    with canvas.named(cupboard.key):
        if cupboard.amount > 0:
            _cupboard_inside(canvas, x, half, low, high)
        width = 2 * half
        corners = [
            parts.door_point(cupboard, along, height)
            for along, height in ((0, low), (width, low), (width, high), (0, high))
        ]
        outer = [
            parts.door_point(cupboard, along, height, 0.02)
            for along, height in ((0, low), (width, low), (width, high), (0, high))
        ]
        # The slab's two broad faces and its free edge; the nearer broad face is painted last.
        across = np.cross(np.subtract(outer[1], outer[0]), np.subtract(outer[3], outer[0]))
        outside_seen = (
            float(np.dot(across, np.subtract(outer[0], corners[0])))
            * float(np.dot(across, np.subtract(canvas.camera.position, outer[0])))
            > 0
        )
        canvas.face([corners[1], outer[1], outer[2], corners[2]], scaled(cupboard.rgb, 0.8))
        canvas.face([corners[3], corners[2], outer[2], outer[3]], scaled(cupboard.rgb, 1.05), (0, 1, 0))
        if outside_seen:
            canvas.face(outer, cupboard.rgb)
            _inset(canvas, outer, cupboard.rgb)
            foot, grip = -0.28, -0.11
            bar = [parts.door_point(cupboard, 0.27, height, 0.05) for height in (foot, grip)]
            for height in (foot + 0.02, grip - 0.02):
                posts = [parts.door_point(cupboard, 0.27, height, out) for out in (0.02, 0.05)]
                canvas.tube(posts, 0.010, scaled(look.metal, 0.7))
            canvas.tube(bar, 0.014, look.metal)
        else:
            canvas.face(corners, scaled(mixed(cupboard.rgb, (206, 186, 156), 0.5), 0.95))
            _inset(canvas, corners, scaled(mixed(cupboard.rgb, (206, 186, 156), 0.5), 0.9))


def _cupboard_inside(canvas: Canvas, x: float, half: float, low: float, high: float) -> None:
    opening = canvas.place([(x - half, low, 0), (x + half, low, 0), (x + half, high, 0), (x - half, high, 0)])
    canvas.fill(opening, (58, 46, 38))

    def inside(corners: list[Point], rgb: RGB) -> None:
        placed = canvas.place(corners).astype(np.float32)
        area, shared = cv2.intersectConvexConvex(cv2.convexHull(placed), cv2.convexHull(opening.astype(np.float32)))
        if area > 4:
            canvas.fill(shared[:, 0].astype(np.float64), rgb)

    for height in (low + 0.02, -0.38):
        for side in (-1, 1):
            wall = x + side * half
            inside([(wall, height, 0), (wall, height, 0.4), (wall, high, 0.4), (wall, high, 0)], (96, 76, 60))
        inside(
            [(x - half, height, 0), (x + half, height, 0), (x + half, height, 0.4), (x - half, height, 0.4)],
            (176, 146, 112),
        )
        inside(
            [(x - half, height - 0.02, 0), (x + half, height - 0.02, 0), (x + half, height, 0), (x - half, height, 0)],
            (214, 186, 148),
        )
        for offset, radius, rgb in ((-0.07, 0.055, (226, 226, 222)), (0.075, 0.045, (196, 120, 70))):
            disc = canvas.ring((x + offset, height + 0.03, 0.075), radius)
            canvas.fill(canvas.place(disc - [0, 0.028, 0]), scaled(rgb, 0.6))
            canvas.fill(canvas.place(disc), rgb)
            canvas.fill(canvas.place(canvas.ring((x + offset, height + 0.03, 0.075), radius * 0.7)), scaled(rgb, 0.8))


def draw_sink(canvas: Canvas, tap: Thing) -> None:
    """Paints the basin below a tap."""
    x = tap.position[0] - tap.facing * 0.04
    steel = (176, 182, 188)
    left, right, near, far, bottom = x - 0.125, x + 0.125, 0.10, 0.43, -0.13
    rim = [
        (left - 0.02, 0, near - 0.02),
        (right + 0.02, 0, near - 0.02),
        (right + 0.02, 0, far + 0.02),
        (left - 0.02, 0, far + 0.02),
    ]
    canvas.face(rim, scaled(steel, 1.18))
    opening = [(left, 0, near), (right, 0, near), (right, 0, far), (left, 0, far)]
    canvas.face(opening, scaled(steel, 0.55))
    canvas.face([(left, bottom, far), (right, bottom, far), (right, 0, far), (left, 0, far)], scaled(steel, 0.72))
    for side in (left, right):
        corners = canvas.place([(side, bottom, near), (side, bottom, far), (side, 0, far), (side, 0, near)])
        _fill_within(canvas, corners, canvas.place(opening), scaled(steel, 0.62 if side == left else 0.8))
    floor = canvas.place([(left, bottom, near), (right, bottom, near), (right, bottom, far), (left, bottom, far)])
    _fill_within(canvas, floor, canvas.place(opening), scaled(steel, 0.86))
    drain = canvas.place(canvas.ring((x, bottom, 0.30), 0.028))
    canvas.fill(drain, (60, 62, 66))


def _fill_within(canvas: Canvas, shape: Floats, bounds: Floats, rgb: RGB) -> None:
    area, shared = cv2.intersectConvexConvex(
        cv2.convexHull(shape.astype(np.float32)), cv2.convexHull(bounds.astype(np.float32))
    )
    if area > 4:
        canvas.fill(shared[:, 0].astype(np.float64), rgb)


def draw_tap(canvas: Canvas, tap: Thing, look: Look) -> None:
    """Paints the tap, its lever, and the running water."""
    x, y, z = tap.position
    spout = parts.tap_spout(tap)
    if tap.state == "on":
        foot = (spout[0], -0.13, spout[2] - 0.01)
        centre = canvas.place([foot])[0]
        metre = canvas.metre_at(foot)
        canvas.mist(centre, (metre * 0.12, metre * 0.06), (240, 248, 252), 0.85)
        top = canvas.place([spout])[0]
        wide = 0.021 * metre
        canvas.capsule(top, centre, wide, wide * 1.15, scaled(WATER, 0.86))
        canvas.capsule(top, centre, wide * 0.62, wide * 0.7, WATER)
        canvas.capsule(top - [wide * 0.2, 0], centre - [wide * 0.2, 0], wide * 0.25, wide * 0.25, (246, 252, 255))
    with canvas.named(tap.key):
        canvas.lathe((x, y, z), [(0.045, 0), (0.045, 0.015), (0.03, 0.03)], tap.rgb)
        bend = np.linspace(0, np.pi, 9)
        share = (1.0 - np.cos(bend)) / 2  # of the way from the post to the spout
        arch = [
            (x + along * (spout[0] - x), 0.165 + 0.085 * np.sin(angle), z + along * (spout[2] - z))
            for along, angle in zip(share, bend, strict=True)
        ]
        canvas.tube([(x, 0.02, z), *arch, spout], 0.025, tap.rgb)
        lever = parts.tap_lever(tap)
        canvas.tube([(x, 0.15, z - 0.01), (x, 0.23, z)], 0.03, tap.rgb)
        canvas.tube([(x, 0.215, z), lever], 0.016, scaled(tap.rgb, 1.08), 0.024)


def draw_stove(canvas: Canvas, stove: Thing, look: Look) -> None:
    """Paints the hob plate with one burner, its knob, and the heat where it is on."""
    x, _, z = stove.position
    burner = (x, 0.014, z + parts.BURNER_OFFSET)
    with canvas.named(stove.key):
        canvas.box((x - 0.155, 0, z - 0.24), (x + 0.155, 0.013, z + 0.22), stove.rgb)
        plate = scaled(stove.rgb, 0.7) if sum(stove.rgb) > 300 else scaled(stove.rgb, 1.5)
        centre = canvas.place([burner])[0]
        metre = canvas.metre_at(burner)
        on = stove.state == "on"
        canvas.face(canvas.ring(burner, 0.128), plate)
        if on and look.flame == "red":
            canvas.mist(centre, (0.24 * metre, 0.19 * metre), (255, 90, 40), 0.75)
        elif on:
            canvas.mist(centre, (0.22 * metre, 0.17 * metre), (60, 120, 255), 0.6)
        coils = (0.112, 0.088, 0.064, 0.040, 0.016)
        for index, radius in enumerate(coils):
            hot = ((255, 84, 36), (226, 48, 24))[index % 2]
            cold = ((38, 38, 42), (74, 74, 80))[index % 2]
            canvas.fill(canvas.place(canvas.ring(burner, radius)), hot if on and look.flame == "red" else cold)
        if on and look.flame == "blue":
            for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
                foot = canvas.place([(x + 0.075 * np.cos(angle), 0.02, burner[2] + 0.075 * np.sin(angle))])[0]
                tip = canvas.place([(x + 0.10 * np.cos(angle), 0.08, burner[2] + 0.10 * np.sin(angle))])[0]
                canvas.capsule(foot, tip, 0.021 * metre, 0.004 * metre, (50, 110, 250))
                canvas.capsule(foot, (foot + tip) / 2, 0.011 * metre, 0.003 * metre, (170, 220, 255))
        knob = (x, 0.013, z + parts.KNOB_OFFSET)
        body = (226, 226, 228) if sum(stove.rgb) < 500 else (60, 60, 66)
        canvas.lathe(knob, [(0.046, 0), (0.042, 0.034)], scaled(body, 0.85))
        top = parts.stove_knob(stove)
        canvas.fill(canvas.place(canvas.ring(top, 0.042)), body)
        turn = np.radians(-55.0 if on else 90.0)
        pointer = np.array([np.cos(turn), 0.0, np.sin(turn)])
        line = canvas.place([np.array(top) - 0.012 * pointer, np.array(top) + 0.038 * pointer])
        canvas.capsule(line[0], line[1], 0.009 * metre, 0.009 * metre, (220, 50, 40))
        lamp = canvas.place([(x + 0.10, 0.014, z + parts.KNOB_OFFSET)])[0]
        canvas.disc(lamp, 0.014 * metre, (255, 70, 50) if on else (90, 40, 36))
