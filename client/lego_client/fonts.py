"""Fonts that have the letters of a text: Pillow's own where it will do, else one of the system's."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache

from lego_core.errors import LegoError
from PIL import ImageFont

from lego_client.pictures import Font, font

# Pillow's own font knows little beyond ASCII. These come with Linux desktops, macOS and Windows; Pillow knows where.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "segoeui.ttf",
    "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "PingFang.ttc", "msyh.ttc", "wqy-microhei.ttc",
)  # fmt: skip
_NO_CHARACTER = "\uffff"  # every font draws its sign for "missing" here


def font_for(text: str, size: int) -> tuple[Font, str]:
    """Returns a font, and the text as it can be drawn with it.

    `LEGO_FONT` (a file) goes before the fonts of the system. Where none has every letter, the first is taken and what it
    lacks is written without accents, if it has that.

    Raises:
        LegoError: `LEGO_FONT` is no font.
    """
    candidates = (None, *((named,) if (named := os.environ.get("LEGO_FONT")) else ()), *_SYSTEM_FONTS)
    letters = frozenset(character for character in text if not character.isspace())
    for name in candidates:
        found = _font(name, size, required=name is not None and name == named)
        if found is not None and all(_has(name, letter) for letter in letters):
            return found, text
    return font(size), "".join(_plain(character) for character in text)


@lru_cache(maxsize=64)
def _font(name: str | None, size: int, required: bool = False) -> Font | None:
    if name is None:
        return font(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError as error:
        if required:
            raise LegoError(f"LEGO_FONT is {name!r}, which cannot be read as a font ({error}); name a .ttf") from error
        return None


@lru_cache(maxsize=4096)
def _has(name: str | None, character: str) -> bool:
    probe = _font(name, 16)
    assert probe is not None
    drawn, missing = probe.getmask(character), probe.getmask(_NO_CHARACTER)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def _plain(character: str) -> str:
    if character.isspace() or _has(None, character):
        return character
    letters = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    return letters if letters and all(_has(None, part) for part in letters) else character
