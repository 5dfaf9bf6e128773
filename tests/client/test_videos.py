"""Video files that are not as simple as they might be: varying rates, turned, odd, grey; made here with PyAV."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lego_client.sources import RING_SIZE, open_source
from lego_client.sources.factory import open_clip
from lego_client.sources.framing import Framing
from lego_core.errors import LegoError

from tests.client.scenes import scene, shade_of

av = pytest.importorskip("av", reason="PyAV makes the videos")

VARYING = [0, 33, 66, 400, 433, 900, 933, 966, 1500, 1533, 2500, 2533]  # milliseconds


def write(
    path: Path, times: Sequence[int] = VARYING, *, size: tuple[int, int] = (320, 180), codec: str = "libx264",
    pixels: str = "yuv420p", options: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Writes a video whose frame i is `scene(8 * (i % 31))` at the i-th time."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(scene(8 * (index % 31), *size), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seen(path: Path, at: float | None = None) -> list[tuple[float, int]]:
    """Returns the milliseconds and the index of each frame that a source shows."""
    with open_source(str(path), at) as source:
        frames = source.wait_for(RING_SIZE, 20)
    return [(round(1000 * frame.time), round(shade_of(frame.pixels) / 8)) for frame in frames]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.mov"])
def test_frames_of_a_varying_rate_have_the_times_that_the_file_states(tmp_path: Path, name: str) -> None:
    frames = seen(write(tmp_path / name, options={"bf": "2"}))
    assert [moment for moment, _ in frames] == pytest.approx(VARYING[-RING_SIZE:], abs=1)
    assert [index for _, index in frames] == [5, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts"])
@pytest.mark.parametrize(("at", "index"), [(0.0, 0), (0.39, 2), (0.9, 5), (1.4, 7), (1.51, 8), (2.49, 9), (2.52, 10)])
def test_a_position_in_a_varying_rate_shows_the_frame_that_was_on_show(
    tmp_path: Path, name: str, at: float, index: int
) -> None:
    frames = seen(write(tmp_path / name), at)
    assert frames[-1][1] == index
    assert len(frames) == min(RING_SIZE, index + 1)


def test_a_position_late_in_a_long_clip_of_a_varying_rate_is_found(tmp_path: Path) -> None:
    """For the first half a frame each second, then 20 a second: the mean rate leads far astray."""
    times = [1000 * index for index in range(30)] + [30_000 + 50 * index for index in range(600)]
    path = write(tmp_path / "long.mp4", times, options={"g": "10"})
    for at in (29.5, 31.03, 59.99):
        with open_source(str(path), at) as source:
            frames = source.wait_for(RING_SIZE, 30)
        assert len(frames) == RING_SIZE
        assert frames[-1].time == pytest.approx(
            max(moment for moment in times if moment <= 1000 * at) / 1000, abs=0.002
        )


def test_a_clip_of_a_varying_rate_plays_each_frame_when_it_is_due(tmp_path: Path) -> None:
    with open_clip(str(write(tmp_path / "clip.mp4"))) as source:
        began = time.monotonic()
        frames = source.wait_for(len(VARYING), 20)
    assert time.monotonic() - began > 2.4
    assert [frame.time for frame in frames] == pytest.approx(
        [moment / 1000 for moment in VARYING[-RING_SIZE:]], abs=0.002
    )
    due = np.diff([frame.captured for frame in frames])
    assert due[-2] > 0.5  # the long wait between the ninth frame and the tenth


def test_a_position_after_the_end_of_a_varying_rate_is_reported(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "clip.mp4")), 4)
    with source, pytest.raises(LegoError, match="4 s is after its end"):
        source.wait_for(1, 20)


@pytest.mark.parametrize(("turn", "size"), [(0, (320, 180)), (90, (180, 320)), (180, (320, 180)), (270, (180, 320))])
def test_a_clip_that_a_phone_filmed_sideways_is_turned_upright(
    tmp_path: Path, turn: int, size: tuple[int, int]
) -> None:
    path = write(tmp_path / "phone.mp4")
    turn_track(path, turn)
    with open_source(str(path)) as source:
        pixels = source.wait_for(1, 20)[-1].pixels
    assert (pixels.shape[1], pixels.shape[0]) == size
    upright = np.rot90(pixels, turn // 90)  # back to how it was drawn
    assert upright.shape == (180, 320, 3)
    assert list(upright[75, 100] > 128) == [True, False, False]  # the red field is left of the middle


def turn_track(path: Path, degrees: int) -> None:
    """Writes the turn that players make into the track's header, as phones do."""
    cosine, sine = round(math.cos(math.radians(degrees))), round(math.sin(math.radians(degrees)))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    for place, value in enumerate((cosine, sine, 0, -sine, cosine)):
        data[matrix + 4 * place : matrix + 4 * place + 4] = (value << 16).to_bytes(4, signed=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("odd.mkv", {"size": (321, 181), "pixels": "yuv444p"}),
        ("portrait.mp4", {"size": (180, 320)}),
        ("grey.mkv", {"codec": "ffv1", "pixels": "gray"}),
        ("grey16.mkv", {"codec": "ffv1", "pixels": "gray16le"}),
        ("alpha.mkv", {"codec": "ffv1", "pixels": "bgra"}),
        ("deep.mkv", {"codec": "ffv1", "pixels": "yuv420p10le"}),
        ("moving.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
        ("web.webm", {"codec": "libvpx"}),
    ],
)
def test_videos_of_any_shape_and_depth_are_read_in_colour_at_their_size(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = write(tmp_path / name, [40 * index for index in range(12)], **options)
    with open_source(str(path)) as source:
        frames = source.wait_for(RING_SIZE, 20)
    width, height = options.get("size", (320, 180))
    assert {frame.pixels.shape for frame in frames} == {(height, width, 3)}
    assert [round(shade_of(frame.pixels) / 8) for frame in frames] == [5, 6, 7, 8, 9, 10, 11]


def test_a_clip_in_8k_is_kept_small(tmp_path: Path) -> None:
    path = write(tmp_path / "8k.avi", [0, 40], size=(7680, 4320), codec="mjpeg", pixels="yuvj420p")
    with open_source(str(path)) as source:
        assert source.wait_for(2, 60)[-1].pixels.shape == (720, 1280, 3)


def test_a_camera_worn_sideways_is_turned_and_a_mirrored_one_put_right(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4")
    for framing, shape in ((Framing(90), (320, 180, 3)), (Framing(180, mirror=True), (180, 320, 3))):
        with open_source(str(path), framing=framing) as source:
            assert source.wait_for(1, 20)[-1].pixels.shape == shape
        with open_clip(str(path), 50, framing) as source:
            assert source.wait_for(1, 20)[-1].pixels.shape == shape


def test_a_clip_that_is_cut_off_shows_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", [40 * index for index in range(50)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = seen(path)
    assert len(frames) == RING_SIZE and 5 < frames[-1][1] < 49
