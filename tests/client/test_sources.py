"""Frame sources: what each delivers, and how each says what is wrong."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.sources import RING_SIZE, FrameSource, open_source
from lego_client.sources.cameras import list_cameras
from lego_client.sources.factory import open_clip
from lego_core.errors import LegoError
from numpy.typing import NDArray
from PIL import Image

from tests.client.scenes import CLIP_FPS, CLIP_FRAMES, scene, shade_of


class CountingSource(FrameSource):
    """Frames whose every pixel is their number, as fast as they can be made."""

    def __init__(self, frames: int) -> None:
        super().__init__("counter", live=True)
        self._frames = frames

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        for number in range(1, self._frames + 1):
            yield np.full((8, 8, 3), number, np.uint8), number / 100
        while not self._closing.is_set():  # a camera that shows nothing new
            self.pause(0.01)


def test_only_the_newest_seven_frames_are_kept() -> None:
    with CountingSource(50) as source:
        frames = source.wait_for(50, timeout=5)
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == list(range(44, 51))
    assert [frame.sequence for frame in frames] == list(range(44, 51))


def test_waiting_returns_the_frames_there_are_when_time_is_up() -> None:
    with CountingSource(3) as source:
        assert len(source.wait_for(RING_SIZE, timeout=0.2)) == 3


def test_a_silent_source_is_reported_by_name() -> None:
    with CountingSource(0) as source, pytest.raises(LegoError, match=r"counter delivered no frame within 0\.1 s"):
        source.wait_for(1, timeout=0.1)


def test_a_live_source_that_stands_still_is_not_asked_about_again() -> None:
    with CountingSource(9) as source:
        seen = source.view(0, timeout=5)[-1].sequence
        while seen < 9:  # there are newer frames than those asked about
            seen = source.view(seen, timeout=5)[-1].sequence
        with pytest.raises(LegoError, match=r"counter has delivered no new frame for 0\.1 s"):
            source.view(seen, timeout=0.1)


def test_a_picture_can_be_asked_about_again(picture: Path) -> None:
    with open_source(str(picture)) as source:
        assert source.view(0, timeout=5)[-1].sequence == source.view(1, timeout=5)[-1].sequence == 1


def test_closing_wakes_whoever_waits() -> None:
    source = CountingSource(1)
    source.start()
    waiting = threading.Thread(target=source.wait_for, args=(99, 60.0))
    waiting.start()
    source.close()
    waiting.join(timeout=2)
    assert not waiting.is_alive()


def test_a_picture_is_one_frame_with_its_pixels(picture: Path) -> None:
    with open_source(str(picture)) as source:
        (frame,) = source.wait_for(RING_SIZE, timeout=5)
    assert not source.live
    np.testing.assert_array_equal(frame.pixels, scene())


def test_a_picture_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(scene(width=320, height=180))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned a quarter clockwise
    image.save(tmp_path / "phone.jpg", exif=exif)
    with open_source(str(tmp_path / "phone.jpg")) as source:
        (frame,) = source.wait_for(1, timeout=5)
    assert frame.pixels.shape == (320, 180, 3)


def test_a_folder_delivers_its_newest_pictures_in_the_order_of_their_names(tmp_path: Path) -> None:
    for index in range(10):
        Image.fromarray(scene(20 * index)).save(tmp_path / f"{index:04d}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    with open_source(str(tmp_path)) as source:
        frames = source.wait_for(RING_SIZE, timeout=5)
    assert [shade_of(frame.pixels) for frame in frames] == [20 * index for index in range(3, 10)]


def test_numbers_without_leading_zeros_are_in_order_too(tmp_path: Path) -> None:
    for index in range(8, 12):
        Image.fromarray(scene(20 * index)).save(tmp_path / f"frame_{index}.png")
    with open_source(str(tmp_path)) as source:
        frames = source.wait_for(RING_SIZE, timeout=5)
    assert [shade_of(frame.pixels) for frame in frames] == [160, 180, 200, 220]


def test_a_picture_of_16_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(shades).save(tmp_path / "depth.png")
    with open_source(str(tmp_path / "depth.png")) as source:
        (frame,) = source.wait_for(1, timeout=5)
    np.testing.assert_array_equal(frame.pixels[..., 0], shades >> 8)


def test_a_half_written_picture_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    Image.fromarray(scene(40)).save(tmp_path / "0001.png")
    (tmp_path / "0002.png").write_bytes((tmp_path / "0001.png").read_bytes()[:60])
    with open_source(str(tmp_path)) as source:
        (frame,) = source.wait_for(RING_SIZE, timeout=5)
    assert shade_of(frame.pixels) == 40


def test_a_video_shows_its_last_seven_frames_by_default(clip: Path) -> None:
    with open_source(str(clip)) as source:
        frames = source.wait_for(RING_SIZE, timeout=5)
    expected = range(CLIP_FRAMES - RING_SIZE, CLIP_FRAMES)
    assert [frame.time for frame in frames] == pytest.approx([index / CLIP_FPS for index in expected])
    assert [shade_of(frame.pixels) for frame in frames] == pytest.approx([8 * index for index in expected], abs=4)


def test_a_video_can_be_asked_about_at_a_position(clip: Path) -> None:
    with open_source(str(clip), at=1.25) as source:
        frames = source.wait_for(RING_SIZE, timeout=5)
    assert frames[-1].time == pytest.approx(1.2)
    assert shade_of(frames[-1].pixels) == pytest.approx(8 * 12, abs=4)
    assert len(frames) == RING_SIZE


def test_the_start_of_a_video_is_a_single_frame(clip: Path) -> None:
    with open_source(str(clip), at=0) as source:
        assert len(source.wait_for(RING_SIZE, timeout=5)) == 1


def test_a_clip_plays_in_real_time(clip: Path) -> None:
    began = time.monotonic()
    with open_clip(str(clip), speed=2.0) as source:
        frames = source.wait_for(13, timeout=5)
    assert frames[-1].time == pytest.approx(1.2, abs=0.11)
    assert time.monotonic() - began == pytest.approx(0.6, abs=0.3)


@pytest.mark.parametrize("name", ["epic_open_drawer.mp4", "mixkit_chef-preparing-a-sauce-in-a-blender-43034.mp4"])
def test_real_clips_are_read_at_their_own_size(fixtures: Path, name: str) -> None:
    capture = cv2.VideoCapture(str(fixtures / "clips" / name))
    height, width = (int(capture.get(which)) for which in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    capture.release()
    for at in (None, 1.0):
        with open_source(str(fixtures / "clips" / name), at) as source:
            frames = source.wait_for(RING_SIZE, timeout=10)
        assert len(frames) == RING_SIZE
        assert {frame.pixels.shape for frame in frames} == {(height, width, 3)}


def test_a_real_photograph_is_read_at_its_own_aspect_ratio(fixtures: Path) -> None:
    photograph = sorted((fixtures / "images" / "epic_frames").glob("*.jpg"))[0]
    with open_source(str(photograph)) as source:
        (frame,) = source.wait_for(1, timeout=5)
    assert frame.pixels.shape == (256, 456, 3)


@pytest.fixture
def web_camera(clip: Path) -> Iterator[str]:
    """A phone-like HTTP camera: /stream is endless MJPEG, /broken stops after three frames, /clip.mp4 is a file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/clip.mp4":
                whole = clip.read_bytes()
                start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
                data = whole[start:]
                self.send_response(206)
                self.send_header("Content-Type", "video/mp4")
                self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the reader skips to another part
                    self.wfile.write(data)
                return
            if self.path not in ("/stream", "/broken"):
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(3 if self.path == "/broken" else 10_000):
                jpeg = cv2.imencode(".jpg", scene(number % 20 * 10))[1].tobytes()
                try:
                    self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
                    self.wfile.write(jpeg + b"\r\n")
                except OSError:
                    return
                time.sleep(0.01)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_http_camera_delivers_frames(web_camera: str) -> None:
    with open_source(f"{web_camera}/stream") as source:
        frames = source.wait_for(RING_SIZE, timeout=20)
    assert source.live
    assert len(frames) == RING_SIZE
    assert frames[-1].pixels.shape == (180, 320, 3)


def test_a_video_file_over_http_is_read(web_camera: str) -> None:
    with open_source(f"{web_camera}/clip.mp4") as source:
        assert source.wait_for(5, timeout=20)[-1].pixels.shape == (180, 320, 3)


def test_a_stream_that_breaks_off_is_opened_again(web_camera: str) -> None:
    with open_source(f"{web_camera}/broken") as source:
        assert source.wait_for(5, timeout=20)[-1].sequence >= 5  # more than the first connection gave


def test_a_stream_that_is_not_there_is_reported(web_camera: str) -> None:
    with open_source(f"{web_camera}/nothing") as source, pytest.raises(LegoError, match="no video at http"):
        source.wait_for(1, timeout=20)


def test_a_password_in_an_address_is_shown_nowhere() -> None:
    with open_source("http://me:secret@127.0.0.1:1/live") as source:
        with pytest.raises(LegoError, match=r"no video at http://127\.0\.0\.1:1/live \("):
            source.wait_for(1, timeout=20)
        assert source.name == "http://127.0.0.1:1/live"


@pytest.mark.parametrize("spec", ["how do I " + "x" * 300, "~nobody-by-this-name/a.jpg"])
def test_a_path_that_cannot_be_looked_for_is_reported(spec: str) -> None:
    with pytest.raises(LegoError, match=r"cannot be looked for .*; check the path"):
        open_source(spec)


def test_a_missing_file_is_answered_with_the_nearest_name(picture: Path) -> None:
    with pytest.raises(LegoError, match=r"did you mean '.*drawer\.png'"):
        open_source(str(picture.with_name("drawr.png")))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"the folder '.*nowhere' does not exist"):
        open_source(str(tmp_path / "nowhere" / "a.jpg"))


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="holds no picture"):
        open_source(str(tmp_path))


def test_an_unsupported_type_is_answered_with_the_supported_ones(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(LegoError, match=r"unsupported type '\.txt'.*\.jpg.*\.mp4"):
        open_source(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(("name", "kind"), [("broken.jpg", "picture"), ("broken.mp4", "video")])
def test_a_damaged_file_is_reported(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\x00garbage" * 100)
    with open_source(str(tmp_path / name)) as source, pytest.raises(LegoError, match=f"cannot be read as a {kind}"):
        source.wait_for(1, timeout=10)


def test_a_missing_camera_is_answered_with_those_present() -> None:
    missing = max((camera.number for camera in list_cameras()), default=0) + 7
    with open_source(str(missing)) as source, pytest.raises(LegoError, match=f"no camera {missing}.*(present|none)"):
        source.wait_for(1, timeout=10)


def test_a_position_after_the_end_is_reported_with_the_duration(clip: Path) -> None:
    with open_source(str(clip), at=9) as source, pytest.raises(LegoError, match=r"lasts 3\.00 s; 9 s is after its end"):
        source.wait_for(1, timeout=5)


def test_a_position_needs_a_video(picture: Path) -> None:
    with pytest.raises(LegoError, match="needs a video file"):
        open_source(str(picture), at=1)


@pytest.mark.parametrize("at", [-1, float("nan"), float("inf")])
def test_an_impossible_position_is_refused(clip: Path, at: float) -> None:
    with pytest.raises(LegoError, match="counts from the start of the video, 0 upwards"):
        open_source(str(clip), at=at)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_an_impossible_speed_is_refused(clip: Path, speed: float) -> None:
    with pytest.raises(LegoError, match="the speed is"):
        open_clip(str(clip), speed)
