"""What Video4Linux tells of a camera: its formats and their sizes, without starting it (kernel: videodev2.h)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

_CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
_DISCRETE = 1  # V4L2_FRMSIZE_TYPE_DISCRETE
_MOST = 64  # of formats, or of sizes of one: a driver that does not end its list must not keep us

# struct v4l2_fmtdesc: index, type, flags, description, pixelformat, mbus_code, reserved
_FORMAT = struct.Struct("=III32s4sI12x")
# struct v4l2_frmsizeenum: index, pixel_format, type, then either width and height, or for both least, most and step
_SIZE = struct.Struct("=I4sI6I8x")


def _read_and_write(number: int, size: int) -> int:
    return 3 << 30 | size << 16 | ord("V") << 8 | number


_ENUM_FMT = _read_and_write(2, _FORMAT.size)
_ENUM_FRAMESIZES = _read_and_write(74, _SIZE.size)


def formats(path: str) -> dict[str, list[tuple[int, int]]]:
    """Returns each format's four letters with its sizes (width, height); of a range, the least and the most.

    Raises:
        OSError: The camera is not there, or may not be opened.
    """
    device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        return {
            letters.decode("ascii", "replace").rstrip("\0 "): list(_sizes(device, letters))
            for letters in _letters(device)
        }
    finally:
        os.close(device)


def _letters(device: int) -> Iterator[bytes]:
    for index in range(_MOST):
        found = _told(device, _ENUM_FMT, _FORMAT.pack(index, _CAPTURE, 0, b"", b"", 0))
        if found is None:
            return
        yield _FORMAT.unpack(found)[4]


def _sizes(device: int, letters: bytes) -> Iterator[tuple[int, int]]:
    for index in range(_MOST):
        found = _told(device, _ENUM_FRAMESIZES, _SIZE.pack(index, letters, 0, *[0] * 6))
        if found is None:
            return
        _, _, kind, first, second, _, fourth, fifth, _ = _SIZE.unpack(found)
        if kind == _DISCRETE:
            yield first, second
            continue
        yield first, fourth  # a range: least width, most width, step, least height, most height, step
        yield second, fifth
        return


def _told(device: int, request: int, argument: bytes) -> bytes | None:
    import fcntl  # not on Windows

    try:
        return fcntl.ioctl(device, request, argument)
    except OSError:  # EINVAL ends a list; ENOTTY is no such driver
        return None
