"""What simulated wearers see and ask: a folder's pictures, or drawn ones that cost as much to decode."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
from lego_core.errors import LegoError
from PIL import Image, ImageDraw, ImageFilter

_SIZE = (640, 480)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_THINGS = ("drawer", "tap", "lid", "cupboard", "jar", "oven", "fridge", "kettle")
_ACTIONS = ("open", "close", "clean", "hold")
_QUERIES = tuple(f"how do I {action} the {thing}?" for action in _ACTIONS for thing in _THINGS)


class Questions:
    """An endless supply of frames (encoded) and queries, the same for the same seed."""

    def __init__(self, distinct: bool, folder: Path | None, seed: int) -> None:
        """Prepares the supply.

        Args:
            distinct: Every frame and query unlike the one before it; else all alike.
            folder: Take its pictures, in turns; None draws them.
            seed: Of what is drawn.

        Raises:
            LegoError: The folder holds no pictures.
        """
        self._distinct = distinct
        self._frames = _files(folder) if folder is not None else _drawn(seed)
        self._queries = cycle(_QUERIES)
        self._first = (next(self._frames), next(self._queries))

    def next(self) -> tuple[bytes, str]:
        """Returns a frame and a query about it."""
        if not self._distinct:
            return self._first
        return next(self._frames), next(self._queries)


def draw_frame(seed: int) -> bytes:
    """Returns a picture of shapes with grain, as JPEG: as large in bytes as a camera's, which flat colours are not."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", _SIZE, tuple(random.integers(60, 200, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = random.integers(0, _SIZE[0]), random.integers(0, _SIZE[1])
        width, height = random.integers(20, 240, 2)
        shape = draw.rectangle if random.random() < 0.6 else draw.ellipse
        shape((int(x), int(y), int(x + width), int(y + height)), fill=tuple(random.integers(0, 255, 3).tolist()))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), np.float32)
    grain = random.normal(0, 6, soft.shape)
    buffer = io.BytesIO()
    Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _drawn(seed: int) -> Iterator[bytes]:
    # Drawn beforehand, as drawing must not compete with the server for the CPU while it is measured. A prime number of
    # them, beyond the frames a session keeps: whatever the number of wearers, none sends one again that is remembered.
    return cycle([draw_frame(seed + number) for number in range(37)])


def _files(folder: Path) -> Iterator[bytes]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise LegoError(f"{folder} holds no pictures ({', '.join(sorted(_SUFFIXES))}); name another --frames folder")
    return cycle([path.read_bytes() for path in paths])
