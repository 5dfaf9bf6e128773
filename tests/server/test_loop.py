"""The engine loop by itself: turns, batches, cancellation, and who is told what."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
import pytest
from lego_server.assistant import Event, Failed, StepDone
from lego_server.engines.base import Condition
from lego_server.failures import Reason, RequestError
from lego_server.loop import EngineLoop
from lego_server.repeatable import Repeatable
from lego_server.work import DecodeLatent, Denoise, EncodeFrame, Work

from tests.server.fake_engine import FakeEngine, _Handle
from tests.server.harness import eventually


def count_to(name: int, steps: int, order: list[int] | None = None) -> Generator[Work | Event, Any, None]:
    """A query of `steps` engine calls that tells its name after each."""
    for step in range(1, steps + 1):
        pixels = yield DecodeLatent(np.full((4, 8, 8), name, np.float32))
        assert pixels[0, 0, 0] == np.tanh(np.float32(name)), "this is another query's result"
        if order is not None:
            order.append(name)
        yield StepDone(step, steps)


async def run(loop: EngineLoop, *queries: Generator[Work | Event, Any, None]) -> list[list[Event]]:
    heard: list[list[Event]] = [[] for _ in queries]
    deadline = time.perf_counter() + 60
    for query, events in zip(queries, heard, strict=True):
        loop.submit(query, events.append, deadline=deadline)
    await eventually(lambda: loop.live == 0)
    await asyncio.sleep(0)
    return heard


async def test_who_came_first_is_painted_first() -> None:
    order: list[int] = []
    loop = EngineLoop(FakeEngine(delay=0.002), max_active=3, max_waiting=0)
    await run(loop, *(count_to(name, 4, order) for name in (1, 2, 3)))
    loop.close()

    assert order == [1] * 4 + [2] * 4 + [3] * 4


async def test_an_earlier_deadline_goes_first() -> None:
    order: list[int] = []
    loop = EngineLoop(FakeEngine(delay=0.005), max_active=3, max_waiting=0)
    now = time.perf_counter()
    for name, seconds in ((1, 60.0), (2, 40.0), (3, 20.0)):
        loop.submit(count_to(name, 4, order), lambda event: None, deadline=now + seconds)
    await eventually(lambda: loop.live == 0)
    loop.close()

    after_the_first_turns = order[order.index(3) :]
    assert [name for name in after_the_first_turns if name != 1] == [3] * 4 + [2] * 4


async def test_words_come_before_paint() -> None:
    order: list[str] = []

    def describe() -> Generator[Work | Event, Any, None]:
        for _ in range(3):
            yield EncodeFrame(np.zeros((3, 64, 64), np.float32), np.zeros((3, 32, 32), np.float32))
            order.append("words")

    def paint() -> Generator[Work | Event, Any, None]:
        for _ in range(40):
            yield DecodeLatent(np.zeros((4, 8, 8), np.float32))
            order.append("paint")

    loop = EngineLoop(FakeEngine(delay=0.005), max_active=2, max_waiting=0)
    loop.submit(paint(), lambda event: None)
    await eventually(lambda: len(order) >= 2)
    loop.submit(describe(), lambda event: None)
    await eventually(lambda: loop.live == 0)
    loop.close()

    first = order.index("words")
    assert order[first : first + 3] == ["words"] * 3


async def test_a_wearer_with_many_queries_does_not_crowd_out_the_others() -> None:
    order: list[int] = []
    let_go = threading.Event()

    def hold_the_engine() -> Generator[Work | Event, Any, None]:
        yield DecodeLatent(np.zeros((4, 8, 8), np.float32))
        order.append(0)
        assert let_go.wait(5)
        yield from count_to(0, 50)

    loop = EngineLoop(FakeEngine(delay=0.001), max_active=2, max_waiting=10)
    now = time.perf_counter()
    loop.submit(hold_the_engine(), lambda event: None, wearer="greedy", deadline=now + 90)
    await eventually(lambda: order == [0])
    for name in (1, 2, 3):
        loop.submit(count_to(name, 1, order), lambda event: None, wearer="greedy", deadline=now + 50)
    loop.submit(count_to(9, 1, order), lambda event: None, wearer="modest", deadline=now + 80)
    let_go.set()
    await eventually(lambda: loop.live == 0)
    loop.close()

    assert order == [0, 9, 1, 2, 3]


@pytest.mark.parametrize("lanes", [1, 3])
async def test_calls_run_side_by_side_in_as_many_lanes_as_there_are(lanes: int) -> None:
    engine = FakeEngine(delay=0.02)
    loop = EngineLoop(engine, max_active=6, max_waiting=0, lanes=lanes)
    began = time.perf_counter()
    heard = await run(loop, *(count_to(name, 2) for name in range(6)))
    seconds = time.perf_counter() - began
    loop.close()

    assert [len(events) for events in heard] == [2] * 6
    assert engine.most_at_once == lanes
    assert seconds > 12 * 0.02 / lanes * 0.9


async def test_idle_work_is_done_when_there_is_nothing_else_and_refused_when_there_is() -> None:
    order: list[int] = []
    loop = EngineLoop(FakeEngine(delay=0.005), max_active=1, max_waiting=1)
    assert loop.submit_idle(count_to(1, 1, order)) is not None
    await eventually(lambda: order == [1])
    loop.submit(count_to(2, 5, order), lambda event: None)
    assert loop.submit_idle(count_to(3, 1, order)) is None
    await eventually(lambda: loop.live == 0)
    loop.close()

    assert order == [1] + [2] * 5


async def test_a_query_that_could_not_be_in_time_is_refused_with_word_of_when_to_ask_again() -> None:
    engine = FakeEngine(delay=0.02)
    loop = EngineLoop(engine, max_active=1, max_waiting=10)
    await run(loop, count_to(1, 50))
    for name in range(5):
        loop.submit(count_to(name, 50), lambda event: None)
    with pytest.raises(RequestError, match=r"busy with 5 queries.*has 0\.5 s") as refused:
        loop.submit(count_to(9, 1), lambda event: None, deadline=time.perf_counter() + 0.5)
    loop.close()

    assert refused.value.reason is Reason.OVERLOADED
    assert refused.value.retry_after > 1


async def test_those_who_wait_are_handed_back_and_those_who_are_served_go_on() -> None:
    heard: list[list[Event]] = [[], []]
    loop = EngineLoop(FakeEngine(delay=0.005), max_active=1, max_waiting=1)
    loop.submit(count_to(1, 10), heard[0].append)
    await eventually(lambda: len(heard[0]) > 0)
    loop.submit(count_to(2, 10), heard[1].append)
    loop.hand_back_waiting()
    await eventually(lambda: loop.live == 0)
    await asyncio.sleep(0)
    loop.close()

    assert len(heard[0]) == 10
    (failed,) = heard[1]
    assert isinstance(failed, Failed) and isinstance(failed.error, RequestError)
    assert failed.error.reason is Reason.UNAVAILABLE and failed.error.retry_after > 0


async def test_like_calls_run_as_one_batch_and_each_query_gets_its_own_result() -> None:
    engine = FakeEngine(delay=0.005)
    loop = EngineLoop(engine, max_active=5, max_waiting=0, max_batch=3)
    heard = await run(loop, *(count_to(name, 6) for name in range(5)))
    loop.close()

    assert [len(events) for events in heard] == [6] * 5
    assert max(size for _, size in engine.batches) == 3


async def test_those_who_wait_are_served_in_order_of_arrival() -> None:
    order: list[int] = []
    loop = EngineLoop(FakeEngine(delay=0.002), max_active=1, max_waiting=2)
    await run(loop, *(count_to(name, 2, order) for name in (3, 1, 2)))
    loop.close()

    assert order == [3, 3, 1, 1, 2, 2]


async def test_a_cancelled_query_gives_its_place_away_and_hears_no_more() -> None:
    engine = FakeEngine(delay=0.01)
    loop = EngineLoop(engine, max_active=1, max_waiting=0)
    heard: list[Event] = []
    job = loop.submit(count_to(1, 1000), heard.append)
    await eventually(lambda: len(heard) >= 2)
    job.cancel()
    count = len(heard)
    other = await run(loop, count_to(2, 3))
    loop.close()

    assert len(heard) == count
    assert len(other[0]) == 3


async def test_an_error_in_a_query_is_told_to_it_alone() -> None:
    def stumble() -> Generator[Work | Event, Any, None]:
        yield DecodeLatent(np.zeros((4, 8, 8), np.float32))
        raise RuntimeError("no")

    loop = EngineLoop(FakeEngine(), max_active=2, max_waiting=0, max_batch=2)
    failed, fine = await run(loop, stumble(), count_to(2, 3))
    loop.close()

    assert len(failed) == 1 and isinstance(failed[0], Failed)
    assert len(fine) == 3


async def test_a_full_or_closed_loop_takes_nothing_in() -> None:
    engine = FakeEngine(delay=0.01)
    loop = EngineLoop(engine, max_active=1, max_waiting=1)
    for name in (1, 2):
        loop.submit(count_to(name, 100), lambda _: None)
    with pytest.raises(RequestError, match="busy with 2 queries") as full:
        loop.submit(count_to(3, 1), lambda _: None)
    loop.close()
    with pytest.raises(RequestError, match="shutting down"):
        loop.submit(count_to(3, 1), lambda _: None)

    assert full.value.reason is Reason.OVERLOADED
    assert loop.live == 0


async def test_those_who_ask_and_leave_again_and_again_hold_no_more_than_there_are_places() -> None:
    begun: list[int] = []
    held: set[int] = set()
    heard: list[list[Event]] = [[] for _ in range(12)]

    def hold(name: int) -> Generator[Work | Event, Any, None]:
        begun.append(name)
        held.add(name)
        try:
            yield from count_to(name, 40)
        finally:
            held.discard(name)

    loop = EngineLoop(FakeEngine(delay=0.002), max_active=2, max_waiting=16)
    most = 0
    for name in range(12):
        query = Repeatable(partial(hold, name))
        job = loop.submit(query, heard[name].append, restart=query.restart)
        await eventually(lambda name=name: name in begun)  # type: ignore[misc]
        most = max(most, len(held))
        job.defer(True)
    await eventually(lambda: loop.live == 0)
    await asyncio.sleep(0)
    loop.close()

    assert most <= 2
    assert begun[:12] == list(range(12)) and len(begun) > 12, "those who gave up their places have begun anew"
    for events in heard:
        assert [event.step for event in events if isinstance(event, StepDone)] == list(range(1, 41)), "each told once"
        assert len(events) == 40, "and nothing else"


async def test_those_who_are_away_take_no_room_from_those_who_are_there() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    loop = EngineLoop(engine, max_active=1, max_waiting=1)
    heard: list[list[Event]] = [[] for _ in range(6)]
    for events in heard:
        query = Repeatable(partial(count_to, 1, 3))
        loop.submit(query, events.append, restart=query.restart).defer(True)
    present: list[Event] = []
    for _ in range(2):
        loop.submit(count_to(1, 1), present.append)
    with pytest.raises(RequestError, match="busy with 2 queries"):
        loop.submit(count_to(1, 1), present.append)
    engine.gate.set()
    await eventually(lambda: loop.live == 0)
    await asyncio.sleep(0)
    loop.close()

    assert len(present) == 2 and [len(events) for events in heard] == [3] * 6


async def test_who_gives_up_a_place_is_who_has_got_least_far() -> None:
    begun: list[int] = []

    def counting(name: int) -> Generator[Work | Event, Any, None]:
        begun.append(name)
        yield from count_to(name, 60)

    loop = EngineLoop(FakeEngine(delay=0.002), max_active=2, max_waiting=4)
    steps: dict[int, list[Event]] = {0: [], 1: []}
    for name, heard in steps.items():
        query = Repeatable(partial(counting, name))
        job = loop.submit(query, heard.append, restart=query.restart)
        await eventually(lambda heard=heard, name=name: len(heard) > (20 if name == 0 else 0))  # type: ignore[misc]
        job.defer(True)
    loop.submit(count_to(2, 1), lambda event: None)
    await eventually(lambda: loop.live == 0)
    loop.close()

    assert begun == [0, 1, 1]


async def test_what_cannot_begin_anew_keeps_its_place() -> None:
    heard: list[list[Event]] = [[], []]
    loop = EngineLoop(FakeEngine(delay=0.002), max_active=1, max_waiting=1)
    loop.submit(count_to(0, 30), heard[0].append).defer(True)
    await eventually(lambda: loop.active == 1)
    loop.submit(count_to(1, 1), heard[1].append)
    await eventually(lambda: bool(heard[1]))
    loop.close()

    assert len(heard[0]) == 30


async def test_how_long_queries_take_is_known_by_their_evaluations_and_from_queries_of_wearers_alone() -> None:
    def paint(steps: int) -> Generator[Work | Event, Any, None]:
        yield EncodeFrame(np.zeros((3, 64, 64), np.float32), np.zeros((3, 32, 32), np.float32))
        condition = Condition(_Handle(latent=np.zeros((4, 8, 8), np.float32), strength=np.float32(0)))
        for _ in range(steps):
            yield Denoise(np.zeros((4, 8, 8), np.float32), 1.0, condition, ("null",))
        yield DecodeLatent(np.zeros((4, 8, 8), np.float32))

    async def needed(steps: int) -> float:
        """Returns how long a query would take by itself, as a refusal tells it."""
        holder = loop.submit(paint(0), lambda event: None, evaluations=0)
        with pytest.raises(RequestError) as refused:
            loop.refuse_if_full(time.perf_counter(), steps)
        holder.cancel()
        await eventually(lambda: loop.live == 0)
        told = re.search(r"about ([\d.]+) s", str(refused.value))
        assert told is not None
        return float(told[1])

    engine = FakeEngine(delay=0.02)
    loop = EngineLoop(engine, max_active=1, max_waiting=4)
    loop.submit(paint(1), lambda event: None)  # the server's own, without a deadline
    await eventually(lambda: loop.live == 0)
    assert await needed(100) == 0
    loop.submit(paint(10), lambda event: None, deadline=time.perf_counter() + 60, evaluations=10)
    await eventually(lambda: loop.live == 0)
    few, many = await needed(10), await needed(100)
    loop.close()

    assert few >= 12 * 0.02, "its last call is part of it"
    assert many >= 102 * 0.02 and many > 4 * few
