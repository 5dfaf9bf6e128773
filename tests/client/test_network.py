"""Streams over the network: good ones, and the many ways in which they are bad."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lego_client.backoff import Backoff
from lego_client.sources import RING_SIZE, FrameSource, open_source
from lego_client.sources.addresses import shown, without_credentials
from lego_client.sources.factory import open_clip
from lego_client.sources.jpeg_stream import JpegSplitter
from lego_client.sources.jpeg_stream import decode as decode_picture
from lego_client.sources.network import NetworkStream
from lego_core.errors import LegoError

from tests.client.scenes import scene, shade_of
from tests.client.scripted_server import ScriptedServer
from tests.client.stream_servers import BOUNDARY, HttpCamera, RtspCamera, jpeg, part, pictures
from tests.client.test_cli import QUERY, lego_client, the_error

WAIT_S = 30.0  # for what takes a moment on a machine that is not busy
WHOLE = [jpeg(scene(10 * number)) for number in range(20)]


@pytest.fixture
def camera() -> Iterator[HttpCamera]:
    with HttpCamera() as camera:
        camera.parts["/live"] = lambda: (part(picture) for picture in pictures())
        yield camera


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def whole(frames: list[np.ndarray]) -> bool:
    """Whether each is a picture as it was drawn: the lower part of a broken one is grey."""
    return all(np.abs(pixels.astype(int) - scene(shade_of(pixels))).mean() < 6 for pixels in frames)


FAULTS: dict[str, Callable[[int, bytes], bytes]] = {
    "half a picture": lambda number, data: part(data[: len(data) // 2]) if number % 4 == 2 else part(data),
    "no picture": lambda number, data: part(b"\0nothing" * 90) if number % 4 == 2 else part(data),
    "too short a length": lambda number, data: part(data, len(data) - 100),
    "too great a length": lambda number, data: part(data, len(data) + 100),
    "no length": lambda number, data: part(data, -1),
    "another kind of part": lambda number, data: part(data, kind="text/plain"),
    "another boundary": lambda number, data: part(data).replace(BOUNDARY.encode(), b"other"),
    "nothing between pictures": lambda number, data: data,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_parts_cost_no_other_picture_and_no_connection(camera: HttpCamera, fault: str) -> None:
    camera.parts["/live"] = lambda: (FAULTS[fault](number, WHOLE[number % 20]) for number in count())
    with open_source(f"{camera.address}/live") as source:
        frames = source.wait_for(12, WAIT_S)
        assert whole([frame.pixels for frame in frames])
        assert len(camera.asked) == 1 and source.trouble == ""


@pytest.mark.parametrize(
    "kind", ["text/html", "application/octet-stream", "multipart/x-mixed-replace", "video/x-mjpeg"]
)
def test_pictures_are_found_whatever_the_content_type_says(camera: HttpCamera, kind: str) -> None:
    camera.kinds["/live"] = kind
    with open_source(f"{camera.address}/live") as source:
        assert len(source.wait_for(RING_SIZE, WAIT_S)) == RING_SIZE


def test_pictures_that_are_asked_for_one_by_one_are_a_stream_too(camera: HttpCamera) -> None:
    numbers = count()
    camera.parts["/shot.jpg"] = lambda: iter([WHOLE[next(numbers) % 20]])
    camera.kinds["/shot.jpg"] = "image/jpeg"
    with open_source(f"{camera.address}/shot.jpg") as source:
        frames = source.wait_for(10, WAIT_S)
        assert source.trouble == ""
    assert len({shade_of(frame.pixels) for frame in frames}) == RING_SIZE
    apart = np.diff([frame.time for frame in frames])
    assert apart.min() > 0.03  # a camera is not asked as fast as it can answer


def test_what_is_larger_than_8k_is_left_out_and_8k_is_read_small(camera: HttpCamera) -> None:
    eight_k = jpeg(np.full((4320, 7680, 3), 90, np.uint8))
    far_larger = bytearray(WHOLE[0])
    size = far_larger.index(b"\xff\xc0") + 5
    far_larger[size : size + 4] = b"\xff\xff\xff\xff"  # says that it has 65535 x 65535 pixels
    camera.parts["/live"] = lambda: iter([part(bytes(far_larger)), part(eight_k)])
    with open_source(f"{camera.address}/live") as source:
        (frame,) = source.wait_for(1, WAIT_S)
    assert frame.pixels.shape == (1080, 1920, 3)


@pytest.mark.parametrize("size", [(641, 481), (320, 180), (180, 320), (1921, 1081)])
def test_pictures_of_odd_sizes_keep_their_shape(camera: HttpCamera, size: tuple[int, int]) -> None:
    camera.parts["/live"] = lambda: iter([part(jpeg(scene(width=size[0], height=size[1])))] * 5)
    with open_source(f"{camera.address}/live") as source:
        (frame, *_) = source.wait_for(1, WAIT_S)
    assert frame.pixels.shape == (size[1], size[0], 3)


def test_grey_pictures_and_those_taken_sideways_come_out_in_colour_and_upright(camera: HttpCamera) -> None:
    sideways = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    camera.parts["/grey"] = lambda: iter([part(jpeg(scene()[..., 0]))])
    camera.parts["/sideways"] = lambda: iter([part(jpeg(scene(), exif=sideways))])
    for path, shape in (("/grey", (180, 320, 3)), ("/sideways", (320, 180, 3))):
        with open_source(camera.address + path) as source:
            assert source.wait_for(1, WAIT_S)[0].pixels.shape == shape


def test_a_camera_that_is_switched_off_and_on_goes_on_by_itself(camera: HttpCamera) -> None:
    with open_source(f"{camera.address}/live") as source:
        source.wait_for(3, WAIT_S)
        camera.stop()
        until(lambda: "trying again" in source.trouble)
        seen = source.newest()[-1].sequence
        camera.start()
        assert source.wait_for(seen + 1, WAIT_S)[-1].sequence > seen
        until(lambda: source.trouble == "")


def test_a_camera_that_stays_away_is_given_up_in_bounded_time(camera: HttpCamera) -> None:
    with NetworkStream(f"{camera.address}/live", backoff=Backoff(0.5)) as source:
        source.wait_for(3, WAIT_S)
        camera.stop()
        with pytest.raises(LegoError, match=r"did not come back within 0\.5 s; check the network and the camera"):
            source.wait_for(10_000, WAIT_S)
    camera.start()


def test_waits_between_tries_grow_and_are_drawn_at_random(camera: HttpCamera) -> None:
    camera.parts["/live"] = lambda: iter([part(WHOLE[0])])  # one picture, and then nothing more, ever
    drawn: list[float] = []

    def uniform() -> float:
        drawn.append(0.5)
        camera.parts["/live"] = lambda: iter([])
        return 0.5

    source = NetworkStream(f"{camera.address}/live", backoff=Backoff(1.0, base=0.05, uniform=uniform))
    with source, pytest.raises(LegoError, match="did not come back"):
        source.wait_for(100, WAIT_S)
    assert 3 <= len(drawn) <= 8  # each wait is twice the one before
    assert len(camera.asked) <= len(drawn) + 1


def test_a_camera_that_stalls_is_told_of_and_goes_on(camera: HttpCamera) -> None:
    stalled = threading.Event()

    def stalling() -> Iterator[bytes]:
        for number, picture in enumerate(pictures()):
            if number == 40:
                stalled.wait(WAIT_S)
            yield part(picture)

    camera.parts["/live"] = stalling
    with open_source(f"{camera.address}/live") as source:
        source.wait_for(3, WAIT_S)
        until(lambda: "has delivered no frame for more than 3 s" in source.trouble)
        stalled.set()
        seen = source.newest()[-1].sequence
        assert source.view(seen, WAIT_S)[-1].sequence > seen
        assert source.trouble == "" and len(camera.asked) == 1


def test_frames_from_before_a_silence_are_not_asked_about(camera: HttpCamera) -> None:
    silence = threading.Event()

    def stalling() -> Iterator[bytes]:
        yield from (part(WHOLE[0]) for _ in range(100))
        silence.wait(WAIT_S)
        yield from (part(WHOLE[15]) for _ in count())

    camera.parts["/live"] = stalling
    with open_source(f"{camera.address}/live") as source:
        source.wait_for(RING_SIZE, WAIT_S)
        until(lambda: source.trouble != "")
        threading.Timer(0.5, silence.set).start()
        frames = source.view(0, WAIT_S)
    assert {round(shade_of(frame.pixels), -1) for frame in frames} == {150}


def test_data_without_a_picture_is_given_up(camera: HttpCamera) -> None:
    camera.parts["/live"] = lambda: (part(b"\xff\xd8\xff\xe0\xff\xff" + bytes(64)) for _ in count())
    with open_source(f"{camera.address}/live") as source, pytest.raises(LegoError, match="data but no whole picture"):
        source.wait_for(1, WAIT_S)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/page", r"serves a page \(text/html\) and no video; give the address of the stream itself"),
        ("/missing", r"no video at .*/missing \(HTTP 404\); check the part of the address after the host"),
        ("/later", r"no video at .*/later now \(HTTP 503\); check that the stream is on"),
        ("/empty", "no video at .*/empty; check"),
    ],
)
def test_what_is_no_stream_is_said_with_the_cure(camera: HttpCamera, path: str, words: str) -> None:
    camera.parts["/page"] = lambda: iter([b"<!doctype html><title>camera</title>"])
    camera.kinds["/page"] = "text/html; charset=utf-8"
    camera.statuses["/later"] = 503
    camera.parts["/empty"] = lambda: iter([])
    with open_source(camera.address + path) as source, pytest.raises(LegoError, match=words):
        source.wait_for(1, WAIT_S)


def test_a_host_that_does_not_exist_is_said() -> None:
    words = r"no video at http://no-such-host\.invalid/live \(.*\); check the address"
    with open_source("http://no-such-host.invalid/live") as source, pytest.raises(LegoError, match=words):
        source.wait_for(1, WAIT_S)


def test_a_password_is_asked_for_and_used(camera: HttpCamera) -> None:
    camera.authorized = lambda header: header == "Basic YW5uYTpzZWNyZXQ6L0A="  # anna, secret:/@
    for login, words in (("", "asks for a password"), ("anna:wrong@", "does not take this user name and password")):
        source = open_source(camera.address.replace("//", f"//{login}") + "/live")
        with source, pytest.raises(LegoError, match=words):
            source.wait_for(1, WAIT_S)
    with open_source(camera.address.replace("//", "//anna:secret%3A%2F%40@") + "/live") as source:
        assert len(source.wait_for(3, WAIT_S)) >= 3


def test_a_password_is_not_sent_in_the_clear_where_the_camera_can_do_better(camera: HttpCamera) -> None:
    def digest(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    def authorized(header: str) -> bool:
        said = dict(re.findall(r'(\w+)="?([^",]+)"?', header))
        if not header.startswith("Digest"):
            return False
        inner = ":".join([said["nonce"], said["nc"], said["cnonce"], said["qop"], digest("GET:/live")])
        return said["response"] == digest(f"{digest('anna:camera:secret')}:{inner}")

    camera.challenge = 'Digest realm="camera", nonce="8f2", qop="auth", algorithm=MD5'
    camera.authorized = authorized
    with open_source(camera.address.replace("//", "//anna:secret@") + "/live") as source:
        source.wait_for(3, WAIT_S)
    assert all("secret" not in header and "Basic" not in header for _, header in camera.asked)


SECRETS = [
    "rtsp://anna:secret@camera.local/live",
    "rtsp://anna:sec@ret@camera.local/live",
    "http://anna:se/cret@camera.local/live",
    "http://anna:se?cr#et@camera.local/live",
    "http://camera.local/live?user=anna&password=secret",
    "https://anna@camera.local/live#secret",
]


@pytest.mark.parametrize("address", SECRETS)
def test_names_and_passwords_are_left_out_of_what_is_said_of_an_address(address: str) -> None:
    said = shown(address)
    assert said.removesuffix("?...").endswith("://camera.local/live")
    for secret in ("anna", "secret", "sec", "ret", "se/", "cr", "et@"):
        assert secret not in said


@pytest.mark.parametrize("address", SECRETS)
async def test_a_password_is_in_no_line_and_no_file(address: str, tmp_path: Path) -> None:
    """Through the command: the error of a camera that is not there, and of an option that does not fit."""
    async with ScriptedServer() as server:
        for more in ((), ("--at", 3)):
            finished = await lego_client(
                "ask", "--server", server.target, "--source", address.replace("camera.local", "127.0.0.1:9"), *more,
                "--out", tmp_path / "out", QUERY,
            )  # fmt: skip
            said = finished.stdout + the_error(finished)
            assert finished.code == 2
            assert not any(secret in said for secret in ("anna", "secret", "sec@", "ret@", "cret", "et@"))


async def test_an_answer_about_a_stream_keeps_its_password_out_of_the_record(
    camera: HttpCamera, tmp_path: Path
) -> None:
    async with ScriptedServer() as server:
        finished = await lego_client(
            "ask", "--server", server.target, "--out", tmp_path / "out",
            "--source", camera.address.replace("//", "//anna:secret@") + "/live", QUERY,
        )  # fmt: skip
    assert finished.code == 0, finished.stderr
    record = (tmp_path / "out" / "record.json").read_text()
    assert f"{camera.address}/live" in record and "secret" not in record + finished.stdout


@pytest.mark.parametrize("open_it", [open_source, open_clip])
def test_an_address_of_another_kind_is_refused_without_its_password(open_it: Callable[[str], FrameSource]) -> None:
    with pytest.raises(LegoError, match=r"^rstp://cam/live is no path; streams begin with rtsp://, rtsps://, http://"):
        open_it("rstp://anna:secret@cam/live")


def test_a_login_is_taken_out_of_an_address_before_it_is_asked() -> None:
    asked = without_credentials("http://an%40na:s%2Fe%3A@camera:81/live?size=2#x")
    assert asked == ("http://camera:81/live?size=2", "an@na", "s/e:")
    assert without_credentials("https://camera") == ("https://camera/", "", "")


@pytest.fixture(scope="module")
def rtsp() -> Iterator[RtspCamera]:
    pytest.importorskip("av", reason="PyAV makes the H.264 that the camera sends")
    with RtspCamera() as camera:
        yield camera


def frames_of(source: FrameSource, number: int) -> list[tuple[int, ...]]:
    return [frame.pixels.shape for frame in source.wait_for(number, WAIT_S)]


def test_an_rtsp_camera_delivers_frames_over_tcp(rtsp: RtspCamera) -> None:
    with open_source(f"rtsp://127.0.0.1:{rtsp.port}/live") as source:
        assert frames_of(source, RING_SIZE) == [(180, 320, 3)] * RING_SIZE
    assert "TCP" in rtsp.transports[0]


def test_an_rtsp_camera_shows_the_present(rtsp: RtspCamera) -> None:
    """Pictures are neither collected before they are shown, nor held back while others are decoded."""
    with open_source(f"rtsp://127.0.0.1:{rtsp.port}/live") as source:
        source.wait_for(20, WAIT_S)
        rtsp.playing.clear()
        try:
            time.sleep(1)
            seen = source.newest()[-1].sequence
            rtsp.playing.set()
            source.wait_for(seen + 1, WAIT_S)
        finally:
            rtsp.playing.set()
        apart = np.diff([frame.time for frame in source.wait_for(seen + 6, WAIT_S)])
    assert np.median(apart) > 0.03  # none came in a bunch: there was no store of them


def test_an_rtsp_camera_is_shown_the_password_and_nobody_else() -> None:
    pytest.importorskip("av", reason="PyAV makes the H.264 that the camera sends")
    with RtspCamera("anna", "secret") as camera:
        with open_source(f"rtsp://anna:secret@127.0.0.1:{camera.port}/live") as source:
            source.wait_for(3, WAIT_S)
            assert source.name == f"rtsp://127.0.0.1:{camera.port}/live"
        words = f"no video at rtsp://127.0.0.1:{camera.port}/live; check .*password"
        source = open_source(f"rtsp://anna:wrong@127.0.0.1:{camera.port}/live")
        with source, pytest.raises(LegoError, match=words):
            source.wait_for(1, WAIT_S)


def split(chunks: list[bytes]) -> list[bytes]:
    splitter = JpegSplitter()
    return [picture for chunk in chunks for picture in splitter.feed(chunk)]


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, 60_000), max_size=30), junk=st.binary(max_size=40))
def test_pictures_are_found_however_the_bytes_are_cut(cuts: list[int], junk: bytes) -> None:
    """Each holds a smaller picture of its own, as those of cameras do, which must not be taken for it."""
    thumbnail = jpeg(scene(99, 32, 18))
    whole = [jpeg(scene(10 * number), exif=b"Exif\0\0" + thumbnail) for number in range(3)]
    stream = b"".join(part(picture) + junk.replace(b"\xff", b"") for picture in whole)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    found = split([stream[start:end] for start, end in pairwise(places)])
    assert found == whole


def test_progressive_pictures_and_those_with_restarts_are_found_byte_by_byte() -> None:
    progressive = jpeg(scene(), progressive=True)
    restarts = cv2.imencode(".jpg", scene(), [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes()
    found = split([bytes([byte]) for byte in progressive + b"\r\n" + restarts])
    assert found == [progressive, restarts]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 2000), st.binary(max_size=20))
def test_no_bytes_break_the_splitter_or_the_decoder(noise: bytes, place: int, damage: bytes) -> None:
    picture = WHOLE[3]
    damaged = picture[:place] + damage + picture[place + len(damage) :]
    for found in split([noise, b"\xff\xd8\xff" + noise, damaged, part(picture)]):
        decode_picture(found)
    # A damaged table may claim the next 64 KiB, and no more than one does.
    assert split([damaged, *WHOLE])[-1] == WHOLE[-1]
