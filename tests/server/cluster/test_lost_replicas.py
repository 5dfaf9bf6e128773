"""Replicas that are killed, and the queries they had."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.cluster.engines import EngineDirectory
from tests.server.cluster.serving import ask, last, serving, words
from tests.server.faults.scene import READY
from tests.server.faults.scene import serving as serving_names
from tests.server.harness import eventually, picture

pytest.importorskip("ray.serve")
pytest.importorskip("onnx")

COLORS = [(200, 60, 20), (20, 160, 60), (90, 90, 220), (9, 9, 9)]


async def test_queries_of_a_killed_replica_are_answered_once_by_another_as_if_nothing_had_been(
    shared: EngineDirectory, ray_address: str
) -> None:
    async with serving(shared, ray_address, keep_replicas=True) as server:
        undisturbed = [(await ask(server, color, steps=12))[-1].result for color in COLORS]
        shared.slow(0.1)
        asking = [asyncio.create_task(ask(server, color, steps=12)) for color in COLORS]
        begun = shared.calls()["denoise"]
        await eventually(lambda: shared.calls()["denoise"] > begun + 6)
        os.kill(shared.processes()[-1], signal.SIGKILL)
        healths = [await serving_names(server) for _ in range(20) if not await asyncio.sleep(0.02)]
        answers = await asyncio.gather(*asking)

        for color, responses, expected in zip(COLORS, answers, undisturbed, strict=True):
            kinds = Counter(each.WhichOneof("message") for each in responses)
            result = responses[-1].result
            assert kinds["result"] == 1 and not kinds["error"], (color, responses[-1])
            assert words(responses) == result.description == expected.description
            assert result.image == expected.image
            steps = [each.progress.step for each in responses if each.HasField("progress")]
            assert steps == sorted(set(steps))
        assert all(names == READY for names in healths)
        value = server.server.telemetry.metrics.registry.get_sample_value
        assert (value("lego_query_retries_total") or 0) >= 1
        version = {"model": "fake-aaaaaaaaaaaa"}
        shared.slow(0.0)
        await eventually(lambda: value("lego_replicas", version) == 2, seconds=30)  # Ray has started another


async def test_a_query_that_may_not_be_given_to_another_replica_is_handed_back_with_a_time(
    shared: EngineDirectory, ray_address: str
) -> None:
    async with serving(shared, ray_address, retries=0, keep_replicas=True) as server:
        shared.slow(0.1)
        client = await server.open_session()
        await client.frame(1, picture())
        await client.query(1, steps=100)
        await client.read_until("progress")
        os.kill(shared.processes()[-1], signal.SIGKILL)
        error = (await last(client))[-1].error
        shared.slow(0.0)
        await client.query(2)
        result = await client.result()

    assert error.code == pb.QueryError.CODE_UNAVAILABLE and error.retry_after_ms >= 1000
    assert result.query_id == 2 and result.frame_id == 1


async def test_health_is_false_while_no_replica_is_left_and_queries_wait_for_the_next(
    directory: EngineDirectory, ray_address: str
) -> None:
    async with serving(directory, ray_address, min_replicas=1, max_replicas=1) as server:
        await ask(server, COLORS[0])
        os.kill(directory.processes()[-1], signal.SIGKILL)
        answer = asyncio.create_task(ask(server, COLORS[1]))
        async with asyncio.timeout(5):
            while await serving_names(server) != {"live"}:  # noqa: ASYNC110 (another process changes it)
                await asyncio.sleep(0.01)
        assert (await answer)[-1].result.image
        assert await serving_names(server) == READY
