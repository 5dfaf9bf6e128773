"""How much is sent: by the wearer's wish, and by what the link bears."""

from __future__ import annotations

import asyncio
import io
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.encoding import encode_frame
from lego_client.frame_window import FrameWindow
from lego_client.pace import Pace
from lego_client.sending import LEVELS, Level, LevelChooser, Sending
from lego_client.session import GuidanceClient
from lego_core.errors import LegoError
from numpy.typing import NDArray
from PIL import Image

from tests.client.scenes import scene
from tests.client.scripted_server import Script, ScriptedServer
from tests.client.slow_link import SlowLink
from tests.client.test_cli import QUERY, lego_client

FAST, SLOW = 1e-9, 1e-5  # seconds a byte


def textured(width: int = 1280, height: int = 720, seed: int = 0) -> NDArray[np.uint8]:
    """A picture that takes as many bytes as a photograph."""
    small = np.random.default_rng(seed).integers(60, 190, (height // 4, width // 4, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def settle(chooser: LevelChooser, seconds_per_byte: float, frames: int = 50) -> list[int]:
    """Delivers frames of the size that the level gives, and returns the levels' indices."""
    indices = []
    for _ in range(frames):
        size = round(200_000 / 1.7 ** LEVELS.index(chooser.level))
        chooser.delivered(size, size * seconds_per_byte)
        indices.append(LEVELS.index(chooser.level))
    return indices


def test_each_level_takes_fewer_bytes_than_the_one_before_by_about_the_same() -> None:
    sizes = [len(encode_frame(textured(), level=level).jpeg) for level in LEVELS]
    assert all(1.2 < larger / smaller < 2.2 for larger, smaller in pairwise(sizes)), sizes


def test_a_quick_link_gets_the_finest_frames() -> None:
    assert set(settle(LevelChooser(), FAST)) == {0}


def test_a_slow_link_gets_coarser_frames_at_once_and_stays_there() -> None:
    indices = settle(LevelChooser(), SLOW)
    assert indices[0] == indices[-1] > 1
    assert len(set(indices)) == 1  # no swinging to and fro


def test_a_link_that_recovers_gets_finer_frames_one_level_at_a_time() -> None:
    chooser = LevelChooser()
    settle(chooser, SLOW)
    indices = settle(chooser, FAST)
    assert indices[-1] == 0
    assert max(before - after for before, after in pairwise(indices)) == 1
    assert indices[4] == indices[0]  # several quick frames come first


@pytest.mark.parametrize("seconds_per_byte", np.geomspace(1e-8, 1e-4, 25).tolist())
def test_on_no_link_do_levels_swing(seconds_per_byte: float) -> None:
    indices = settle(LevelChooser(), seconds_per_byte, 100)
    assert len(set(indices[20:])) == 1


def test_the_worst_link_gets_the_coarsest_level_and_no_less() -> None:
    assert settle(LevelChooser(), 1.0)[-1] == len(LEVELS) - 1


def test_saving_data_bounds_the_finest_level() -> None:
    chooser = LevelChooser.of(Sending(data_saver=True))
    assert settle(chooser, FAST) == [LEVELS.index(Level(512, 60))] * 50


@pytest.mark.parametrize("fps", [0, -1, 61, float("nan")])
def test_a_rate_out_of_range_is_refused(fps: float) -> None:
    with pytest.raises(LegoError, match=r"send-fps is .*; it must be above 0 and at most 60"):
        Sending(fps=fps)


def test_a_frame_is_never_made_smaller_than_the_model_sees_it() -> None:
    for pixels, size in ((scene(width=1280, height=720), (455, 256)), (scene(width=480, height=640), (288, 384))):
        encoded = encode_frame(pixels, level=LEVELS[-1], least_side=256)
        assert (encoded.width, encoded.height) == size
    assert encode_frame(scene(width=320, height=180), level=LEVELS[-1], least_side=256).width == 320  # nor enlarged


def test_the_servers_limits_go_before_what_the_model_sees() -> None:
    encoded = encode_frame(scene(width=1280, height=720), max_pixels=20_000, level=LEVELS[-1], least_side=256)
    assert encoded.width * encoded.height <= 20_000


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_link_is_measured_without_round_trip_and_without_those_before() -> None:
    clock, measured = Clock(), []
    window = FrameWindow(lambda size, seconds: measured.append((size, round(seconds, 3))), clock)
    window.connected(3, resumed=False, round_trip=0.2)
    window.sent(1, 1, 1000)
    clock.now += 0.1
    window.sent(2, 2, 2000)
    clock.now += 0.6
    window.received(1)  # on its way for 0.7 s, of which the round trip is 0.2
    clock.now += 0.8
    window.received(2)  # behind the first until 0.8 s ago
    assert measured == [(1000, 0.5), (2000, 0.8)]


def test_a_round_trip_that_was_measured_while_the_server_was_busy_is_put_right() -> None:
    clock, measured = Clock(), []
    window = FrameWindow(lambda size, seconds: measured.append(round(seconds, 3)), clock)
    window.connected(3, resumed=False, round_trip=5.0)
    for number, seconds in enumerate((0.3, 0.7), 1):
        window.sent(number, number, 1000)
        clock.now += seconds
        window.received(number)
    assert measured == [0.0, 0.4]


def test_frames_lost_with_a_stream_measure_nothing() -> None:
    clock, measured = Clock(), []
    window = FrameWindow(lambda size, seconds: measured.append(seconds), clock)
    window.connected(3, resumed=False)
    window.sent(1, 1, 1000)
    clock.now += 60
    window.lost()
    window.connected(3, resumed=True)
    window.received(1)
    assert measured == []


@pytest.mark.parametrize(("camera", "taken"), [(60, 15), (30, 15), (25, 12.5), (15, 15), (10, 10)])
def test_a_pace_takes_frames_evenly_and_no_more_than_it_may(camera: float, taken: float) -> None:
    pace, rate = Pace(15), np.random.default_rng(0)
    moments = [number / camera + rate.normal(0, 0.001) for number in range(round(10 * camera))]
    due = []
    for moment in moments:
        if pace.due(moment):
            pace.take(moment)
            due.append(moment)
    assert len(due) / 10 == pytest.approx(taken, rel=0.05)
    assert (
        np.diff(due).max() < 1.3 / taken
    )  # of a camera of 60 frames a second, the next is a quarter of the period away


async def live(client: GuidanceClient, seconds: float, pixels: NDArray[np.uint8] | None = None) -> None:
    """Offers frames as a camera of 50 frames a second does."""
    pixels = textured() if pixels is None else pixels
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.offer_frame(pixels)
        await asyncio.sleep(0.02)


async def test_no_more_frames_are_sent_than_asked_for() -> None:
    async with ScriptedServer() as server, GuidanceClient(server.target, sending=Sending(fps=5)) as client:
        await live(client, 2.0, pixels=scene())
    assert 3 <= len(server.script.frames) <= 11


async def test_with_the_data_saver_nothing_is_sent_that_was_not_asked_about() -> None:
    saver = Sending(data_saver=True)
    async with ScriptedServer() as server, GuidanceClient(server.target, sending=saver) as client:
        await live(client, 0.5)
        assert not server.script.frames
        frame = await client.send_frame(textured())
        async for _ in client.ask(QUERY, frame):
            pass
    (sent,) = server.script.frames.values()
    assert Image.open(io.BytesIO(sent)).size == (512, 288)


async def test_on_a_slow_link_frames_become_coarser_and_stay_young() -> None:
    """A finest frame would take five seconds on this link."""
    finest = len(encode_frame(textured()).jpeg)
    async with (
        ScriptedServer(Script(frame_credits=3)) as server,
        SlowLink(server.target, 1e9) as link,
        GuidanceClient(link.target) as client,
    ):
        link.bytes_per_second = finest / 5
        await live(client, 12)
        frame = await client.send_frame(textured(seed=1))
        asked = time.monotonic()
        async for _ in client.ask(QUERY, frame):
            pass
        waited = time.monotonic() - asked
    sizes = [len(data) for data in server.script.frames.values()]
    assert sizes[0] > 0.9 * finest and sizes[-1] < finest / 5
    assert Image.open(io.BytesIO(list(server.script.frames.values())[-1])).height >= 256
    assert waited < 5  # the frame asked about did not stand behind a queue of others


async def test_a_link_that_is_far_but_wide_keeps_the_finest_frames() -> None:
    async with (
        ScriptedServer(Script(frame_credits=3)) as server,
        SlowLink(server.target, 1e9, delay=0.3) as link,
        GuidanceClient(link.target) as client,
    ):
        await live(client, 4)
    sizes = [Image.open(io.BytesIO(data)).size for data in server.script.frames.values()]
    assert len(sizes) > 3 and set(sizes) == {(1280, 720)}


async def test_the_last_credit_is_left_to_a_frame_that_is_asked_about() -> None:
    script = Script(frame_credits=2)
    async with ScriptedServer(script) as server, GuidanceClient(server.target) as client:
        script.acknowledging.clear()
        await live(client, 1.0, pixels=scene())
        await asyncio.wait_for(client.send_frame(scene(200)), 10)
        script.acknowledging.set()
    assert len(script.frames) >= 2


async def test_the_age_of_a_frame_needs_no_clock_but_the_clients() -> None:
    async with ScriptedServer() as server, GuidanceClient(server.target) as client:
        frame = await client.send_frame(scene(), captured=time.monotonic() - 2)
        assert 2 <= frame.age < 30
        assert 0 <= (await client.send_frame(scene())).age < 30


async def test_the_command_with_the_data_saver_sends_one_small_frame(tmp_path: Path) -> None:
    Image.fromarray(textured()).save(tmp_path / "kitchen.jpg")
    async with ScriptedServer() as server:
        finished = await lego_client(
            "ask", "--server", server.target, "--source", tmp_path / "kitchen.jpg", "--out", tmp_path / "out",
            "--data-saver", QUERY,
        )  # fmt: skip
    assert finished.code == 0, finished.stderr
    (sent,) = server.script.frames.values()
    assert Image.open(io.BytesIO(sent)).size == (512, 288)


async def test_a_clip_played_with_the_data_saver_sends_what_is_asked_about_only(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.json").write_text('[{"time": 1.0, "query": "how do I open the drawer?"}]')
    async with ScriptedServer() as server:
        finished = await lego_client(
            "play", "--server", server.target, "--clip", clip, "--queries", tmp_path / "queries.json",
            "--out", tmp_path / "out", "--speed", 4, "--no-film", "--data-saver", "--rotate", 270,
        )  # fmt: skip
    assert finished.code == 0, finished.stderr
    (sent,) = server.script.frames.values()
    assert Image.open(io.BytesIO(sent)).size == (180, 320)
