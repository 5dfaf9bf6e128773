"""Named colours of the toy kitchen: few, and clearly different from each other."""

from typing import Final

RGB = tuple[int, int, int]

COLOURS: Final[dict[str, RGB]] = {
    "white": (238, 236, 230),
    "black": (48, 48, 54),
    "grey": (150, 154, 160),
    "red": (204, 52, 46),
    "blue": (52, 100, 186),
    "green": (66, 142, 80),
    "yellow": (232, 194, 62),
    "brown": (132, 86, 54),
    "orange": (232, 124, 40),
}

COLOURS_OF_KIND: Final[dict[str, tuple[str, ...]]] = {
    "drawer": ("white", "grey", "blue", "green", "brown", "yellow"),
    "cupboard": ("white", "grey", "blue", "green", "brown", "yellow"),
    "tap": ("grey", "black", "yellow"),
    "cup": ("red", "blue", "green", "yellow", "white", "orange"),
    "kettle": ("grey", "red", "blue", "black", "green"),
    "carrot": ("orange",),
    "cucumber": ("green",),
    "tomato": ("red",),
    "knife": ("black", "brown", "red", "blue"),
    "board": ("brown", "white", "yellow"),
    "cloth": ("blue", "red", "yellow", "green", "orange"),
    "pan": ("grey", "red", "blue", "black"),
    "stove": ("black", "grey", "white"),
    "bottle": ("green", "brown", "blue", "red"),
    "fruit bowl": ("white", "blue", "brown"),
    "toaster": ("grey", "red", "white"),
    "jar": ("yellow", "white", "brown"),
    "plant": ("green",),
    "plate": ("white", "blue", "yellow"),
    "paper roll": ("white",),
}

WORKTOPS: Final[tuple[RGB, ...]] = (
    (206, 168, 122),
    (170, 122, 82),
    (198, 196, 192),
    (110, 112, 118),
    (222, 212, 196),
    (150, 158, 158),
)
WALLS: Final[tuple[RGB, ...]] = (
    (226, 222, 212),
    (196, 210, 214),
    (214, 204, 184),
    (186, 200, 184),
    (222, 200, 190),
    (190, 190, 204),
)
FLOORS: Final[tuple[RGB, ...]] = ((146, 112, 84), (120, 118, 116), (170, 150, 128), (96, 86, 80))
SKINS: Final[tuple[RGB, ...]] = ((240, 200, 172), (224, 172, 138), (198, 142, 106), (156, 104, 74), (112, 74, 54))
SLEEVES: Final[tuple[RGB, ...]] = (
    (60, 80, 130),
    (170, 60, 60),
    (70, 110, 80),
    (90, 90, 96),
    (200, 190, 170),
    (120, 80, 140),
    (44, 48, 60),
)
SOUPS: Final[tuple[RGB, ...]] = ((214, 120, 48), (196, 66, 44), (150, 160, 70), (226, 196, 120))


def scaled(rgb: RGB, factor: float) -> RGB:
    """A colour multiplied by `factor` and clipped to 0..255."""
    red, green, blue = (min(255, max(0, round(channel * factor))) for channel in rgb)
    return red, green, blue


def mixed(first: RGB, second: RGB, weight: float) -> RGB:
    """The colour `weight` (0..1) of the way from `first` to `second`."""
    red, green, blue = (round(a + (b - a) * weight) for a, b in zip(first, second, strict=True))
    return red, green, blue


def distance(first: RGB, second: RGB) -> float:
    """Euclidean distance of two colours in 0..441."""
    return float(sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) ** 0.5)
