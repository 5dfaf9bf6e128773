"""Queries that must be answered in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, eventually, picture, running


async def ask(client: GuideClient, query_id: int, deadline_ms: int, steps: int = 4, **others: Any) -> None:
    options = pb.GuidanceOptions(seed=1, steps=steps, **others)
    query = pb.Query(query_id=query_id, text="how do I open the drawer", options=options, deadline_ms=deadline_ms)
    await client.call.write(pb.GuideRequest(query=query))


async def test_a_query_ends_at_its_deadline_and_at_most_one_step_later() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        began = time.perf_counter()
        await ask(client, 1, 300, steps=1000)
        error = await client.error()
        seconds = time.perf_counter() - began
        calls = engine.calls["denoise"]
        await eventually(lambda: server.server.live_queries == 0)
        assert engine.calls["denoise"] <= calls + 1
        await ask(client, 2, 5000)
        assert (await client.result()).query_id == 2, "the session goes on"

    assert (error.query_id, error.code) == (1, pb.QueryError.CODE_DEADLINE_EXCEEDED)
    assert "within its 0.3 s" in error.message and error.retry_after_ms > 0
    assert 0.28 < seconds < 1


async def test_a_single_request_ends_at_grpcs_own_deadline_and_frees_its_work() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine) as server:
        request = pb.GenerateRequest(image=picture(), text="open the drawer", options=pb.GuidanceOptions(steps=1000))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await server.stub.Generate(request, timeout=0.3)
        await eventually(lambda: server.server.live_queries == 0)
        calls = engine.calls["denoise"]
        await asyncio.sleep(0.05)
        assert engine.calls["denoise"] == calls

    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_servers_own_limit_holds_for_those_who_ask_for_more() -> None:
    async with running(FakeEngine(delay=0.01), query_seconds=0.3) as server:
        client = GuideClient(server.stub)
        info = (await client.read()).session_started.server
        await client.frame()
        await ask(client, 1, 60_000, steps=1000)
        error = await client.error()

    assert info.max_deadline_ms == 300
    assert error.code == pb.QueryError.CODE_DEADLINE_EXCEEDED


async def test_a_hung_engine_does_not_hang_those_who_wait() -> None:
    engine = FakeEngine()
    async with running(engine) as server:
        engine.gate.clear()
        clients = [await server.open_session() for _ in range(2)]
        for client in clients:
            await client.frame()
            await ask(client, 1, 200)
        errors = [await client.error() for client in clients]
        engine.gate.set()
        await eventually(lambda: server.server.live_queries == 0)
        await ask(clients[0], 2, 5000)
        assert (await clients[0].result()).query_id == 2

    assert [error.code for error in errors] == [pb.QueryError.CODE_DEADLINE_EXCEEDED] * 2


async def test_queries_beyond_what_can_be_in_time_are_refused_at_once_with_word_of_when_to_ask_again() -> None:
    async with running(FakeEngine(delay=0.02), max_active=1) as server:
        clients = [await server.open_session() for _ in range(4)]
        for client in clients:
            await client.frame()
        await ask(clients[3], 1, 60_000, steps=30)  # teaches the server how long one takes
        await clients[3].result()
        for client in clients[:3]:
            await ask(client, 1, 60_000, steps=200)
        await clients[2].read_until("frame_received")
        await eventually(lambda: server.server.live_queries == 3)
        began = time.perf_counter()
        await ask(clients[3], 2, 1000, steps=200)
        error = await clients[3].error()
        seconds = time.perf_counter() - began

    assert error.code == pb.QueryError.CODE_OVERLOADED and "busy with 3 queries" in error.message
    assert error.retry_after_ms >= 500
    assert seconds < 0.5


async def test_a_query_of_cheaper_steps_is_taken_where_as_many_whole_ones_would_be_too_late() -> None:
    engine = FakeEngine(delay=0.02, caching=True)
    cheaper = {"guidance_interval": pb.GuidanceInterval(low=0.5, high=1), "cache_interval": 100}
    async with running(engine, max_active=1) as server:
        clients = [await server.open_session() for _ in range(2)]
        for client in clients:
            await client.frame()
        await ask(clients[0], 1, 60_000, steps=30)  # teaches the server how long one takes
        await clients[0].result()
        engine.gate.clear()
        await ask(clients[0], 2, 60_000)
        await eventually(lambda: server.server.live_queries == 1)
        await ask(clients[1], 1, 12_000, steps=1000)  # 3000 evaluations, about 20 s
        error = await clients[1].error()
        await ask(clients[1], 2, 12_000, steps=1000, **cheaper)  # about 400
        await eventually(lambda: server.server.live_queries == 2)
        engine.gate.set()

    assert error.code == pb.QueryError.CODE_OVERLOADED


async def test_a_stopping_server_hands_back_what_it_has_not_begun_and_what_it_cannot_end() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine, max_active=1, shutdown_seconds=0.3) as server:
        clients = [await server.open_session() for _ in range(2)]
        for client in clients:
            await client.frame()
            await ask(client, 1, 60_000, steps=1000)
            await eventually(lambda: server.server.live_queries >= 1)
        await clients[0].read_until("progress")
        began = time.perf_counter()
        stopping = asyncio.create_task(server.server.stop())
        waiting = await clients[1].error()
        at_once = time.perf_counter() - began
        begun = await clients[0].error()
        await stopping

    for error in (waiting, begun):
        assert error.code == pb.QueryError.CODE_UNAVAILABLE and error.retry_after_ms == 1000
    assert at_once < 0.25
