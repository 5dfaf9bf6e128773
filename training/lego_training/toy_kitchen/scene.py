"""Scenes of the toy kitchen: which things stand where, and how everything looks."""

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final, Literal

import numpy as np

from lego_training.toy_kitchen.canvas import Light
from lego_training.toy_kitchen.geometry import Camera, Point
from lego_training.toy_kitchen.language import SIDES, VEGETABLES, Action
from lego_training.toy_kitchen.palette import (
    COLOURS,
    COLOURS_OF_KIND,
    FLOORS,
    RGB,
    SKINS,
    SLEEVES,
    SOUPS,
    WALLS,
    WORKTOPS,
    distance,
)

Split = Literal["train", "val"]

COLUMN_X: Final = (-0.32, 0.0, 0.32)
WORKTOP_DEPTH: Final = 0.60
VAL_SHARE: Final = 8  # one composition in this many belongs to val

# What a column of the worktop may hold, and the kinds of action objects in it.
MODULES: Final[dict[str, tuple[str, ...]]] = {
    "sink": ("tap",),
    "stove": ("stove",),
    "stove with pan": ("stove", "pan"),
    "board with carrot": ("board", "carrot", "knife"),
    "board with cucumber": ("board", "cucumber", "knife"),
    "board with tomato": ("board", "tomato", "knife"),
    "cloth": ("cloth",),
    "cup": ("cup",),
    "bottle": ("bottle",),
    "kettle and cup": ("kettle", "cup"),
    "things": (),
}
DISTRACTORS: Final = ("fruit bowl", "toaster", "jar", "plant", "plate", "paper roll")

# How often a scene holds more than one instance of the acted kind.
_SEVERAL: Final[dict[str, float]] = {
    "drawer": 0.7, "cupboard": 0.7, "cup": 0.65, "bottle": 0.6, "stove": 0.3, "pan": 0.3, "tap": 0.25, "kettle": 0.25,
    "cloth": 0.25, "vegetable": 0.35,
}  # fmt: skip


@dataclass(frozen=True)
class Composition:
    """Which modules and unit fronts stand in the left, middle and right columns."""

    modules: tuple[str, str, str]
    fronts: tuple[str, str, str]

    @property
    def split(self) -> Split:
        """The split this composition belongs to, by its hash, so that no val composition is ever trained on."""
        digest = blake2b("|".join((*self.modules, *self.fronts)).encode(), digest_size=4).digest()
        return "val" if int.from_bytes(digest, "big") % VAL_SHARE == 0 else "train"


@dataclass(frozen=True)
class Thing:
    """One object.

    Attributes:
        kind: Noun, such as "cup".
        colour: Colour name, or "" where none is said.
        rgb: Colour before shading.
        column: 0, 1, 2 for the columns from left to right, -1 for decoration beside or behind them.
        position: World position of its base, metres.
        facing: -1 or 1, the x direction of its handle, hinge or lever.
        state: Word for captions, such as "open"; "" for none.
        amount: How far its state has gone, 0..1: drawer or door opened, kettle tilted, vegetable cut, spoon stirring,
            cap taken off, counter wiped.
        held: Whether a hand holds it now; held things are drawn last.
    """

    kind: str
    colour: str
    rgb: RGB
    column: int
    position: Point
    facing: int = 1
    state: str = ""
    amount: float = 0.0
    held: bool = False

    @property
    def key(self) -> str:
        """Name of this thing within one rendering."""
        return f"{self.kind} {self.column} {self.position[0]:+.2f}"


@dataclass(frozen=True)
class Look:
    """Materials and light of a scene; they never carry meaning."""

    wall: RGB
    tile: RGB
    worktop: RGB
    wooden: bool
    unit: RGB
    floor: RGB
    metal: RGB
    skin: RGB
    sleeve: RGB
    soup: RGB
    flame: str
    light: Light
    gradient: tuple[float, float]
    mottling: int
    noise: float
    blur: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """Everything but the hands."""

    camera: Camera
    look: Look
    things: tuple[Thing, ...]


def jittered(rng: np.random.Generator, rgb: RGB, spread: float = 8.0) -> RGB:
    """A colour close to `rgb`."""
    red, green, blue = (int(np.clip(channel + rng.normal(0, spread), 8, 247)) for channel in rgb)
    return red, green, blue


def compose(rng: np.random.Generator, action: Action, split: Split) -> tuple[Composition, int, str]:
    """Draws a composition of the split that allows the action.

    Returns:
        The composition, the column of the acted object, and its noun (the vegetable's name for cutting).
    """
    noun = str(rng.choice(VEGETABLES)) if action.acted == "vegetable" else action.acted
    while True:
        column = int(rng.integers(3))
        alike = [column]
        if rng.random() < _SEVERAL[action.acted]:
            others = [other for other in range(3) if other != column]
            alike += others if rng.random() < 0.25 else [int(rng.choice(others))]
        on_front = noun in ("drawer", "cupboard")
        fronts = _fronts(rng, noun if on_front else "", alike)
        modules = _modules(rng, "" if on_front else noun, alike, column, action)
        composition = Composition(modules, fronts)
        if composition.split == split:
            return composition, column, noun


def _fronts(rng: np.random.Generator, kind: str, alike: list[int]) -> tuple[str, str, str]:
    other = {"drawer": "cupboard", "cupboard": "drawer"}.get(kind, "")
    left, middle, right = (
        (kind if column in alike else other) if kind else str(rng.choice(("drawer", "cupboard"))) for column in range(3)
    )
    return left, middle, right


def _modules(
    rng: np.random.Generator, kind: str, alike: list[int], target: int, action: Action
) -> tuple[str, str, str]:
    chosen: list[str] = []
    for column in range(3):
        if kind and column in alike:
            options = [name for name, kinds in MODULES.items() if kind in kinds]
            if column == target and kind in ("stove", "cup"):
                options = [kind]  # a bare burner and a cup without a kettle behind it show the action best
        else:
            # One sink and one stove are enough unless the action asks for more.
            options = [
                name
                for name, kinds in MODULES.items()
                if kind not in kinds and not (kinds and kinds[0] in ("tap", "stove", "kettle") and name in chosen)
            ]
        chosen.append(str(rng.choice(options)))
    left, middle, right = chosen
    return left, middle, right


def draw_look(rng: np.random.Generator) -> Look:
    """Draws materials, light, skin and sensor."""
    worktop = WORKTOPS[int(rng.integers(len(WORKTOPS)))]
    wall = jittered(rng, WALLS[int(rng.integers(len(WALLS)))], 5)
    tile = jittered(rng, WALLS[int(rng.integers(len(WALLS)))], 5)
    unit_name = str(rng.choice(COLOURS_OF_KIND["drawer"], p=(0.3, 0.16, 0.16, 0.12, 0.2, 0.06)))
    direction = np.array([rng.uniform(-0.55, 0.55), 0.85, rng.uniform(-0.6, -0.35)])
    direction /= np.linalg.norm(direction)
    level, warmth = rng.uniform(0.96, 1.14), rng.uniform(-0.06, 0.07)
    blur = (rng.uniform(1.5, 3.0), rng.uniform(0, np.pi)) if rng.random() < 0.2 else (0.0, 0.0)
    return Look(
        wall=wall,
        tile=tile,
        worktop=jittered(rng, worktop, 5),
        wooden=worktop[0] - worktop[2] > 60,
        unit=COLOURS[unit_name],
        floor=jittered(rng, FLOORS[int(rng.integers(len(FLOORS)))], 5),
        metal=(198, 202, 208) if rng.random() < 0.6 else (84, 80, 78),
        skin=jittered(rng, SKINS[int(rng.integers(len(SKINS)))], 4),
        sleeve=jittered(rng, SLEEVES[int(rng.integers(len(SLEEVES)))], 8),
        soup=SOUPS[int(rng.integers(len(SOUPS)))],
        flame=str(rng.choice(("red", "blue"))),
        light=Light(
            (float(direction[0]), float(direction[1]), float(direction[2])),
            ambient=float(rng.uniform(0.55, 0.68)),
            gain=(float(level * (1 + warmth)), float(level), float(level * (1 - warmth))),
        ),
        gradient=(float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.02, 0.12))),
        mottling=int(rng.integers(1 << 30)),
        noise=float(rng.uniform(1.0, 3.2)),
        blur=(float(blur[0]), float(blur[1])),
    )


def draw_camera(rng: np.random.Generator) -> Camera:
    """Draws a head pose within the range at which every column stays on its side of the picture."""
    return Camera(
        position=(float(rng.normal(0, 0.018)), float(rng.uniform(0.62, 0.72)), float(rng.uniform(-0.62, -0.55))),
        yaw=float(np.clip(rng.normal(0, 1.3), -2.5, 2.5)),
        pitch=float(rng.uniform(42.5, 44.8)),
        roll=float(np.clip(rng.normal(0, 1.2), -2.5, 2.5)),
        focal=float(rng.uniform(0.88, 0.95)),
    )


def furnish(
    rng: np.random.Generator, composition: Composition, look: Look, facings: tuple[int, int, int]
) -> tuple[Thing, ...]:
    """Puts the things of a composition in their places, all at rest: closed, off, whole.

    Args:
        rng: Source of colours and small shifts.
        composition: What stands where.
        look: Materials, so that things stand out from the worktop.
        facings: Per column -1 or 1, the side of levers and handles.
    """
    things: list[Thing] = []
    two_tone = rng.random() < 0.35
    for column, kind in enumerate(composition.fronts):
        names = COLOURS_OF_KIND[kind]
        base = next(name for name, rgb in COLOURS.items() if rgb == look.unit)
        name = str(rng.choice(names)) if two_tone and rng.random() < 0.5 else base
        height = -0.18 if kind == "drawer" else -0.385
        hinge = (-1, int(rng.choice((-1, 1))), 1)[column]
        things.append(
            Thing(kind, name, jittered(rng, COLOURS[name], 4), column, (COLUMN_X[column], height, 0.0), hinge, "closed")
        )
    for column, module in enumerate(composition.modules):
        things += _module_things(rng, module, column, look, facings[column])
    for x in (-0.62, 0.62):
        if rng.random() < 0.7:
            things.append(_thing(rng, str(rng.choice(DISTRACTORS)), -1, (x, 0.0, 0.44), look))
    return tuple(things)


def _module_things(rng: np.random.Generator, module: str, column: int, look: Look, facing: int) -> list[Thing]:
    x = 0.97 * COLUMN_X[column] + float(rng.uniform(-0.01, 0.01))
    behind = (x + float(rng.uniform(-0.03, 0.03)), 0.0, 0.46)

    def thing(kind: str, dx: float, z: float, dy: float = 0.0) -> Thing:
        # A mug's handle points away from the hand that takes it.
        return _thing(rng, kind, column, (x + dx, dy, z), look, -facing if kind == "cup" else facing)

    if module == "sink":
        return [thing("tap", facing * 0.04, 0.51)]
    if module == "stove":
        return [replace(thing("stove", 0, 0.28), state="off")]
    if module == "stove with pan":
        return [replace(thing("stove", 0, 0.28), state="on"), thing("pan", 0, 0.33, 0.015)]
    if module.startswith("board"):
        vegetable = module.removeprefix("board with ")
        return [
            thing("board", 0, 0.24),
            thing("knife", 0, 0.13, 0.022),
            replace(thing(vegetable, 0, 0.29, 0.02), state="whole"),
        ]
    if module == "cloth":
        return [thing("cloth", 0, 0.14)]
    if module == "kettle and cup":
        return [thing("kettle", facing * 0.045, 0.36), thing("cup", -facing * 0.07, 0.15)]
    found: list[Thing] = []
    if module == "things":
        return [_thing(rng, str(rng.choice(DISTRACTORS)), -1, (x, 0.0, float(rng.uniform(0.25, 0.4))), look)]
    if rng.random() < 0.4:
        found.append(_thing(rng, str(rng.choice(("jar", "plate", "paper roll"))), -1, behind, look))
    # A bottle stands closer to the middle, so that the hand that takes its cap to the side stays in view.
    inwards = 0.06 * (1 - column) if module == "bottle" else 0.0
    return [*found, thing(module, inwards, {"cup": 0.19, "bottle": 0.25}[module])]


def _thing(rng: np.random.Generator, kind: str, column: int, position: Point, look: Look, facing: int = 1) -> Thing:
    names = list(COLOURS_OF_KIND[kind])
    apart = [name for name in names if distance(COLOURS[name], look.worktop) > 75] or names
    name = str(rng.choice(apart))
    state = {"tap": "off"}.get(kind, "")
    return Thing(kind, name, jittered(rng, COLOURS[name], 6), column, position, facing, state)


def side_of(centre: float) -> str:
    """Side of a projected centre x in 0..1."""
    return SIDES[min(2, max(0, int(centre * 3)))]
