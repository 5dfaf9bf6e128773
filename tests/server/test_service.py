"""Wearers and scripts against a real gRPC server."""

from __future__ import annotations

import asyncio
import io

import grpc
import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_server import assistant
from lego_server.server import SERVICE_NAME
from PIL import Image

from tests.server.fake_engine import FakeEngine
from tests.server.harness import eventually, picture, running


async def test_a_session_begins_with_what_the_server_runs_and_allows() -> None:
    async with running(FakeEngine()) as server:
        response = await server.stub.Guide().read()
        info = response.session_started.server

        assert response.session_started.session_id
        assert info == await server.stub.GetServerInfo(pb.GetServerInfoRequest())
        assert (info.model_name, info.model_version, info.engine) == ("fake", "fake-0123456789ab", "fake-cpu")
        assert info.notice == "A fake model for tests."
        assert (info.defaults.steps, info.defaults.sampler) == (4, pb.SAMPLER_EULER_ANCESTRAL)
        assert all(info.defaults.HasField(f) for f in ("text_scale", "image_scale", "preview_every", "jpeg_quality"))


@pytest.mark.parametrize(("seconds", "pieces"), [(0.0, [1, 1, 1, 1, 1, 1, 0]), (3600.0, [1, 5])])
async def test_words_come_as_they_are_written_but_no_oftener_than_they_are_read(
    monkeypatch: pytest.MonkeyPatch, seconds: float, pieces: list[int]
) -> None:
    monkeypatch.setattr(assistant, "_PIECE_SECONDS", seconds)
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame(5)
        await client.query(1)
        responses = await client.read_until("result")
    told = [r.description_delta.text for r in responses if r.HasField("description_delta")]
    assert [len(text.split()) for text in told] == pieces
    assert "".join(told) == responses[-1].result.description


async def test_an_answer_comes_as_description_then_progress_then_picture() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame(5)
        await client.query(1, preview_every=2)
        responses = await client.read_until("result")

    pieces = [r.description_delta for r in responses if r.HasField("description_delta")]
    progress = [r.progress for r in responses if r.HasField("progress")]
    result = responses[-1].result
    assert "".join(piece.text for piece in pieces) == result.description
    assert len(result.description.split()) == 6
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert progress[-1].step == progress[-1].steps == 4
    assert (result.query_id, result.frame_id, result.seed, result.steps) == (1, 5, 7, 4)
    image = Image.open(io.BytesIO(result.image))
    assert image.format == "JPEG"
    assert image.size == (result.width, result.height) == (114, 64)  # the frame's 16:9 at the model's resolution
    t = result.timings
    stages = t.queue_ms + t.encode_ms + t.describe_ms + t.condition_ms + t.denoise_ms + t.decode_ms
    assert t.total_ms == pytest.approx(stages, rel=1e-3)


async def test_the_distilled_student_paints_in_its_own_steps_and_is_asked_once_each() -> None:
    engine = FakeEngine()
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        warm_up = len(engine.branches)
        await client.query(1, sampler=pb.SAMPLER_DISTILLED)
        result = await client.result()

    assert (result.sampler, result.steps) == (pb.SAMPLER_DISTILLED, 2)
    assert (result.text_scale, result.image_scale) == (7.5, 1.5)
    assert engine.branches[warm_up:] == [("student",), ("student",)]


async def test_the_fidelity_original_has_the_originals_defaults_and_finish() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, fidelity=pb.FIDELITY_ORIGINAL)
        defaults = await client.result()
        await client.query(2, fidelity=pb.FIDELITY_ORIGINAL, steps=2, jpeg_quality=60)
        given = await client.result()
        await client.query(3)
        ours = await client.result()

    assert (defaults.steps, defaults.sampler) == (100, pb.SAMPLER_EULER_ANCESTRAL)
    assert (defaults.text_scale, defaults.image_scale, defaults.fidelity) == (7.5, 1.5, pb.FIDELITY_ORIGINAL)
    assert given.steps == 2
    assert (ours.steps, ours.fidelity) == (4, pb.FIDELITY_UNSPECIFIED)
    pictures = [Image.open(io.BytesIO(result.image)) for result in (defaults, given, ours)]
    assert [picture.layer[0][1:3] for picture in pictures] == [(2, 2), (2, 2), (1, 1)]  # 4:2:0, 4:2:0, 4:4:4
    assert [picture.size for picture in pictures] == [(114, 64)] * 3
    first, second, _ = (sum(sum(table) for table in picture.quantization.values()) for picture in pictures)
    assert first < second, "a lower quality divides by more"


async def test_previews_come_when_asked_for() -> None:
    async with running(FakeEngine(delay=0.005)) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=6, preview_every=2)
        with_previews = await client.read_until("result")
        await client.query(2, steps=6)
        without = await client.read_until("result")

    previews = [r.progress.preview for r in with_previews if r.progress.preview]
    assert len(previews) == 2  # after steps 2 and 4; after step 6 the picture itself follows
    assert Image.open(io.BytesIO(previews[0])).size == (114, 64)
    assert not any(r.progress.preview for r in without)


async def test_two_wearers_get_their_own_answers() -> None:
    async with running(FakeEngine(delay=0.001)) as server:
        first, second = await server.open_session(), await server.open_session()
        await first.frame(10, picture((255, 0, 0)))
        await second.frame(20, picture((0, 0, 255), size=(90, 160)))
        await first.query(1, "how do I open the drawer")
        await second.query(1, "how do I open the lid slowly")
        one, two = await asyncio.gather(first.result(), second.result())

    assert (one.frame_id, two.frame_id) == (10, 20)
    assert (one.width, one.height) == (114, 64) and (two.width, two.height) == (64, 114)
    assert one.description != two.description


@pytest.mark.parametrize("max_batch", [1, 3])
async def test_the_same_seed_gives_the_same_picture_alone_and_beside_others(max_batch: int) -> None:
    engine = FakeEngine(delay=0.001)
    async with running(engine, max_batch=max_batch) as server:
        clients = [await server.open_session() for _ in range(3)]
        for client in clients:
            await client.frame()
        await clients[0].query(1)
        alone = await clients[0].result()
        # Long ones first: whenever the third arrives, they are still being painted.
        for other in clients[1:]:
            await other.query(1, seed=99, steps=100, sampler=pb.SAMPLER_DPM_SOLVER_PP)
        await clients[0].query(2)
        beside = await clients[0].result()

    assert (alone.image, alone.description) == (beside.image, beside.description)
    assert max(size for _, size in engine.batches) == max_batch


async def test_another_seed_gives_another_picture_and_a_drawn_seed_is_told() -> None:
    async with running(FakeEngine()) as server:
        request = pb.GenerateRequest(image=picture(), text="how do I open the drawer")
        first = await server.stub.Generate(request)
        second = await server.stub.Generate(request)
        request.options.seed = first.seed
        again = await server.stub.Generate(request)

    assert first.seed != second.seed and first.image != second.image
    assert again.image == first.image


async def test_a_given_description_is_painted_instead_of_the_models_own() -> None:
    engine = FakeEngine()
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        written_before = engine.calls["extend"]
        await client.query(1, description="the left hand opens the lid")
        responses = await client.read_until("result")

    pieces = [r.description_delta for r in responses if r.HasField("description_delta")]
    assert [(piece.text, piece.done) for piece in pieces] == [("the left hand opens the lid", True)]
    assert responses[-1].result.description == "the left hand opens the lid"
    assert engine.calls["extend"] == written_before + 1  # read in one go, for its hidden states


async def test_the_models_own_description_given_back_paints_the_same_picture() -> None:
    async with running(FakeEngine()) as server:
        request = pb.GenerateRequest(image=picture(), text="how do I open the drawer")
        request.options.seed = 3
        written = await server.stub.Generate(request)
        request.options.description = written.description
        given = await server.stub.Generate(request)

    assert given.image == written.image


async def test_a_query_without_a_frame_id_is_about_the_newest_frame() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        for frame_id in range(1, 12):
            await client.frame(frame_id)
        await client.query(1)
        assert (await client.result()).frame_id == 11
        await client.query(2, frame_id=4)  # the oldest of the eight that are kept
        assert (await client.result()).frame_id == 4


async def test_a_frame_is_encoded_once_however_many_queries_are_about_it() -> None:
    engine = FakeEngine()
    async with running(engine, warm=False) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1)
        await client.result()
        await client.query(2)
        await client.result()

    assert engine.calls["encode_frames"] == 1


async def test_cancel_stops_within_one_step() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=500)
        await client.read_until("progress")
        await client.cancel(1)
        error = await client.error()
        calls = engine.calls["denoise"]
        assert (error.query_id, error.code) == (1, pb.QueryError.CODE_CANCELLED)
        await eventually(lambda: server.server.live_queries == 0)
        await asyncio.sleep(0.05)
        assert engine.calls["denoise"] <= calls + 1

        await client.query(2)
        assert (await client.result()).query_id == 2


async def test_a_newer_query_supersedes_and_nothing_of_the_older_follows() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=500)
        await client.read_until("progress")
        await client.query(2)
        error = await client.error()
        assert (error.query_id, error.code) == (1, pb.QueryError.CODE_SUPERSEDED)
        answer = await client.read_until("result")

    ids = {getattr(r, r.WhichOneof("message")).query_id for r in answer}
    assert ids == {2}


async def test_a_client_that_disconnects_frees_its_work_and_memory() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine, resume_seconds=0.0) as server:
        await eventually(lambda: engine.live_handles == 0)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.server.port}")
        client = await type(server)(server.server, channel, type(server.stub)(channel)).open_session()
        await client.frame()
        await client.query(1, steps=500)
        await client.read_until("progress")
        await channel.close()

        await eventually(lambda: server.server.live_queries == 0)
        calls = engine.calls["denoise"]
        await asyncio.sleep(0.05)
        assert engine.calls["denoise"] == calls
        await eventually(lambda: engine.live_handles == 0)


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async with running(FakeEngine(delay=0.002)) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1)
        await client.call.done_writing()
        assert (await client.result()).query_id == 1
        assert await client.call.read() is grpc.aio.EOF
        assert await client.call.code() == grpc.StatusCode.OK


async def test_a_client_that_does_not_read_gets_the_newest_progress_not_all_of_it() -> None:
    engine = FakeEngine()
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame(1, picture(size=(640, 20)))
        # Previews so wide that all of them are more than the 4 MB gRPC itself holds for a slow reader.
        await client.query(1, steps=1000, preview_every=1)
        await eventually(lambda: engine.calls["denoise"] >= 1001, seconds=30)
        responses = await client.read_until("result")

    steps = [r.progress.step for r in responses if r.HasField("progress")]
    assert steps == sorted(steps) and steps[-1] == 1000
    assert len(steps) < 900


async def test_generate_answers_one_frame_and_one_query() -> None:
    async with running(FakeEngine()) as server:
        result = await server.stub.Generate(pb.GenerateRequest(image=picture(), text="how do I open the drawer"))

    assert Image.open(io.BytesIO(result.image)).size == (114, 64)
    assert result.description


async def test_generate_stops_at_its_deadline() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine) as server:
        request = pb.GenerateRequest(image=picture(), text="how do I open the drawer")
        request.options.steps = 500
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await server.stub.Generate(request, timeout=0.3)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: server.server.live_queries == 0)
        calls = engine.calls["denoise"]
        await asyncio.sleep(0.05)
        assert engine.calls["denoise"] == calls


async def test_health_says_serving_only_once_warm() -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    engine = FakeEngine()
    async with running(engine, warm=False) as server:
        health = health_pb2_grpc.HealthStub(server.channel)
        for name in ("", SERVICE_NAME):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await server.server.warm_up()
        for name in ("", SERVICE_NAME):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        assert engine.calls["decode_latents"] == 1


async def test_a_model_that_fails_at_its_first_query_is_reported_to_the_operator() -> None:
    engine = FakeEngine()
    engine.broken_words = {"drawer"}  # as in the server's own first query
    async with running(engine, warm=False) as server:
        with pytest.raises(LegoError, match=r"failed on a first query of the server's own.*lego-export"):
            await server.server.warm_up()


async def test_reflection_lists_the_service() -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with running(FakeEngine()) as server:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        response = await call.read()
        call.cancel()

    assert SERVICE_NAME in [service.name for service in response.list_services_response.service]
