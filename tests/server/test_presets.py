"""Presets over a real connection: what they mean, and what goes before them."""

from __future__ import annotations

from typing import Any

import pytest
from lego_core.config import GuidanceDefaults, LegoConfig
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.harness import running

FAST, BALANCED, FAITHFUL = pb.PRESET_FAST, pb.PRESET_BALANCED, pb.PRESET_FAITHFUL


@pytest.mark.parametrize(
    ("options", "sampler", "steps"),
    [
        ({}, pb.SAMPLER_EULER_ANCESTRAL, 4),
        ({"preset": FAST}, pb.SAMPLER_DISTILLED, 2),
        ({"preset": BALANCED}, pb.SAMPLER_EULER_ANCESTRAL, 4),
        ({"preset": FAITHFUL}, pb.SAMPLER_EULER_ANCESTRAL, 100),
        ({"preset": FAITHFUL, "steps": 6}, pb.SAMPLER_EULER_ANCESTRAL, 6),
        ({"preset": FAITHFUL, "sampler": pb.SAMPLER_EULER}, pb.SAMPLER_EULER, 100),
        ({"preset": FAITHFUL, "sampler": pb.SAMPLER_DISTILLED}, pb.SAMPLER_DISTILLED, 2),
        ({"preset": FAST, "sampler": pb.SAMPLER_EULER}, pb.SAMPLER_EULER, 4),
    ],
)
async def test_a_preset_says_how_to_sample_and_what_is_set_beside_it_goes_before(
    options: dict[str, Any], sampler: int, steps: int
) -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, **options)
        result = await client.result()
    assert (result.sampler, result.steps) == (sampler, steps)


@pytest.mark.parametrize(
    ("options", "limits", "told"),
    [
        ({"preset": 77}, {}, "options.preset is 77; choose one of fast, balanced, faithful"),
        ({"preset": FAST, "fidelity": pb.FIDELITY_ORIGINAL}, {}, "leave one unset"),
        ({"preset": FAITHFUL}, {"max_steps": 50}, "options.preset is faithful, which takes 100 steps; this server"),
    ],
)
async def test_a_preset_that_cannot_be_is_refused_in_words(
    options: dict[str, Any], limits: dict[str, int], told: str
) -> None:
    async with running(FakeEngine(), **limits) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, **options)
        assert told in (await client.error()).message


async def test_a_server_tells_the_presets_it_allows() -> None:
    async with running(FakeEngine(), max_steps=50) as server:
        info = await server.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert [(each.preset, each.sampler, each.steps) for each in info.presets] == [
        (FAST, pb.SAMPLER_DISTILLED, 2), (BALANCED, pb.SAMPLER_EULER_ANCESTRAL, 4)
    ]  # fmt: skip


@pytest.mark.parametrize(("steps", "fast"), [(100, 8), (5, 5)])
def test_without_a_student_fast_is_a_quick_solver_in_few_steps(steps: int, fast: int) -> None:
    config = LegoConfig("plain", guidance=GuidanceDefaults("euler_ancestral", steps, 7.5, 1.5))
    assert config.preset("fast") == GuidanceDefaults("dpm_solver_pp", fast, 7.5, 1.5)
