"""What replicas answer is what one process answers."""

from __future__ import annotations

import asyncio
import io
import math
from typing import Any

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.engines import load_engine
from PIL import Image

from tests.server.cluster.engines import EngineDirectory
from tests.server.cluster.serving import ask, serving, words
from tests.server.harness import RunningServer, picture, running

pytest.importorskip("ray.serve")
pytest.importorskip("onnx")

QUESTIONS: list[dict[str, Any]] = [
    {},
    {"text": "how do I close the lid slowly", "seed": 2**63, "steps": 7, "text_scale": 3.0, "image_scale": 1.0},
    {"sampler": "SAMPLER_DISTILLED", "jpeg_quality": 50},
    {"sampler": "SAMPLER_DPM_SOLVER_PP", "steps": 5, "preview_every": 1, "preview": "PREVIEW_FULL"},
    {"description": "the left hand opens the tap", "fidelity": "FIDELITY_ORIGINAL"},
]
KEPT = {"keep_replicas": True}  # one start for all tests of this file


async def _pictures(server: RunningServer) -> list[tuple[str, bytes, list[bytes], str]]:
    answers = []
    for number, question in enumerate(QUESTIONS):
        responses = await ask(server, (40 * number, 90, 200), **question)
        result = responses[-1].result
        assert words(responses) == result.description
        # Progress is newest-wins; the last before the end is there in any case.
        steps = [each.progress.step for each in responses if each.HasField("progress")]
        assert steps == sorted(set(steps)) and steps[-1] == result.steps
        previews = [each.progress.preview for each in responses if each.progress.preview]
        answers.append((result.description, result.image, previews[-1:], result.model_version))
    return answers


async def test_answers_are_those_of_a_server_in_one_process_bit_for_bit(
    shared: EngineDirectory, ray_address: str
) -> None:
    async with running(load_engine(shared.path, threads=1), threads=1) as alone:
        expected = await _pictures(alone)
    async with serving(shared, ray_address, **KEPT) as server:
        assert await _pictures(server) == expected
        assert set(shared.processes()) == set(shared.processes()[:2])  # nothing but two replicas made calls
        at_once = await asyncio.gather(*(ask(server, (0, 90, 200)) for _ in range(6)))

    assert {each[-1].result.image for each in at_once} == {expected[0][1]}


async def test_a_frame_is_encoded_once_while_the_replica_that_has_it_is_free(
    shared: EngineDirectory, ray_address: str
) -> None:
    async with serving(shared, ray_address, **KEPT) as server:
        client = await server.open_session()
        await client.frame(1, picture((1, 2, 3)))
        before = shared.calls()["encode_frames"]
        for number in range(1, 9):
            await client.query(number, seed=number)
            await client.result()

    assert shared.calls()["encode_frames"] - before == 1


async def test_a_frame_damaged_beyond_its_header_is_told_and_the_stream_goes_on(
    shared: EngineDirectory, ray_address: str
) -> None:
    noise = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(noise, "JPEG")
    async with serving(shared, ray_address, **KEPT) as server:
        client = await server.open_session()
        await client.frame(1, noise.getvalue()[:2000])
        await client.query(1)
        error = await client.error()
        await client.query(2, steps=2000)
        wrong = await client.error()
        await client.frame(2)
        await client.query(3)
        result = await client.result()

    assert error.code == wrong.code == pb.QueryError.CODE_INVALID
    assert "image" in error.message and "steps is 2000" in wrong.message
    assert (result.query_id, result.frame_id) == (3, 2)


async def test_a_failure_of_a_replicas_engine_is_told_and_counted_and_the_next_query_is_answered(
    shared: EngineDirectory, ray_address: str
) -> None:
    async with serving(shared, ray_address, **KEPT) as server:
        client = await server.open_session()
        await client.frame()
        shared.slow(math.nan)  # which nobody can wait for
        await client.query(1)
        error = await client.error()
        shared.slow(0.0)
        await client.query(2)
        assert (await client.result()).image
        counted = server.server.telemetry.metrics.registry.get_sample_value("lego_queries_total", {"outcome": "failed"})

    assert error.code == pb.QueryError.CODE_INTERNAL and counted == 1


async def test_a_single_call_is_answered_and_its_deadline_travels(shared: EngineDirectory, ray_address: str) -> None:
    request = pb.GenerateRequest(image=picture(), text="how do I open the drawer", options=pb.GuidanceOptions(seed=7))
    async with serving(shared, ray_address, **KEPT) as server:
        answer = await server.stub.Generate(request, timeout=20)
        shared.slow(0.2)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await server.stub.Generate(request, timeout=0.3)
        shared.slow(0.0)
        begun = shared.calls()["denoise"]
        await asyncio.sleep(0.5)

    assert answer.description and answer.timings.total_ms >= answer.timings.queue_ms >= 0
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert shared.calls()["denoise"] == begun


async def test_replicas_tell_ray_of_engine_calls_and_the_server_of_replicas(
    shared: EngineDirectory, ray_address: str
) -> None:
    import ray

    async with serving(shared, ray_address, **KEPT) as server:
        await ask(server, (5, 5, 5))
        value = server.server.telemetry.metrics.registry.get_sample_value
        version = "fake-aaaaaaaaaaaa"
        assert value("lego_replicas", {"model": version}) == 2
        assert value("lego_queries_total", {"outcome": "answered"}) == 2  # the warm-up's, and this one
        assert value("lego_stage_seconds_count", {"stage": "denoise"}) == 2
    [node] = ray.nodes()
    figures = ""
    async with asyncio.timeout(30):
        while "lego_engine_call_seconds_count" not in figures:
            await asyncio.sleep(0.5)
            figures = await asyncio.to_thread(_read, node["NodeManagerAddress"], node["MetricsExportPort"])

    assert 'call="denoise"' in figures and "lego_denoising_steps" in figures


def _read(host: str, port: int) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()
