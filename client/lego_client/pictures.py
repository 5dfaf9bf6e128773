"""Drawing for people: pictures side by side, and text in a readable font."""

from __future__ import annotations

from functools import lru_cache

from lego_core.errors import LegoError
from lego_core.images import decode_image
from PIL import Image, ImageDraw, ImageFont

from lego_client.errors import ServerError

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND = (250, 250, 248)
INK = (24, 26, 31)
ACCENT = (20, 92, 158)
FAINT = (112, 116, 124)

_MARGIN = 16
_LEAST_HEIGHT = 320  # pixels: a small guidance frame is scaled up to be seen
_MOST_HEIGHT = 720


@lru_cache
def font(size: int) -> Font:
    """Returns Pillow's own scalable font, so that every machine draws the same."""
    return ImageFont.load_default(size)


def open_jpeg(data: bytes) -> Image.Image:
    """Decodes a picture of the server's: RGB. Its size is checked first: a server may be anyone's.

    Raises:
        ServerError: It is no picture, is damaged or is far too large.
    """
    try:
        return decode_image(data)
    except LegoError as error:
        raise ServerError(f"the server sent a picture that is none ({error}); report this to who runs it") from error


def wrap(text: str, text_font: Font, width: int) -> list[str]:
    """Breaks text into lines of at most `width` pixels, between words; a longer word is broken too."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if text_font.getlength(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while text_font.getlength(word) > width and len(word) > 1:
            fitting = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or text_font.getlength(word[:n]) <= width)
            lines.append(word[:fitting])
            word = word[fitting:]
        line = word
    return [*lines, line] if line else lines


def side_by_side(view: Image.Image, guidance: Image.Image, query: str, description: str, note: str) -> Image.Image:
    """Puts the input frame and the guidance frame at equal height, with the words under them.

    Args:
        view: The input frame.
        guidance: The guidance frame.
        query: What was asked.
        description: What the model says of the action.
        note: A small last line, such as timings.

    Returns:
        An RGB picture.
    """
    height = max(_LEAST_HEIGHT, min(_MOST_HEIGHT, max(view.height, guidance.height)))
    left, right = at_height(view, height), at_height(guidance, height)
    width = left.width + right.width + 3 * _MARGIN
    size = max(18, height // 18)
    paragraphs = [
        (f"“{query}”", font(size), ACCENT),
        (description, font(size), INK),
        (note, font(size * 2 // 3), FAINT),
    ]
    rows = [
        (line, row_font, colour)
        for text, row_font, colour in paragraphs
        for line in wrap(text, row_font, width - 2 * _MARGIN)
    ]
    text_height = sum(line_height(row_font) for _, row_font, _ in rows)
    page = Image.new("RGB", (width, height + text_height + 3 * _MARGIN), BACKGROUND)
    page.paste(left, (_MARGIN, _MARGIN))
    page.paste(right, (left.width + 2 * _MARGIN, _MARGIN))
    draw = ImageDraw.Draw(page)
    y = height + 2 * _MARGIN
    for line, row_font, colour in rows:
        draw.text((_MARGIN, y), line, font=row_font, fill=colour)
        y += line_height(row_font)
    return page


def at_height(picture: Image.Image, height: int) -> Image.Image:
    """Scales a picture to a height, keeping its aspect ratio."""
    if picture.height == height:
        return picture
    return picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.LANCZOS)


def line_height(text_font: Font) -> int:
    """Returns the pixels from one line to the next."""
    top, bottom = text_font.getbbox("Ág")[1::2]
    return round((bottom - min(0, top)) * 1.25)
