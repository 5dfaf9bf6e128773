"""Small films with the number of each frame painted in, so that a stored frame tells when it was filmed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 128, 64
_BITS, _CELL = 12, 16  # the number stands in squares, two rows of six, in the upper half and the left three quarters


def painted(number: int, is_sharp: bool = False) -> NDArray[np.uint8]:
    """A frame (H, W, 3) that shows its number above, and below a plain field or, if it is to be sharp, a fine grid."""
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(_BITS):
        row, column = divmod(bit, _BITS // 2)
        value = 235 if number >> bit & 1 else 20
        frame[row * _CELL : (row + 1) * _CELL, column * _CELL : (column + 1) * _CELL] = value
    if is_sharp:
        frame[HEIGHT // 2 :: 4, :] = 255
    return frame


def number_of(path: Path) -> int:
    """Reads the number of a stored frame of any size."""
    grey = np.asarray(Image.open(path).convert("L"), float)
    scale_y, scale_x = grey.shape[0] / HEIGHT, grey.shape[1] / WIDTH
    number = 0
    for bit in range(_BITS):
        row, column = divmod(bit, _BITS // 2)
        y, x = (int((index + 0.5) * _CELL * scale) for index, scale in ((row, scale_y), (column, scale_x)))
        number |= int(grey[y, x] > 128) << bit
    return number


def write_film(
    path: Path,
    times: Sequence[float],
    is_sharp: Callable[[int], bool] = lambda number: False,
    keyframes: int = 12,
) -> Path:
    """Writes an H.264 film with B-frames; its frames are shown at the given seconds, whatever rate it states."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The index is put first, as in files made for streaming, so that a film that breaks off can still be opened.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction((len(times) - 1) / times[-1]).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10_000)
        stream.codec_context.thread_count = 1
        stream.options = {"preset": "ultrafast", "bf": "2", "crf": "18", "g": str(keyframes), "keyint_min": "1"}
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(painted(number, is_sharp(number)), format="rgb24")
            frame.pts, frame.time_base = round(time * 10_000), Fraction(1, 10_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def steady(seconds: float, fps: float) -> list[float]:
    """The times of a film with a constant rate."""
    return [number / fps for number in range(round(seconds * fps))]
