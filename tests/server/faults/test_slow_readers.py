"""Clients that ask for much and read nothing."""

from __future__ import annotations

import asyncio
import tracemalloc

import grpc
import pytest

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import Scene, open_session, own_channel, part, scene
from tests.server.harness import GuideClient, eventually, picture

_READERS, _QUERIES = 4, 40
_HELD_MIB = 24  # of all: what gRPC itself buffers for a reader, 8 frames, and 256 messages


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
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(_ask_much(client, _QUERIES))
        await it.several_answers()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert held < _HELD_MIB * 2**20
        for client in clients:  # what they were told last is still there
            while (await client.result()).query_id < _QUERIES:
                pass
            await part(client)


async def test_who_neither_reads_nor_speaks_for_too_long_is_shown_out() -> None:
    async with scene(FakeEngine(), bystanders=0, idle_seconds=1.0, resume_seconds=30.0) as it:
        await _fall_silent(it)


async def _fall_silent(it: Scene) -> None:
    async with own_channel(it.server) as stub:
        client, _ = await open_session(stub)
        await client.frame(1, picture(size=(640, 20)))
        await _ask_much(client, _QUERIES)  # until the server's own writing waits for the reader
        await eventually(lambda: it.server.server.sessions == 0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while True:
                await client.read()
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
