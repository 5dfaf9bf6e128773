"""Whatever a client sends, it is told what was wrong, and the stream goes on."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import grpc
import pytest
from lego_core.config import Fidelity
from lego_core.manifest import NoiseSchedule
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.failures import Reason, RequestError
from lego_server.texts import PromptTokens, Texts

from tests.server.fake_engine import FakeEngine, make_tokenizer
from tests.server.harness import GuideClient, eventually, picture, running

Code = pb.QueryError.Code
DRAWER = "how do I open the drawer"


def image_bomb() -> bytes:
    """A PNG of a few bytes whose header claims 60000 x 60000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


async def assert_still_answers(client: GuideClient, query_id: int = 1000) -> None:
    await client.frame(query_id)
    await client.query(query_id)
    assert (await client.result()).query_id == query_id


@pytest.mark.parametrize(
    ("text", "options", "told"),
    [
        ("", {}, "the query is empty"),
        ("   \n", {}, "the query is empty"),
        ("?!", {}, "names no action"),
        ("open " * 200, {}, "the query has 1000 characters; the limit is 500"),
        (DRAWER, {"steps": 0}, "options.steps is 0; it must lie between 1 and 1000"),
        (DRAWER, {"steps": 4_000_000_000}, "options.steps is 4000000000; it must lie between 1 and 1000"),
        (DRAWER, {"text_scale": 0.5}, "options.text_scale is 0.5; it must lie between 1 and 30"),
        (DRAWER, {"text_scale": float("nan")}, "options.text_scale is nan"),
        (DRAWER, {"image_scale": float("inf")}, "options.image_scale is inf; it must lie between 1 and 10"),
        (
            DRAWER,
            {"guidance_interval": pb.GuidanceInterval(low=0.5, high=1.5)},
            "options.guidance_interval's end is 1.5; it must lie between 0 and 1",
        ),
        (
            DRAWER,
            {"guidance_interval": pb.GuidanceInterval(low=float("nan"), high=1)},
            "options.guidance_interval's beginning is nan",
        ),
        (
            DRAWER,
            {"guidance_interval": pb.GuidanceInterval(low=0.5)},
            "options.guidance_interval is 0.5 to 0; its beginning must lie before its end",
        ),
        (
            DRAWER,
            {"guidance_interval": pb.GuidanceInterval(low=0.4, high=0.6)},
            "options.guidance_interval is 0.4 to 0.6, which holds the middle of none of the 4 steps: widen it",
        ),
        (DRAWER, {"cache_interval": 0}, "options.cache_interval is 0; it must lie between 1 and 100"),
        (DRAWER, {"cache_interval": 2}, "options.cache_interval is 2, and this model's engines have no graph"),
        (
            DRAWER,
            {"sampler": pb.SAMPLER_DISTILLED, "guidance_interval": pb.GuidanceInterval(low=0.2, high=1)},
            "options.guidance_interval is 0.2 to 1; this model's student was distilled for 0 to 1 alone",
        ),
        (DRAWER, {"fidelity": 77}, "options.fidelity is 77; choose one of default, original"),
        (
            DRAWER,
            {"sampler": pb.SAMPLER_DISTILLED, "steps": 8},
            "options.steps is 8; this model's student was distilled for 2 alone",
        ),
        (
            DRAWER,
            {"sampler": pb.SAMPLER_DISTILLED, "text_scale": 3.0},
            "options.text_scale is 3; this model's student was distilled for 7.5 alone",
        ),
        (
            DRAWER,
            {"sampler": 77},
            "options.sampler is 77; choose one of euler_ancestral, euler, dpm_solver_pp, distilled",
        ),
        (DRAWER, {"preview_every": 1001}, "options.preview_every is 1001"),
        (DRAWER, {"jpeg_quality": 0}, "options.jpeg_quality is 0; it must lie between 1 and 100"),
        (DRAWER, {"description": "  "}, "options.description has 0 characters; give 1 to 1000"),
        (DRAWER, {"description": "<>"}, "options.description has 0 characters; give 1 to 1000"),
        (DRAWER, {"description": "x" * 1001}, "options.description has 1001 characters"),
    ],
)
async def test_a_bad_query_is_refused_by_name_value_and_range(text: str, options: dict[str, Any], told: str) -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, text, **options)
        error = await client.error()
        assert (error.query_id, error.code) == (1, Code.CODE_INVALID)
        assert told in error.message
        await assert_still_answers(client)

        request = pb.GenerateRequest(image=picture(), text=text, options=pb.GuidanceOptions(**options))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.Generate(request)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert told in (refused.value.details() or "")


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (b"", "the image is empty (0 bytes); send a JPEG, PNG or WebP picture"),
        (picture(size=(4, 4)), "the image is 4x4 pixels; both sides must be at least 8"),
        (b"this is no picture", "the 18 bytes are not a JPEG, PNG or WebP picture"),
        (image_bomb(), "the limit is 50000000 pixels"),
        (b"x" * 3000, "the image is 3000 bytes; the limit is 2048"),
    ],
)
async def test_a_bad_frame_is_refused_on_arrival(image: bytes, told: str) -> None:
    async with running(FakeEngine(), max_image_bytes=2048) as server:
        client = await server.open_session()
        await client.frame(3, image)
        error = await client.error()
        assert (error.query_id, error.code) == (0, Code.CODE_INVALID)
        assert error.message.startswith("frame 3: ") and told in error.message
        await assert_still_answers(client)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.Generate(pb.GenerateRequest(image=image, text=DRAWER))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert told in (refused.value.details() or "")


async def test_a_frame_with_a_good_header_and_damaged_pixels_fails_its_query() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame(1, picture()[:-40])
        await client.query(1)
        error = await client.error()
        assert (error.query_id, error.code) == (1, Code.CODE_INVALID)
        assert "cannot be decoded" in error.message
        await assert_still_answers(client)


async def test_a_message_above_grpcs_limit_ends_its_own_call_only() -> None:
    async with running(FakeEngine(), max_image_bytes=2048, max_message_bytes=8192) as server:
        bystander, client = await server.open_session(), await server.open_session()
        await client.frame(1, b"x" * 10_000)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            while await client.call.read() is not grpc.aio.EOF:
                pass
        assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await assert_still_answers(bystander)


async def test_a_query_before_any_frame_is_told_so() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.query(1)
        error = await client.error()
        assert (error.query_id, error.code) == (1, Code.CODE_NO_FRAME)
        assert "no frame yet" in error.message
        await assert_still_answers(client)


async def test_a_query_about_an_unknown_or_forgotten_frame_is_told_which_are_known() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        for frame_id in range(1, 10):
            await client.frame(frame_id)
        for query_id, frame_id in ((1, 1), (2, 99)):
            await client.query(query_id, frame_id=frame_id)
            error = await client.error()
            assert (error.query_id, error.code) == (query_id, Code.CODE_NO_FRAME)
            assert f"frame {frame_id} is not here" in error.message and "2, 3, 4, 5, 6, 7, 8, 9" in error.message
        await assert_still_answers(client)


async def test_cancelling_an_unknown_or_answered_query_is_told_so() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.cancel(5)
        error = await client.error()
        assert (error.query_id, error.code) == (5, Code.CODE_UNKNOWN_QUERY)
        await assert_still_answers(client, 6)
        await client.cancel(6)
        assert (await client.error()).code == Code.CODE_UNKNOWN_QUERY


async def test_an_empty_message_is_told_what_to_send() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.call.write(pb.GuideRequest())
        error = await client.error()
        assert (error.query_id, error.code) == (0, Code.CODE_INVALID)
        assert "no frame, query, cancel or resume" in error.message
        await assert_still_answers(client)


async def test_ids_must_increase() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame(4)
        await client.frame(4)
        assert "its id must be above 4" in (await client.error()).message
        await client.query(0)
        assert "query_id is 0; it must be above 0" in (await client.error()).message
        await client.query(3)
        await client.result()
        await client.query(3, "how do I close the drawer?")
        assert "query_id is 3; it must be above 3" in (await client.error()).message


async def test_a_bad_query_leaves_the_running_one_alone() -> None:
    async with running(FakeEngine(delay=0.005)) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=20)
        await client.query(2, steps=0)
        assert (await client.error()).query_id == 2
        assert (await client.result()).query_id == 1


async def test_one_query_too_many_is_refused_and_the_others_are_answered() -> None:
    engine = FakeEngine()
    async with running(engine, max_active=1, max_waiting=1) as server:
        engine.gate.clear()
        clients = [await server.open_session() for _ in range(3)]
        asked = []
        damaged = picture()[:-40]  # refused before its frame is decoded, so nobody sees the damage
        for client, image in zip(clients, (picture(), picture(), damaged), strict=True):
            await client.frame(1, image)
            await client.query(1)
            asked.append(client)
            await eventually(lambda: server.server.live_queries == min(2, len(asked)))
        error = await clients[2].error()
        assert error.code == Code.CODE_OVERLOADED
        assert "busy with 2 queries" in error.message
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.Generate(pb.GenerateRequest(image=damaged, text=DRAWER))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        engine.gate.set()
        for client in clients[:2]:
            await client.result()


async def test_more_steps_than_the_model_was_trained_with_are_refused() -> None:
    engine = FakeEngine()
    engine.manifest = replace(engine.manifest, schedule=NoiseSchedule(train_timesteps=500))
    async with running(engine) as server:
        assert (await server.stub.GetServerInfo(pb.GetServerInfoRequest())).max_steps == 500
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=501)
        error = await client.error()
        assert error.code == Code.CODE_INVALID
        assert "options.steps is 501; it must lie between 1 and 500" in error.message
        await assert_still_answers(client)


async def test_an_error_of_the_servers_own_ends_the_session_with_a_status() -> None:
    class BrokenTexts(Texts):
        def prompt(self, query: str, fidelity: Fidelity = "default") -> PromptTokens:
            if "pot" in query:
                raise RuntimeError("a bug")
            return super().prompt(query, fidelity)

    engine = FakeEngine()
    engine.texts = BrokenTexts(engine.manifest, make_tokenizer(), make_tokenizer())
    async with running(engine) as server:
        bystander, client = await server.open_session(), await server.open_session()
        await client.frame()
        await client.query(1, "how do I open the pot")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            while await client.call.read() is not grpc.aio.EOF:
                pass
        assert error.value.code() == grpc.StatusCode.INTERNAL
        assert "tell its operator to read the log" in (error.value.details() or "")
        await assert_still_answers(bystander)


async def test_one_session_too_many_is_refused() -> None:
    async with running(FakeEngine(), max_sessions=1) as server:
        first = await server.open_session()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.Guide().read()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await assert_still_answers(first)


@pytest.mark.parametrize("max_batch", [1, 4])
async def test_an_engine_error_in_one_query_touches_no_other(max_batch: int) -> None:
    engine = FakeEngine(delay=0.002)
    engine.broken_words = {"pot"}
    async with running(engine, max_batch=max_batch) as server:
        good, bad = await server.open_session(), await server.open_session()
        for client in (good, bad):
            await client.frame()
        await good.query(1, steps=20)
        await bad.query(1, "how do I open the pot")
        error = await bad.error()
        assert error.code == Code.CODE_INTERNAL
        assert "stumbled" not in error.message  # internals are for the log
        assert (await good.result()).query_id == 1
        await assert_still_answers(bad)


async def test_what_a_client_said_is_repeated_only_in_part() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        for query_id, model in ((1, "m" * 5_000_000), (2, "\x01" * 5_000_000)):
            query = pb.Query(query_id=query_id, text=DRAWER, model=model)
            await client.write(pb.GuideRequest(query=query))
            error = await client.error()
            assert (error.query_id, error.code) == (query_id, Code.CODE_INVALID)
            assert "this server has fake" in error.message and len(error.message) < 500
        for call in (
            server.stub.GetServerInfo(pb.GetServerInfoRequest(model="m" * 20_000)),
            server.stub.Generate(pb.GenerateRequest(model="m" * 20_000, text=DRAWER, image=picture())),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert len(str(refused.value.details())) < 200
        await assert_still_answers(client)


@pytest.mark.parametrize("character", ["x", "\u20ac"])
def test_the_message_of_a_failure_is_bounded(character: str) -> None:
    error = RequestError(Reason.INVALID, character * 100_000)
    assert len(str(error).encode()) <= 2048 and str(error).endswith("\u2026")
