"""Contact sheets: input and target frames side by side with their words."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lego_training.toy_kitchen.pair import FRAME_SIZE, KitchenPair

_GAP = 8
_TEXT_HEIGHT = 46


def contact_sheet(pairs: Sequence[KitchenPair], columns: int = 3) -> Image.Image:
    """Lays pairs out in rows: input | target, the label and the description below."""
    width, height = 2 * FRAME_SIZE + 2 * _GAP, FRAME_SIZE + _TEXT_HEIGHT
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for index, pair in enumerate(pairs):
        x, y = _GAP + index % columns * width, _GAP + index // columns * height
        sheet.paste(Image.fromarray(np.concatenate([pair.input_frame, pair.target_frame], 1)), (x, y))
        draw.text((x, y + FRAME_SIZE + 1), pair.action, "black", ImageFont.load_default(13), stroke_width=0)
        for line, words in enumerate(_wrapped(pair.description, 84)):
            draw.text((x, y + FRAME_SIZE + 16 + 13 * line), words, "#444444", font)
    return sheet


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        lines[-1] = f"{lines[-1]} {word}".strip() if len(lines[-1]) + len(word) < width else lines[-1]
        if not lines[-1].endswith(word):
            lines.append(word)
    return lines
