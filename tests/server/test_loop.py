"""The engine loop by itself: turns, batches, cancellation, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from lego_server.assistant import Event, Failed, StepDone
from lego_server.failures import Reason, RequestError
from lego_server.loop import EngineLoop
from lego_server.work import DecodeLatent, Work

from tests.server.fake_engine import FakeEngine
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
    for query, events in zip(queries, heard, strict=True):
        loop.submit(query, events.append)
    await eventually(lambda: loop.live == 0)
    await asyncio.sleep(0)
    return heard


async def test_queries_take_turns() -> None:
    order: list[int] = []
    engine = FakeEngine(delay=0.005)
    loop = EngineLoop(engine, max_active=3, max_waiting=0)
    await run(loop, *(count_to(name, 4, order) for name in (1, 2, 3)))
    loop.close()

    third_round = order.index(1, order.index(1, order.index(1) + 1) + 1)
    assert set(order[:third_round]) == {1, 2, 3}
    assert all(abs(order[:end].count(1) - order[:end].count(2)) <= 2 for end in range(len(order)))


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
