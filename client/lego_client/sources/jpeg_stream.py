"""JPEG pictures in a stream of bytes, found by the format's own marks.

What cameras send over HTTP differs in boundaries, lengths and content types, and some of it is wrong. A JPEG says
itself where it begins and ends; whatever stands between two is passed over, and a damaged one costs no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from lego_core.images import open_image
from numpy.typing import NDArray

from lego_client.sources.framing import rgb_from_image

_MOST_BYTES = 32 * 1024 * 1024  # of one picture
_START = b"\xff\xd8\xff"
_SCAN = 0xDA
_END = 0xD9
_BETWEEN_SCANS = frozenset({0xC4, _SCAN, 0xDB, 0xDC, 0xDD})  # tables, the next scan, number of lines, restarts
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in coded data, the mark that ends it


class _Damaged(Exception):
    pass


class JpegSplitter:
    """Takes bytes as they come and gives pictures as they are complete."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._begin()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the pictures that end in these bytes, undecoded; what is no whole picture is left out."""
        self._data += data
        while (start := self._data.find(_START)) >= 0:
            if start:
                del self._data[:start]
                self._begin()
            try:
                end = self._find_end()
                if end is None and len(self._data) > _MOST_BYTES:
                    raise _Damaged
            except _Damaged:
                end = len(_START)
            else:
                if end is None:
                    return
                yield bytes(self._data[:end])
            del self._data[:end]
            self._begin()
        del self._data[: max(0, len(self._data) - len(_START) + 1)]

    def _begin(self) -> None:
        self._place = 2  # the next mark, from the picture's start; kept so that slow bytes are not read twice
        self._in_scan = self._had_scan = False

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
            if mark == _END:
                return self._place + 2
            if mark == 0xFF:  # fills
                self._place += 1
                continue
            fits = mark in _BETWEEN_SCANS if self._had_scan else mark >= 0xC0 and not 0xD0 <= mark <= 0xD8
            if data[self._place] != 0xFF or not fits:
                raise _Damaged
            if len(data) < self._place + 4:
                return None
            length = int.from_bytes(data[self._place + 2 : self._place + 4])
            if length < 2:
                raise _Damaged
            self._place += 2 + length
            self._in_scan = mark == _SCAN
            self._had_scan |= self._in_scan


def decode(picture: bytes) -> NDArray[np.uint8] | None:
    """Decodes a JPEG after a look at its size.

    Returns:
        (H, W, 3) uint8 RGB, upright and bounded; None if it is damaged or far too large.
    """
    # With Pillow, as OpenCV's decoder writes on stderr about damage, and gives what it has of it.
    try:
        return rgb_from_image(open_image(picture))
    except Exception:  # Pillow's decoders raise many types on damaged data
        return None
