"""What is not done twice, and what is done before it is asked for."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_core.manifest import LatentSpec
from lego_proto.v1 import guidance_pb2 as pb
from PIL import Image

from tests.server.fake_engine import FakeEngine
from tests.server.harness import eventually, picture, running

COLOURS = ((1.0, 0, 0, 0, 0.1), (0, 1.0, 0, 0, 0.2), (0, 0, 1.0, 0, 0.3))


async def test_the_same_question_about_the_same_frame_is_described_once() -> None:
    engine = FakeEngine()
    async with running(engine, encode_ahead_seconds=0.0) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, seed=1)
        first = await client.result()
        before = engine.calls.copy()
        await client.query(2, seed=1)
        again = await client.read_until("result")
        await client.query(3, seed=2)
        other_seed = await client.result()
        spared = engine.calls - before
        await client.query(4, "how do I open the lid slowly")
        other_words = await client.result()

    assert again[-1].result.image == first.image and again[-1].result.description == first.description
    assert [r.description_delta.text for r in again if r.HasField("description_delta")] == [first.description]
    assert set(spared) == {"denoise", "decode_latents"}
    assert other_seed.image != first.image and other_words.description != first.description


async def test_the_same_picture_sent_again_is_not_encoded_again() -> None:
    engine = FakeEngine()
    async with running(engine, encode_ahead_seconds=0.0) as server:
        client = await server.open_session()
        before = engine.calls["encode_frames"]
        results = []
        for number in (1, 2, 3):
            await client.frame(number, picture() if number < 3 else picture((1, 2, 3)))
            await client.query(number)
            results.append(await client.result())

    assert [result.frame_id for result in results] == [1, 2, 3]
    assert results[0].image == results[1].image != results[2].image
    assert engine.calls["encode_frames"] - before == 2


async def test_a_description_is_kept_for_the_last_frame_asked_about_only() -> None:
    engine = FakeEngine()
    async with running(engine, encode_ahead_seconds=0.0) as server:
        client = await server.open_session()
        for number in (1, 2, 3):
            await client.frame(number, picture((number, 2, 3)))
            await client.query(number)
            await client.result()
        await eventually(lambda: engine.live_handles <= 3 + 1)  # three encodings, one condition

    await eventually(lambda: engine.live_handles == 0)


async def test_the_newest_frame_is_encoded_before_a_query_asks() -> None:
    engine = FakeEngine()
    async with running(engine, encode_ahead_seconds=0.05) as server:
        client = await server.open_session()
        before = engine.calls["encode_frames"]
        await client.frame(1)
        await eventually(lambda: engine.calls["encode_frames"] == before + 1)
        await client.query(1)
        await client.result()
        assert engine.calls["encode_frames"] == before + 1, "and not once more for the query"


async def test_a_frame_that_is_asked_about_at_once_is_encoded_once() -> None:
    engine = FakeEngine()
    async with running(engine, encode_ahead_seconds=1e-6) as server:
        client = await server.open_session()
        before = engine.calls["encode_frames"]
        for number in range(1, 21):
            await client.frame(number, picture((number, 2, 3), (640, 480)))
            await client.query(number)
            await client.result()
        await asyncio.sleep(0.05)  # what was left for an idle engine would be done by now

    assert engine.calls["encode_frames"] - before == 20


async def test_encoding_ahead_keeps_to_its_pace_and_out_of_the_way() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine, encode_ahead_seconds=3600.0) as server:
        busy, idle = await server.open_session(), await server.open_session()
        await busy.frame(1)
        await eventually(lambda: engine.calls["encode_frames"] == 2)  # the warm-up's, and this one
        await busy.query(1, steps=80)
        await busy.read_until("progress")
        await idle.frame(1, picture((9, 9, 9)))
        await idle.read_until("frame_received")
        await busy.result()
        for number in range(2, 6):
            await busy.frame(number, picture((number, 9, 9)))
        await busy.read_until("frame_received")
        await asyncio.sleep(0.05)

    assert engine.calls["encode_frames"] == 2


async def test_fast_previews_cost_no_engine_call() -> None:
    engine = FakeEngine()
    engine.manifest = replace(engine.manifest, latent=LatentSpec(4, 8, 0.2, COLOURS))
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        decoded = engine.calls["decode_latents"]
        previews = {}
        for number, kind in enumerate((pb.PREVIEW_UNSPECIFIED, pb.PREVIEW_FAST, pb.PREVIEW_FULL), 1):
            before = engine.calls["decode_latents"]
            await client.query(number, steps=2, preview_every=1, preview=kind)
            responses = await client.read_until("result")
            (previews[kind],) = [r.progress.preview for r in responses if r.progress.preview]
            decoded = engine.calls["decode_latents"] - before
            assert decoded == (2 if kind == pb.PREVIEW_FULL else 1)

    assert previews[pb.PREVIEW_UNSPECIFIED] == previews[pb.PREVIEW_FAST] != previews[pb.PREVIEW_FULL]
    assert Image.open(io.BytesIO(previews[pb.PREVIEW_FAST])).size == (14, 8)  # the frame's 16:9 at the latent's side


async def test_a_fast_preview_of_a_model_without_colours_is_refused_and_the_default_is_a_full_one() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, preview=pb.PREVIEW_FAST)
        error = await client.error()
        await client.query(2, steps=2, preview_every=1)
        responses = await client.read_until("result")

    assert error.code == pb.QueryError.CODE_INVALID and "no colour map" in error.message
    assert any(Image.open(io.BytesIO(r.progress.preview)).size == (114, 64) for r in responses if r.progress.preview)


def test_colours_are_the_linear_map_they_are_said_to_be() -> None:
    spec = LatentSpec(4, 8, 0.2, COLOURS)
    latent = np.random.default_rng(0).standard_normal((4, 3, 3), np.float32)
    np.testing.assert_allclose(
        spec.colours(latent), latent[:3] + np.array([0.1, 0.2, 0.3], np.float32)[:, None, None], rtol=1e-6
    )


def test_a_colour_map_of_another_shape_is_refused() -> None:
    with pytest.raises(LegoError, match="3 rows of 5 numbers"):
        LatentSpec(4, 8, 0.2, ((1.0, 2.0),) * 3)
