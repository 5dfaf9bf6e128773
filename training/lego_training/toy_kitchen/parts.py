"""Where the parts of things are: what the hand takes hold of, shared by the painters and the actions."""

from dataclasses import replace

import numpy as np

from lego_training.toy_kitchen.geometry import Floats, Point, rotation_about_z
from lego_training.toy_kitchen.scene import Thing

UNIT_HALF_WIDTH = 0.148
DRAWER_HALF_HEIGHT = 0.115
DRAWER_TRAVEL = 0.17
DOOR_TOP, DOOR_BOTTOM = -0.065, -0.70
DOOR_TURN = 50.0
BOARD_HEIGHT = 0.02
PAN_RADIUS, PAN_HEIGHT = 0.115, 0.06
CUP_RADIUS, CUP_HEIGHT = 0.066, 0.125
BOTTLE_HEIGHT = 0.245
KETTLE_TILT = 42.0
KNOB_OFFSET = -0.165
BURNER_OFFSET = 0.05
_SPOUT_TIP = np.array([-0.155, 0.135, 0.0])
_KETTLE_GRIP = np.array([0.125, 0.125, 0.0])


def _point(values: Floats) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def drawer_front(drawer: Thing) -> float:
    """World z of the drawer's front face."""
    return drawer.position[2] - DRAWER_TRAVEL * drawer.amount - 0.02


def drawer_handle(drawer: Thing) -> Point:
    """Middle of the bar handle."""
    return drawer.position[0], drawer.position[1] + 0.03, drawer_front(drawer) - 0.03


def drawer_face(drawer: Thing) -> Point:
    """Where a palm pushes the drawer."""
    return drawer.position[0] + 0.02, drawer.position[1] + 0.06, drawer_front(drawer)


def door_point(cupboard: Thing, along: float, height: float, out: float = 0.0) -> Point:
    """Point on the door, `along` metres from its hinge, at a world height, `out` metres off its outer face."""
    turn = np.radians(DOOR_TURN * cupboard.amount)
    hinge_x = cupboard.position[0] + cupboard.facing * UNIT_HALF_WIDTH
    x = hinge_x - cupboard.facing * (along * np.cos(turn) - out * np.sin(turn))
    z = -along * np.sin(turn) - out * np.cos(turn)
    return float(x), height, float(z)


def door_handle(cupboard: Thing) -> Point:
    """Middle of the upright bar handle."""
    return door_point(cupboard, 0.27, -0.175, 0.03)


def tap_spout(tap: Thing) -> Point:
    """Mouth of the spout."""
    x, y, z = tap.position
    return x - tap.facing * 0.11, y + 0.165, z - 0.17


def tap_lever(tap: Thing) -> Point:
    """Free end of the lever: out to the side when off, up when on."""
    x, y, z = tap.position
    return (
        (x + tap.facing * 0.05, y + 0.33, z - 0.01)
        if tap.state == "on"
        else (x + tap.facing * 0.10, y + 0.21, z - 0.05)
    )


def stove_knob(stove: Thing) -> Point:
    """Top of the knob."""
    x, y, z = stove.position
    return x, y + 0.045, z + KNOB_OFFSET


def bottle_cap(bottle: Thing) -> Point:
    """Middle of the cap: on the neck, or lifted off to the side of the hand."""
    x, y, z = bottle.position
    return (
        (x + bottle.facing * 0.05, y + BOTTLE_HEIGHT + 0.06, z - 0.04) if bottle.amount else (x, y + BOTTLE_HEIGHT, z)
    )


def kettle_turn(kettle: Thing) -> Floats:
    """Rotation matrix (3, 3) of the kettle; it tips towards its spout."""
    return rotation_about_z(kettle.facing * KETTLE_TILT * kettle.amount)


def kettle_part(kettle: Thing, local: Floats) -> Point:
    """World point of a kettle point given for a kettle whose handle is at +x."""
    mirrored = np.asarray(local, dtype=np.float64) * [kettle.facing, 1.0, 1.0]
    return _point(np.array(kettle.position) + kettle_turn(kettle) @ mirrored)


def kettle_spout(kettle: Thing) -> Point:
    """Tip of the spout."""
    return kettle_part(kettle, _SPOUT_TIP)


def kettle_handle(kettle: Thing) -> Point:
    """Where the hand holds the handle."""
    return kettle_part(kettle, _KETTLE_GRIP)


def kettle_over(kettle: Thing, cup: Thing) -> Thing:
    """The kettle tilted with its spout above the cup."""
    tilted = replace(kettle, amount=1.0, held=True)
    mouth = np.add(cup.position, (kettle.facing * 0.012, CUP_HEIGHT + 0.075, 0.02))
    return replace(tilted, position=_point(mouth + kettle.position - np.array(kettle_spout(tilted))))


def cup_side(cup: Thing, hand: int) -> Point:
    """Where a hand that comes from the side `hand` (-1 left, 1 right) holds the cup."""
    x, y, z = cup.position
    return x + hand * 0.045, y + 0.055, z - 0.05


def knife_grip(knife: Thing) -> Point:
    """Middle of the knife's handle: lying along x, or held with its blade away from the wearer."""
    x, y, z = knife.position
    return (x, y, z) if knife.held else (x + knife.facing * 0.085, y + 0.01, z)


def spoon(pan: Thing) -> tuple[Point, Point]:
    """Bowl end and handle end of the spoon: leaning on the rim, or upright in the hand."""
    x, y, z = pan.position
    if pan.amount:
        return (x - pan.facing * 0.03, y + 0.035, z + 0.01), (x + pan.facing * 0.075, y + 0.235, z - 0.09)
    return (x - pan.facing * 0.01, y + 0.035, z), (x + pan.facing * 0.16, y + 0.13, z - 0.13)
