"""A query that nobody waits for any more stops in its replica, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.cluster.engines import EngineDirectory
from tests.server.cluster.serving import serving
from tests.server.harness import GuideClient, RunningServer, eventually

pytest.importorskip("ray.serve")
pytest.importorskip("onnx")

STEP = 0.25  # seconds; long beside the way to a replica on a busy machine
ALONE = {"min_replicas": 1, "max_replicas": 1, "keep_replicas": True}


async def _supersede(client: GuideClient) -> None:
    await client.query(2, steps=1)
    assert (await client.error()).code == pb.QueryError.CODE_SUPERSEDED
    await client.cancel(2)


async def _cancel(client: GuideClient) -> None:
    await client.cancel(1)
    assert (await client.error()).code == pb.QueryError.CODE_CANCELLED


async def _disconnect(client: GuideClient) -> None:
    client.call.cancel()


@pytest.mark.parametrize("end", [_supersede, _cancel, _disconnect])
async def test_at_most_one_further_step_is_made_of_a_query_that_has_ended(
    shared: EngineDirectory, ray_address: str, end: Callable[[GuideClient], Awaitable[None]]
) -> None:
    shared.slow(STEP)
    async with serving(shared, ray_address, resume_seconds=0, **ALONE) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=100)
        await client.read_until("progress")
        before = shared.calls()["denoise"]
        await end(client)
        await eventually(lambda: server.server.live_queries == 0)
        await asyncio.sleep(4 * STEP)

        # The superseding query's only step may have been made before it was cancelled.
        assert shared.calls()["denoise"] - before <= 1 + (end is _supersede)
        await _others_are_served(server)


async def test_a_query_ends_in_its_replica_at_its_deadline(shared: EngineDirectory, ray_address: str) -> None:
    shared.slow(STEP)
    async with serving(shared, ray_address, query_seconds=2 * STEP, **ALONE) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=100)
        assert (await client.error()).code == pb.QueryError.CODE_DEADLINE_EXCEEDED
        before = shared.calls()["denoise"]
        await asyncio.sleep(4 * STEP)

        assert shared.calls()["denoise"] - before <= 1


async def test_the_query_of_a_wearer_who_is_away_lets_others_go_first(
    shared: EngineDirectory, ray_address: str
) -> None:
    shared.slow(STEP / 5)
    async with serving(shared, ray_address, **ALONE) as server:
        away, here = await server.open_session(), await server.open_session()
        for client in (away, here):
            await client.frame()
        await away.query(1, steps=100)
        await away.read_until("progress")
        away.call.cancel()
        await asyncio.sleep(STEP)
        before = shared.calls()["denoise"]
        await here.query(1, steps=4)
        await here.result()

        # Its deadline is the earlier one: had it not been put back, all of its steps would have come first.
        assert shared.calls()["denoise"] - before < 10
        assert server.server.live_queries == 1


async def _others_are_served(server: RunningServer) -> None:
    client = await server.open_session()
    await client.frame()
    await client.query(1, steps=1)
    assert (await client.result()).image
