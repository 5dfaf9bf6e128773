"""Pictures on disk: one, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray
from PIL import Image

from lego_client.sources.base import RING_SIZE, FrameSource
from lego_client.sources.framing import Framing, rgb_from_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class ImageFile(FrameSource):
    """One picture: a single frame."""

    def __init__(self, path: Path, framing: Framing | None = None) -> None:
        super().__init__(str(path), live=False, framing=framing)
        self._path = path

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields the picture."""
        yield read_image(self._path), 0.0


class ImageFolder(FrameSource):
    """The frames of a folder in the order of their names, as a camera that saves numbered pictures leaves them.

    Numbers in names count as numbers, so that frame_10.jpg comes after frame_9.jpg.

    Only the newest seven are read. One that cannot be read (a camera may still be writing it) is passed over.
    """

    def __init__(self, path: Path, framing: Framing | None = None) -> None:
        super().__init__(str(path), live=False, framing=framing)
        self._path = path
        try:
            files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
        except OSError as error:
            raise LegoError(f"the folder {path} cannot be read ({error.strerror}); allow access to it") from error
        self._files = sorted(files, key=_in_order)
        if not self._files:
            raise LegoError(f"the folder {path} holds no picture; it needs files such as 0001.jpg or 0001.png")

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields the newest pictures, oldest first."""
        fault: LegoError | None = None
        readable = 0
        for index, file in enumerate(self._files[-RING_SIZE:]):
            try:
                pixels = read_image(file)
            except LegoError as error:
                fault = error
                continue
            readable += 1
            yield pixels, float(index)
        if not readable and fault is not None:
            raise fault


def _in_order(file: Path) -> tuple[list[str | int], str]:
    # Splitting by numbers puts text and numbers in turns, so that like is compared with like.
    parts = re.split(r"([0-9]+)", file.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], file.name


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads a picture upright, as its EXIF orientation says, and scaled down where it is far larger than what is sent.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        LegoError: The file is not a picture, is damaged, or is far too large.
    """
    try:
        with Image.open(path) as image:
            return rgb_from_image(image)
    except Image.DecompressionBombError as error:
        raise LegoError(f"{path} is too large to read ({error}); scale it down") from error
    except PermissionError as error:
        raise LegoError(f"{path} may not be read; allow access to it") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise LegoError(f"{path} cannot be read as a picture: it is damaged or not a picture at all") from error
