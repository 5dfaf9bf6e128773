"""Clients that ask for much and read nothing."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from statistics import mean

import grpc
import pytest
from lego_server import stream

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import Scene, open_session, own_channel, part, scene
from tests.server.harness import GuideClient, eventually, picture

_READERS, _STEPS = 2, 120


async def _ask_much(client: GuideClient, queries: int) -> None:
    for query_id in range(1, queries + 1):
        await client.query(query_id, steps=20, preview_every=1)
        await asyncio.sleep(0.02)


async def test_what_waits_for_those_who_never_read_is_bounded() -> None:
    async with scene(FakeEngine(), bystanders=2, max_active=8, resume_seconds=0.2) as it:
        await _never_read(it)


async def _never_read(it: Scene) -> None:
    async with own_channel(it.server) as stub:
        clients = [(await open_session(stub))[0] for _ in range(_READERS)]
        for client in clients:
            await client.frame(1, picture(size=(640, 20)))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for query_id in (1, 2):
            for client in clients:
                await client.query(query_id, steps=_STEPS, preview_every=1)
            await it.several_answers()
            await eventually(lambda: it.server.server.live_queries <= 2, seconds=20)  # the bystanders'
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        sizes = []
        for client in clients:
            for _ in (1, 2):
                answer = await client.read_until("result")
                sizes += [len(each.progress.preview) for each in answer if each.HasField("progress")]
            assert answer[-1].result.query_id == 2, "what they were told last is still there"
            await part(client)
    assert held < 2 * _READERS * _STEPS * mean(sizes) / 2, "not half of all the previews there were"


async def test_who_neither_reads_nor_speaks_for_too_long_is_shown_out() -> None:
    async with scene(FakeEngine(), bystanders=0, idle_seconds=1.0, resume_seconds=30.0) as it:
        await _fall_silent(it)


async def _fall_silent(it: Scene) -> None:
    async with own_channel(it.server) as stub:
        client, _ = await open_session(stub)
        await client.frame(1, picture(size=(640, 20)))
        await _ask_much(client, 40)  # until the server's own writing waits for the reader
        await eventually(lambda: it.server.server.sessions == 0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while True:
                await client.read()
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_cancelled_while_its_writing_waits_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with scene(FakeEngine(), bystanders=0, resume_seconds=0.0) as it:
            await _give_up(it)
    assert caplog.text == ""


async def _give_up(it: Scene) -> None:
    async with own_channel(it.server) as stub:
        client, _ = await open_session(stub)
        await client.frame(1, picture(size=(640, 20)))
        await _ask_much(client, 40)
        client.call.cancel()
        await eventually(lambda: it.server.server.sessions == 0)


async def test_who_speaks_on_after_their_session_has_ended_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_LAST_WORDS_SECONDS", 0.3)
    async with scene(FakeEngine(), bystanders=0, idle_seconds=1.0, resume_seconds=30.0) as it:
        await _speak_on(it)


async def _speak_on(it: Scene) -> None:
    async with own_channel(it.server) as stub:
        client, _ = await open_session(stub)
        for _ in range(6000):  # answered with a refusal each, until there is no room for more
            await client.cancel(7)
        await eventually(lambda: it.server.server.sessions == 0)
        before = it.engine.calls.copy()
        await client.frame(1)
        await client.query(1, steps=500)
        await eventually(lambda: not any(_carries(task) for task in asyncio.all_tasks()))
        assert it.engine.calls == before
        client.call.cancel()


def _carries(task: asyncio.Task[object]) -> bool:
    return getattr(task.get_coro(), "__qualname__", "").startswith("_Stream.")
