"""Pictures and clips whose content tells which frame they are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLIP_FPS = 10.0
CLIP_FRAMES = 30


def scene(shade: int = 128, width: int = 320, height: int = 180) -> NDArray[np.uint8]:
    """A picture with edges, whose mean grey tells its shade: (height, width, 3) uint8 RGB."""
    pixels = np.full((height, width, 3), shade, np.uint8)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 20, 20)
    pixels[::16] = 255 - shade
    return pixels


def shade_of(pixels: NDArray[np.uint8]) -> int:
    """Reads back the shade of a `scene` from its lower right corner."""
    return int(np.median(pixels[-12:-4, -60:]))


def write_clip(path: Path, frames: int = CLIP_FRAMES, fps: float = CLIP_FPS) -> Path:
    """Writes an MP4 whose frame i is `scene(8 * i)`."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (320, 180))
    for index in range(frames):
        writer.write(cv2.cvtColor(scene(8 * index), cv2.COLOR_RGB2BGR))
    writer.release()
    return path
