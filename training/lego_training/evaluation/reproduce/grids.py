"""Pictures side by side, as in the paper's figures 5 and 7."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from lego_core.images import encode_jpeg
from PIL import Image, ImageDraw, ImageFont

from lego_training.dataset import read_frame
from lego_training.files import write_whole

_WIDTH, _GAP, _LINE, _MARGIN = 220, 6, 15, 8


def grid(
    rows: Sequence[Sequence[Path | None]], titles: Sequence[str], captions: Sequence[Sequence[str]]
) -> Image.Image:
    """Returns pictures in rows and columns with words.

    Args:
        rows: Files; None is an empty place.
        titles: Above the columns; empty for none.
        captions: Below each picture.
    """
    pictures = [[None if path is None else _scaled(read_frame(path)) for path in row] for row in rows]
    lines = [[textwrap.wrap(words, 34)[:3] for words in row] for row in captions]
    heights = [max((each.height for each in row if each is not None), default=_WIDTH) for row in pictures]
    deepest = [max((len(each) for each in row), default=0) * _LINE for row in lines]
    columns = max(len(row) for row in pictures)
    head = 2 * _LINE if any(titles) else 0
    size = (
        2 * _MARGIN + columns * (_WIDTH + _GAP) - _GAP,
        2 * _MARGIN + head + sum(heights) + sum(deepest) + _GAP * len(rows),
    )
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, title in enumerate(titles):
        for number, line in enumerate(textwrap.wrap(title, 34)[:2]):
            draw.text((_MARGIN + column * (_WIDTH + _GAP), _MARGIN + number * _LINE), line, "black", font)
    top = _MARGIN + head
    for row, words, height, depth in zip(pictures, lines, heights, deepest, strict=True):
        for column, picture in enumerate(row):
            left = _MARGIN + column * (_WIDTH + _GAP)
            if picture is not None:
                sheet.paste(picture, (left, top))
            for number, line in enumerate(words[column]):
                draw.text((left, top + height + number * _LINE), line, "black", font)
        top += height + depth + _GAP
    return sheet


def save_grid(path: Path, sheet: Image.Image) -> None:
    """Writes a grid as JPEG, whole."""
    write_whole(path, encode_jpeg(sheet))


def _scaled(picture: Image.Image) -> Image.Image:
    return picture.resize((_WIDTH, max(1, round(_WIDTH * picture.height / picture.width))), Image.Resampling.LANCZOS)
