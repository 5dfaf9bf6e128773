"""Cancelled at any moment, a query costs at most one more step."""

from __future__ import annotations

import asyncio
import random

import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import open_session, part, scene
from tests.server.harness import eventually

_MOMENTS = 20
Code = pb.QueryError.Code


@pytest.mark.parametrize("max_batch", [1, 4])
async def test_at_most_one_step_follows_a_cancellation(max_batch: int) -> None:
    draw = random.Random(max_batch)
    engine = FakeEngine(delay=0.002)
    async with scene(engine, bystanders=0, max_batch=max_batch) as it:
        client, _ = await open_session(it.server.stub)
        await client.frame()
        asked = client.call
        for query_id in range(1, _MOMENTS + 1):
            await client.query(query_id, steps=1000)
            await asyncio.sleep(draw.uniform(0, 0.06))
            await client.cancel(query_id)
            error = await client.error()
            steps = engine.calls["denoise"]
            assert (error.query_id, error.code) == (query_id, Code.CODE_CANCELLED)
            await eventually(lambda: it.server.server.live_queries == 0)
            assert engine.calls["denoise"] <= steps + 1
        assert asked is client.call
        await part(client)


async def test_of_many_beside_each_other_only_the_cancelled_stop() -> None:
    draw = random.Random(3)
    engine = FakeEngine(delay=0.001)
    async with scene(engine, bystanders=3, max_batch=4) as it:
        client, _ = await open_session(it.server.stub)
        await client.frame()
        for query_id in range(1, _MOMENTS + 1):
            await client.query(query_id, steps=1000)
            await asyncio.sleep(draw.uniform(0, 0.05))
            await client.cancel(query_id)
            assert (await client.error()).code == Code.CODE_CANCELLED
        await it.several_answers()
        await part(client)
