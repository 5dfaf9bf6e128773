"""JPEG pictures in a stream of bytes, found by the format's own marks.

What cameras send over HTTP differs in boundaries, lengths and content types, and some of it is wrong. A JPEG says
itself where it begins and ends; whatever stands between two is passed over, and a damaged one costs no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lego_client.encoding import LONGEST_SIDE
from lego_client.sources.framing import rgb_from_bgr

_MOST_BYTES = 32 * 1024 * 1024  # of one picture
_MOST_PIXELS = 50_000_000  # 8K has 33 million
_START = b"\xff\xd8\xff"
_SCAN = 0xDA
_END = 0xD9
_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # start of frame: what tells height and width
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in coded data, the mark that ends it
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


@dataclass(frozen=True)
class JpegPicture:
    """A whole JPEG, not yet decoded, and the size in pixels that it states."""

    data: bytes
    width: int
    height: int


class _Damaged(Exception):
    pass


class JpegSplitter:
    """Takes bytes as they come and gives pictures as they are complete."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._begin()

    def feed(self, data: bytes) -> Iterator[JpegPicture]:
        """Yields the pictures that end in these bytes; those that are damaged or far too large are left out."""
        self._data += data
        while (start := self._data.find(_START)) >= 0:
            del self._data[:start]
            if start:
                self._begin()
            try:
                end = self._find_end()
                if end is None and len(self._data) <= _MOST_BYTES:
                    return
                if end is None or not 0 < self._size[0] * self._size[1] <= _MOST_PIXELS:
                    raise _Damaged
            except _Damaged:
                del self._data[: len(_START)]
            else:
                picture = JpegPicture(bytes(self._data[:end]), *self._size)
                del self._data[:end]
                yield picture
            self._begin()
        del self._data[: max(0, len(self._data) - len(_START) + 1)]

    def _begin(self) -> None:
        self._place = 2  # the next mark, from the picture's start; kept so that slow bytes are not read twice
        self._in_scan = False
        self._size = (0, 0)

    def _find_end(self) -> int | None:
        """Goes from mark to mark; returns where the picture ends, None while it has not.

        Raises:
            _Damaged: These are no marks of a JPEG.
        """
        data = self._data
        while True:
            if self._in_scan:
                found = _AFTER_SCAN.search(data, self._place)
                if found is None:
                    self._place = max(self._place, len(data) - 1)
                    return None
                self._place, self._in_scan = found.start(), False
            if len(data) < self._place + 2:
                return None
            mark = data[self._place + 1]
            if data[self._place] != 0xFF or 0xD0 <= mark <= 0xD8 or mark <= 0x01:
                raise _Damaged
            if mark == _END:
                return self._place + 2
            if mark == 0xFF:  # fills
                self._place += 1
                continue
            if len(data) < self._place + 9:  # enough for what states the size
                return None
            length = int.from_bytes(data[self._place + 2 : self._place + 4])
            if length < 2:
                raise _Damaged
            if mark in _SIZES:
                height, width = (int.from_bytes(data[self._place + at : self._place + at + 2]) for at in (5, 7))
                self._size = (width, height)
            self._place += 2 + length
            self._in_scan = mark == _SCAN


def decode(picture: JpegPicture) -> NDArray[np.uint8] | None:
    """Decodes a picture: (H, W, 3) uint8 RGB upright, None if it is damaged.

    One that is far larger than what is sent is decoded at a half, a quarter or an eighth of its size, for less work.
    """
    spare = max(picture.width, picture.height) // LONGEST_SIDE
    flags = next((_REDUCED[by] for by in (8, 4, 2) if spare >= by), cv2.IMREAD_COLOR)
    frame = cv2.imdecode(np.frombuffer(picture.data, np.uint8), flags)
    return None if frame is None else rgb_from_bgr(frame)
