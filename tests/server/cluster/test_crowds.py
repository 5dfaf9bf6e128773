"""More queries than replicas."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.cluster.engines import EngineDirectory
from tests.server.cluster.serving import ask, serving
from tests.server.harness import eventually, picture

pytest.importorskip("ray.serve")
pytest.importorskip("onnx")


async def test_a_query_too_many_is_refused_with_word_of_when_to_ask_again_and_the_others_are_answered(
    directory: EngineDirectory, ray_address: str
) -> None:
    config = {"max_ongoing": 1, "max_queued": 1, "min_replicas": 1, "max_replicas": 1}
    async with serving(directory, ray_address, **config) as server:
        await ask(server, (1, 1, 1))  # how long a query takes is known from now on
        directory.slow(0.2)
        guide = server.server.telemetry.metrics.registry.get_sample_value
        taken = asyncio.create_task(ask(server, (2, 2, 2), steps=8))
        await eventually(lambda: guide("lego_active_queries") == 1)
        waits = asyncio.create_task(ask(server, (3, 3, 3), steps=1))
        await eventually(lambda: guide("lego_queue_depth") == 1)
        await asyncio.sleep(0.1)
        refused = (await ask(server, (4, 4, 4)))[-1].error
        with pytest.raises(grpc.aio.AioRpcError) as single:
            await server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the lid"))
        answers = [(await taken)[-1], (await waits)[-1]]

    assert refused.code == pb.QueryError.CODE_OVERLOADED and refused.retry_after_ms >= 500
    assert single.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "retry" in str(single.value.trailing_metadata())
    assert all(each.result.image for each in answers)


async def test_replicas_are_added_while_there_is_more_to_do(directory: EngineDirectory, ray_address: str) -> None:
    config = {"max_replicas": 2, "min_replicas": 1, "target_ongoing": 1.0, "scale_up_seconds": 0.0}
    async with serving(directory, ray_address, **config) as server:
        value = server.server.telemetry.metrics.registry.get_sample_value
        assert value("lego_replicas", {"model": "fake-aaaaaaaaaaaa"}) == 1
        directory.slow(0.1)
        asking = [asyncio.create_task(ask(server, (each, 9, 9), steps=200)) for each in range(4)]
        await eventually(lambda: value("lego_replicas", {"model": "fake-aaaaaaaaaaaa"}) == 2, seconds=40)
        directory.slow(0.0)
        await asyncio.gather(*asking)
        answers = await asyncio.gather(*(ask(server, (each, 9, 99)) for each in range(8)))

    assert all(each[-1].result.image for each in answers)
    assert len(directory.processes()) == 2
