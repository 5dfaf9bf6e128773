"""The parts of a cluster that need no Ray."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lego_core.errors import LegoError
from lego_server.assistant import DescriptionPiece, Event, Failed, StepDone
from lego_server.cluster.frame_store import FRAMES_KEPT, FrameStore
from lego_server.cluster.replies import Replies
from lego_server.config import ClusterSettings
from lego_server.delivery import Delivery, Spoilt
from lego_server.frames import PreparedFrame, prepare_frame

from tests.server.fake_engine import make_manifest
from tests.server.harness import config_of, eventually, picture

STORY = [
    DescriptionPiece("the left", False), DescriptionPiece(" hand", False), DescriptionPiece("", True),
    StepDone(1, 2, b"preview"), StepDone(2, 2),
]  # fmt: skip


@pytest.mark.parametrize("heard", range(len(STORY) + 1))
@pytest.mark.parametrize("at_once", [False, True])
def test_what_one_replica_has_told_another_does_not_tell_again(heard: int, at_once: bool) -> None:
    delivery = Delivery()
    told = [fresh for event in STORY[:heard] if (fresh := delivery.fresh(event))]
    delivery.restart()
    again = [DescriptionPiece("the left hand", True), *STORY[3:]] if at_once else STORY
    told += [fresh for event in again if (fresh := delivery.fresh(event))]

    pieces = [event for event in told if isinstance(event, DescriptionPiece)]
    assert "".join(piece.text for piece in pieces) == "the left hand"
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [event.step for event in told if isinstance(event, StepDone)] == [1, 2]


@pytest.mark.parametrize("other", [("the right", False), ("the", True), ("", True)])
def test_another_story_than_the_one_told_is_noticed(other: tuple[str, bool]) -> None:
    delivery = Delivery()
    delivery.fresh(STORY[0])
    delivery.restart()
    with pytest.raises(Spoilt):
        delivery.fresh(DescriptionPiece(*other))


def test_a_second_telling_that_goes_on_where_the_first_had_ended_is_noticed() -> None:
    delivery = Delivery()
    for event in STORY[:3]:
        delivery.fresh(event)
    delivery.restart()
    with pytest.raises(Spoilt):
        delivery.fresh(DescriptionPiece("the left hand opens", False))


class _Decoder:
    def __init__(self) -> None:
        self.decoded = 0

    async def __call__(self, data: bytes) -> PreparedFrame:
        self.decoded += 1
        return prepare_frame(data, config_of().limits, make_manifest().lego)


async def test_a_frame_is_decoded_once_while_it_is_asked_about_and_forgotten_after_a_while() -> None:
    decode = _Decoder()
    store = FrameStore(decode, seconds=0.05)
    first, again = await asyncio.gather(store.get("a", picture()), store.get("a", picture()))
    assert first is again and decode.decoded == 1
    await eventually(lambda: len(store) == 0)
    assert await store.get("a", picture()) is not first


async def test_the_newest_frames_are_kept() -> None:
    decode = _Decoder()
    store = FrameStore(decode)
    for number in range(FRAMES_KEPT + 1):
        await store.get(str(number), picture())
    assert len(store) == FRAMES_KEPT
    await store.get("1", picture())
    assert decode.decoded == FRAMES_KEPT + 1
    await store.get("0", picture())
    assert decode.decoded == FRAMES_KEPT + 2


async def test_what_waits_for_the_way_to_the_server_is_merged_and_the_end_waits_for_nothing() -> None:
    replies = Replies(pace=3600.0)
    for event in STORY:
        replies.put(event)
    replies.put(Failed(ValueError()))
    read = [event async for event in replies.read()]
    assert read[:2] == [DescriptionPiece("the left hand", True), StepDone(2, 2, b"preview")]
    assert isinstance(read[2], Failed) and len(read) == 3


async def test_the_first_event_leaves_at_once_and_the_next_at_its_pace() -> None:
    replies = Replies(pace=0.02)
    read: list[Event] = []

    async def reading() -> None:
        async for event in replies.read():
            read.append(event)

    task = asyncio.create_task(reading())
    replies.put(STORY[0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert read == [STORY[0]]
    replies.put(STORY[1])
    replies.put(STORY[2])
    await eventually(lambda: len(read) == 2)
    assert read[1] == DescriptionPiece(" hand", True)
    replies.put(Failed(ValueError()))
    await task


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas is 3, above the 2 of max_replicas"),
        ({"name": "a:b"}, "without a colon"),
        ({"ray_address": "ray://head:10001"}, "join it with ray start"),
        ({"keep_replicas": True}, "give ray_address"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(LegoError, match=told):
        ClusterSettings(**settings)


def test_without_ray_the_command_says_how_to_install_it() -> None:
    # Without site-packages there is no Ray; what is run here needs nothing else.
    root = Path(__file__).parents[3]
    code = "from lego_server.cluster.requirement import require_ray as r; r()"
    paths = os.pathsep.join(str(root / each) for each in ("server", "core"))
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": paths}, check=False
    )
    assert "LegoError: lego-server cluster needs Ray, which is not installed" in done.stderr
    assert "pip install 'lego-ar[cluster]'" in done.stderr
