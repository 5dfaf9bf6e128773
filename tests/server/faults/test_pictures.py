"""Pictures made to harm: each is refused or shown for what it is, quickly, and nobody else notices."""

from __future__ import annotations

import io
import struct
import time
import zlib

from lego_proto.v1 import guidance_pb2 as pb
from PIL import Image

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import open_session, part, scene
from tests.server.harness import GuideClient, picture

_INVALID = pb.QueryError.CODE_INVALID
_LONGEST_SECONDS = 5.0
_BOMBS = 5  # of each of 8 clients


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *extra: bytes, rows: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = _chunk(b"IDAT", zlib.compress(rows or bytes((1 + 3 * width) * height)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + _chunk(b"IEND", b"")


def _saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((160, 90), 60).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def _looping_exif() -> bytes:
    """An EXIF block whose directories name each other, and themselves, as the next."""
    entries = struct.pack("<H", 2)
    entries += struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + struct.pack("<I", 8)


_TEXT_BOMB = zlib.compress(bytes(64 * 2**20), 9)  # 64 MiB in 64 kB
_FRAMES = [Image.new("RGB", (160, 90), (shade, 0, 0)) for shade in range(0, 250, 10)]
_REFUSED = {
    "a header of 50000 x 50000": _png(50_000, 50_000, rows=b"\0"),
    "a header of 2^31 x 2^31": _png(2**31 - 1, 2**31 - 1, rows=b"\0"),
    "a header of no width": _png(0, 9),
    "a JPEG cut in its header": _saved("JPEG")[:30],
    "a JPEG cut in its pixels": _saved("JPEG")[:-900],
    "a PNG cut in its pixels": _saved("PNG")[:-900],
    "a WebP cut in its pixels": _saved("WEBP")[:-900],
    "text that unpacks to 64 MiB": _png(64, 64, _chunk(b"zTXt", b"Comment\0\0" + _TEXT_BOMB)),
    "a colour profile that unpacks to 64 MiB": _png(64, 64, *[_chunk(b"zTXt", b"a\0\0" + _TEXT_BOMB)] * 8),
    "pixels that unpack to less than there should be": _png(4000, 4000, rows=b"\0"),
    "a GIF": _saved("GIF"),
    "a TIFF": _saved("TIFF"),
    "a BMP": _saved("BMP"),
    "a PDF": _saved("PDF"),
    "an EPS, which would start a program": _saved("EPS"),
    "a web page": b"<!DOCTYPE html><svg onload=alert(1)></svg>",
    "an archive": b"PK\x03\x04" + bytes(200),
    "a JPEG's first bytes before a GIF": b"\xff\xd8\xff" + _saved("GIF"),
}  # fmt: skip
_SHOWN = {
    "a moving PNG": _saved("PNG", save_all=True, append_images=_FRAMES),
    "a moving WebP": _saved("WEBP", save_all=True, append_images=_FRAMES),
    "an archive behind a JPEG": _saved("JPEG") + b"PK\x03\x04" + bytes(200),
    "a web page behind a PNG": picture() + b"<script>alert(1)</script>",
    "a JPEG with EXIF that loops": _saved("JPEG", exif=_looping_exif()),
    "a JPEG with EXIF of nonsense": _saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    "pixels that unpack to more than there should be": _png(64, 64, rows=bytes(16 * 2**20)),
}  # fmt: skip


async def _end_of(client: GuideClient, number: int, image: bytes) -> pb.GuideResponse:
    await client.frame(number, image)
    await client.query(number, frame_id=number)
    while True:
        response = await client.read()
        kind = response.WhichOneof("message")
        if kind == "result" or (kind == "error" and response.error.code == _INVALID):
            if kind == "error" and response.error.query_id == 0:  # refused on arrival: the query has no frame
                assert (await client.error()).code == pb.QueryError.CODE_NO_FRAME
            return response


async def test_pictures_made_to_harm_are_refused_or_shown_and_hold_nobody_up() -> None:
    slowest = 0.0
    async with scene(FakeEngine()) as it:
        client, _ = await open_session(it.server.stub)
        number = 0
        for expected, pictures in (("error", _REFUSED), ("result", _SHOWN)):
            for name, image in pictures.items():
                number += 1
                began = time.perf_counter()
                ended = await _end_of(client, number, image)
                slowest = max(slowest, time.perf_counter() - began)
                assert ended.WhichOneof("message") == expected, f"{name}: {ended}"
        await it.several_answers()
        await part(client)
    assert slowest < _LONGEST_SECONDS


async def test_many_bombs_at_once_leave_room_for_others() -> None:
    async with scene(FakeEngine(), bystanders=2) as it:
        clients = [(await open_session(it.server.stub))[0] for _ in range(8)]
        bomb = _REFUSED["text that unpacks to 64 MiB"]
        for client in clients:
            for number in range(1, _BOMBS + 1):
                await client.frame(number, bomb)
        await it.several_answers()
        for client in clients:
            for _ in range(_BOMBS):
                assert (await client.error()).code == _INVALID
            await part(client)
