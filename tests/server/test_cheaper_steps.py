"""Guidance interval and cached features over a real connection: what is asked of the engine, and what comes back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.engines.base import Condition, DeepFeatures
from lego_server.options import OptionWishes, resolve_options
from lego_server.wire import wishes_from_proto
from lego_server.work import Denoise, DenoiseKeeping, DenoiseReusing, batch_key

from tests.server.fake_engine import FakeEngine, make_manifest
from tests.server.harness import RunningServer, eventually, picture, running

ALWAYS = pb.GuidanceInterval(low=0, high=1)
MIDDLE = pb.GuidanceInterval(low=0.25, high=0.75)


async def generate(server: RunningServer, **options: Any) -> pb.GuidanceResult:
    request = pb.GenerateRequest(
        image=picture(), text="how do I open the drawer", options=pb.GuidanceOptions(**{"seed": 7, **options})
    )
    return await server.stub.Generate(request)


def figure(server: RunningServer, name: str) -> float | None:
    return server.server.telemetry.metrics.registry.get_sample_value(name)


async def test_the_whole_interval_and_features_of_every_step_are_the_plain_sampling() -> None:
    engine = FakeEngine(caching=True)
    async with running(engine) as server:
        plain = await generate(server)
        told = await generate(server, guidance_interval=ALWAYS, cache_interval=1)

    assert told.image == plain.image
    assert (plain.guidance_interval, plain.cache_interval) == (ALWAYS, 1)
    assert not engine.calls["denoise_keeping"] and not engine.calls["denoise_reusing"]


async def test_outside_the_guidance_interval_the_engine_is_asked_one_branch() -> None:
    engine = FakeEngine()
    async with running(engine) as server:
        plain = await generate(server)
        before = len(engine.branches)
        some = await generate(server, guidance_interval=MIDDLE)
        asked = engine.branches[before:]
        again = await generate(server, guidance_interval=MIDDLE)

    assert [len(each) for each in asked] == [1, 3, 3, 1]
    assert asked[0] == asked[-1] == ("conditional",)
    assert some.image != plain.image and some.image == again.image
    assert some.guidance_interval == MIDDLE


async def test_features_are_kept_at_every_nth_step_and_reused_between() -> None:
    engine = FakeEngine(caching=True)
    async with running(engine) as server:
        plain = await generate(server, steps=7)
        engine.batches.clear()
        cached = await generate(server, steps=7, cache_interval=3)
        calls = [name for name, _ in engine.batches if name.startswith("denoise")]
        again = await generate(server, steps=7, cache_interval=3)
        steps = figure(server, "lego_denoising_steps_total")
        assert figure(server, "lego_kept_features") == 0, "freed with the query"

    # The fake engine's keeping is a denoising of its own beside it.
    assert calls == ["denoise", "denoise_keeping", *["denoise_reusing"] * 2] * 2 + ["denoise"]
    assert cached.image != plain.image and cached.image == again.image
    assert cached.cache_interval == 3
    assert steps == 1 + 3 * 7  # the warm-up's, and each of three queries'


async def test_features_are_held_while_they_are_needed_and_freed_with_a_cancelled_query() -> None:
    engine = FakeEngine(caching=True)
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=500, cache_interval=100)
        await eventually(lambda: engine.calls["denoise_reusing"] > 2)
        assert figure(server, "lego_kept_features") == 1
        await client.cancel(1)
        await client.error()
        await eventually(lambda: figure(server, "lego_kept_features") == 0)


async def test_queries_of_unlike_steps_in_one_batch_get_the_pictures_they_get_alone() -> None:
    wishes: list[dict[str, Any]] = [
        {"seed": 1}, {"seed": 2, "cache_interval": 2}, {"seed": 3, "cache_interval": 2},
        {"seed": 4, "guidance_interval": MIDDLE}, {"seed": 5, "guidance_interval": MIDDLE, "cache_interval": 3},
        {"seed": 6, "cache_interval": 3},
    ]  # fmt: skip
    engine = FakeEngine(caching=True)
    async with running(engine, max_batch=6, max_active=6) as server:
        alone = [await generate(server, steps=8, **each) for each in wishes]
        engine.gate.clear()  # until all of them are there
        engine.batches.clear()
        asked = [asyncio.create_task(generate(server, steps=8, **each)) for each in wishes]
        live = ("lego_active_queries", "lego_queue_depth")
        await eventually(lambda: sum(figure(server, name) or 0 for name in live) == len(wishes))
        engine.gate.set()
        together = [await each for each in asked]

    assert [each.image for each in together] == [each.image for each in alone]
    assert len({each.image for each in alone}) == len(wishes)
    largest = {name: max(size for _, size in calls) for name, calls in groupby(sorted(engine.batches), lambda c: c[0])}
    assert largest["denoise_keeping"] > 1 and largest["denoise_reusing"] > 1


def test_a_call_runs_one_graph_for_the_same_branches() -> None:
    rows = np.zeros((4, 8, 8), np.float32), 1.0, Condition(object())
    three, one = ("conditional", "image_only", "null"), ("conditional",)
    works = [
        Denoise(*rows, three), Denoise(*rows, one), DenoiseKeeping(*rows, three), DenoiseKeeping(*rows, one),
        DenoiseReusing(*rows, three, DeepFeatures(object())), DenoiseReusing(*rows, one, DeepFeatures(object())),
    ]  # fmt: skip
    assert len({batch_key(work) for work in works}) == len(works)
    assert batch_key(works[4]) == batch_key(DenoiseReusing(*rows, three, DeepFeatures(object())))


def test_an_interval_in_float32_means_what_was_typed() -> None:
    # 0.35 as a float32 lies below the middle of the fourth of ten steps, which it is meant to be.
    wishes = wishes_from_proto(pb.GuidanceOptions(guidance_interval=pb.GuidanceInterval(low=0.35, high=0.85)))
    assert wishes.guidance_interval == (0.35, 0.85)


def test_what_is_left_unset_is_the_models_own() -> None:
    options = resolve_options(OptionWishes(), make_manifest(), 1000, 100)
    assert (options.guidance_interval, options.cache_interval) == ((0.0, 1.0), 1)


@pytest.mark.parametrize("interval", [(0.0, 0.4), (0.6, 1.0)])
async def test_a_model_that_guides_only_some_steps_by_itself_warms_up(interval: tuple[float, float]) -> None:
    engine = FakeEngine()
    lego = replace(engine.manifest.lego, guidance=replace(engine.manifest.lego.guidance, guidance_interval=interval))
    engine.manifest = replace(engine.manifest, lego=lego)
    async with running(engine) as server:
        info = await server.stub.GetServerInfo(pb.GetServerInfoRequest())
        told = info.defaults.guidance_interval
        assert (told.low, told.high) == pytest.approx(interval)
        assert (await generate(server)).guidance_interval == told


def test_a_students_steps_share_no_features() -> None:
    with pytest.raises(LegoError, match="cache_interval is 2; this model's student was distilled for 1 alone"):
        make_manifest().lego.sampling(sampler="distilled", cache_interval=2)
