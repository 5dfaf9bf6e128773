"""The simulated engine loop, where what must come of it can be worked out by hand."""

from __future__ import annotations

import random

import pytest

from benchmarks.simulation import Costs, Sharing, simulate, wearers_served

# A query takes 1.6 s of one lane: 0.1 + 0.1 + 2 * 0.1 + 0.1 + 10 * 0.1 + 0.1.
PLAN = ["EncodeFrame", "Prefill", "Extend", "Extend", "BuildCondition", *["Denoise"] * 10, "DecodeLatent"]
QUERY = 0.1 * len(PLAN)


def costs(outside: float = 0.0, processor: float = 0.0, batch_of_4: float = 0.4) -> Costs:
    calls = {kind: {1: [0.1], 4: [batch_of_4]} for kind in set(PLAN)}
    return Costs({1: calls, 2: calls}, outside, processor)


def test_one_wearer_waits_for_the_calls_and_for_the_rest() -> None:
    run = simulate(costs(outside=0.25), Sharing(), PLAN, 1, 60.0)
    assert run.latencies == pytest.approx([QUERY + 0.25] * len(run.latencies))
    assert run.throughput == pytest.approx(1 / (QUERY + 0.25), rel=0.02)
    assert run.first_words == pytest.approx([0.2 + 0.25] * len(run.first_words))


@pytest.mark.parametrize("lanes", [1, 2])
def test_many_wearers_get_what_the_lanes_can_do_and_no_more(lanes: int) -> None:
    run = simulate(costs(), Sharing(lanes, max_active=16), PLAN, 16, 200.0, warm=20.0)
    assert run.throughput == pytest.approx(lanes / QUERY, rel=0.05)
    assert run.latency(50) == pytest.approx(16 * QUERY / lanes, rel=0.1)


def test_words_go_before_paint() -> None:
    run = simulate(costs(), Sharing(max_active=16), PLAN, 8, 200.0, warm=20.0)
    assert max(run.first_words) < QUERY < run.latency(5)


def test_a_batch_that_takes_as_long_as_one_call_serves_as_many_at_once() -> None:
    alone = simulate(costs(batch_of_4=0.1), Sharing(max_active=16), PLAN, 16, 200.0)
    together = simulate(costs(batch_of_4=0.1), Sharing(max_active=16, max_batch=4), PLAN, 16, 200.0)
    assert 1.5 * alone.throughput < together.throughput < 4 * alone.throughput


def test_a_batch_that_was_not_measured_takes_a_time_between_its_neighbours_or_in_proportion() -> None:
    given, chance = costs(batch_of_4=0.4), random.Random(0)
    assert given.seconds(1, "Denoise", 2, chance) == pytest.approx(0.2)
    assert given.seconds(1, "Denoise", 8, chance) == pytest.approx(0.8)


def test_work_beside_the_calls_takes_time_from_lanes_only_where_they_leave_no_core_free() -> None:
    heavy = costs(processor=0.4)
    crowded = simulate(heavy, Sharing(2, max_active=16, cores=2), PLAN, 16, 400.0)
    assert crowded.throughput == pytest.approx(2 / (QUERY + 0.4), rel=0.05)
    elsewhere = simulate(heavy, Sharing(2, max_active=16), PLAN, 16, 400.0)
    assert elsewhere.throughput == pytest.approx(2 / QUERY, rel=0.05)
    one_lane_busy = simulate(heavy, Sharing(2, max_active=16, cores=2), PLAN, 1, 400.0)
    assert one_lane_busy.latency(99) == pytest.approx(QUERY)


def test_one_engine_is_enough_for_as_many_as_it_answers_in_time() -> None:
    served = wearers_served(costs(), Sharing(max_active=16), PLAN, pause=60.0, limit=5.0)
    assert 0.4 < served * QUERY / 60 < 1.0  # busy most of the time, and never all of it
    assert wearers_served(costs(), Sharing(), PLAN, pause=60.0, limit=1.0) == 0
    assert wearers_served(costs(), Sharing(max_active=16), PLAN, pause=60.0, limit=5.0, rate_limit=0.1) < served / 2
