"""Words over a picture: what the model says, and what the assistant is doing. Legible on any background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lego_client.fonts import font_for
from lego_client.overlay.pixels import Picture, checked, lay_over, size_of
from lego_client.pictures import Font, line_height, wrap

_WHITE = (255, 255, 255, 255)
_BAND = (10, 12, 16, 190)  # dark enough for white letters over white
_MOST_HEIGHT = 0.4  # of the picture, that a caption may take
_MOST_CHARACTERS = 400  # a server may be anyone's, and say anything
_LEAST_LETTERS = 11  # pixels
_ROUND = 0.45  # of a badge's height


class State(Enum):
    """What the assistant is doing."""

    READY = "ready"
    LISTENING = "listening"
    THINKING = "thinking"
    ANSWER = "answer"
    OFFLINE = "offline"
    LOST = "lost tracking"


_COLOURS = {
    State.READY: (200, 205, 212), State.LISTENING: (120, 220, 150), State.THINKING: (250, 200, 90),
    State.ANSWER: (116, 190, 255), State.OFFLINE: (255, 110, 100), State.LOST: (255, 160, 90),
}  # fmt: skip


@dataclass(frozen=True)
class Status:
    """A badge.

    Attributes:
        state: What the assistant is doing.
        step: Steps done, while thinking.
        steps: Steps in all; 0 while that is not known.
        age_seconds: How long ago the answer came; None says nothing of it.

    Raises:
        LegoError: Steps or age are below 0, or more steps are done than there are.
    """

    state: State
    step: int = 0
    steps: int = 0
    age_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.step <= self.steps:
            raise LegoError(f"step {self.step} of {self.steps}; steps count from 0 to their number")
        if self.age_seconds is not None and not 0 <= self.age_seconds < math.inf:
            raise LegoError(f"the age is {self.age_seconds:g} s; it must be 0 or more, and finite")

    @property
    def text(self) -> str:
        """What the badge says."""
        words = self.state.value
        if self.state is State.THINKING and self.steps:
            words += f" {self.step}/{self.steps}"
        return words if self.age_seconds is None else f"{words}, {_age(self.age_seconds)} ago"


def annotate(picture: Picture, description: str = "", status: Status | None = None) -> Picture:
    """Returns a copy of a picture with a caption at its foot and a badge in its upper left corner.

    Args:
        picture: (H, W, 3) uint8 RGB.
        description: The sentence; "" for none. It is wrapped and, where the room ends, cut short with an ellipsis.
        status: The badge; None for none.

    Raises:
        LegoError: It is no picture, or too small; or `LEGO_FONT` is no font.
    """
    result = checked(picture, "the picture").copy()
    width, height = size_of(result)
    letters = max(_LEAST_LETTERS, height // 22)
    if sentence := " ".join(description.split())[:_MOST_CHARACTERS]:
        patch = _caption(sentence, letters, width, int(height * _MOST_HEIGHT))
        _put(result, patch, 0, height - patch.shape[0])
    if status is not None:
        margin = min(width, height) // 40
        _put(result, _badge(status.text, status.state, letters * 5 // 6), margin, margin)
    return result


def put_list(picture: Picture, rows: Sequence[tuple[str, str]]) -> Picture:
    """Returns a copy of a picture with a list over its middle: a short name and what it means, row by row.

    Args:
        picture: (H, W, 3) uint8 RGB.
        rows: Names and meanings; as many as there is room for are shown, in letters that fit the picture's width.

    Raises:
        LegoError: It is no picture, or too small; or `LEGO_FONT` is no font.
    """
    result = checked(picture, "the picture").copy()
    width, height = size_of(result)
    patch = _list(tuple(rows), max(_LEAST_LETTERS, height // 30), width, height)
    _put(result, patch, (width - patch.shape[1]) // 2, (height - patch.shape[0]) // 2)
    return result


def _put(picture: Picture, patch: NDArray[np.uint8], left: int, top: int) -> None:
    """Draws a patch onto a picture, as much of it as lies inside."""
    left, top = max(0, left), max(0, top)
    height, width = (min(room, have) for room, have in zip(
        (picture.shape[0] - top, picture.shape[1] - left), patch.shape[:2], strict=True
    ))  # fmt: skip
    place = picture[top : top + height, left : left + width]
    place[:] = lay_over(np.ascontiguousarray(place), np.ascontiguousarray(patch[:height, :width]))


@lru_cache(maxsize=32)
def _caption(text: str, size: int, width: int, room: int) -> NDArray[np.uint8]:
    """Returns (h, width, 4): lines of text on a dark band."""
    margin = max(2, size // 2)
    letters, text = font_for(text, size)
    lines = _within(wrap(text, letters, width - 2 * margin), letters, width - 2 * margin, room - 2 * margin)
    step = line_height(letters)
    page = Image.new("RGBA", (width, len(lines) * step + 2 * margin), _BAND)
    draw = ImageDraw.Draw(page)
    for index, line in enumerate(lines):
        draw.text((width / 2, margin + index * step), line, font=letters, fill=_WHITE, anchor="ma")
    return _multiplied(page)


def _within(lines: list[str], letters: Font, width: int, height: int) -> list[str]:
    """Cuts lines that find no room; the last of those that do ends in an ellipsis."""
    most = max(1, height // line_height(letters))
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and letters.getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip()}…"]


@lru_cache(maxsize=8)
def _list(rows: tuple[tuple[str, str], ...], size: int, width: int, height: int) -> NDArray[np.uint8]:
    """Returns (h, w, 4): two columns on a dark panel, no larger than the room there is."""
    while True:
        letters, _ = font_for("".join(name + meaning for name, meaning in rows), size)
        step, margin = line_height(letters), size
        left = round(max((letters.getlength(name) for name, _ in rows), default=0)) + margin
        right = round(max((letters.getlength(meaning) for _, meaning in rows), default=0))
        if left + right + 2 * margin <= width or size <= _LEAST_LETTERS:
            break
        size -= 1
    rows = rows[: max(1, (height - 2 * margin) // step)]
    page = Image.new("RGBA", (min(width, left + right + 2 * margin), len(rows) * step + 2 * margin), _BAND)
    draw = ImageDraw.Draw(page)
    for index, (name, meaning) in enumerate(rows):
        y = margin + index * step
        draw.text((margin, y), name, font=letters, fill=(*_COLOURS[State.ANSWER], 255))
        draw.text((margin + left, y), meaning, font=letters, fill=_WHITE)
    return _multiplied(page)


@lru_cache(maxsize=128)
def _badge(text: str, state: State, size: int) -> NDArray[np.uint8]:
    """Returns (h, w, 4): a dot of the state's colour and its name on a dark pill."""
    letters, text = font_for(text, size)
    height = line_height(letters) + size // 2
    dot = size // 2
    page = Image.new("RGBA", (round(letters.getlength(text)) + 3 * dot + height, height))
    draw = ImageDraw.Draw(page)
    draw.rounded_rectangle((0, 0, page.width - 1, height - 1), _ROUND * height, fill=_BAND)
    left, middle = height // 2, height / 2
    draw.ellipse((left, middle - dot / 2, left + dot, middle + dot / 2), fill=(*_COLOURS[state], 255))
    draw.text((left + 2 * dot, middle), text, font=letters, fill=_WHITE, anchor="lm")
    return _multiplied(page)


def _multiplied(page: Image.Image) -> NDArray[np.uint8]:
    """Returns RGBA pixels (h, w, 4), their colours multiplied by alpha."""
    pixels = np.asarray(page).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    return np.rint(pixels).astype(np.uint8)


def _age(seconds: float) -> str:
    if seconds < 60:
        return f"{int(seconds)} s"
    return f"{int(seconds / 60)} min" if seconds < 3600 else f"{int(seconds / 3600)} h"
