"""What each denoising step asks of the U-Net."""

from __future__ import annotations

import pytest
from lego_core.branches import SHALLOW_SHARE, branch_weights, cost, plan_evaluations
from lego_core.errors import LegoError

ALL = ("conditional", "image_only", "null")


def rows(*args: object, **options: object) -> list[int]:
    return [len(each.weights) for each in plan_evaluations(*args, **options)]  # type: ignore[arg-type]


def features(*args: object, **options: object) -> list[str]:
    return [each.features[0] for each in plan_evaluations(*args, **options)]  # type: ignore[arg-type]


def test_by_default_every_step_is_guided_and_evaluates_the_whole_network() -> None:
    plan = plan_evaluations(3, 7.5, 1.5)

    assert [each.weights for each in plan] == [branch_weights(7.5, 1.5)] * 3
    assert {each.features for each in plan} == {"dropped"}
    assert plan_evaluations(3, 7.5, 1.5, (0.0, 1.0), 1) == plan


@pytest.mark.parametrize(
    ("interval", "asked"),
    [
        ((0.0, 1.0), [3, 3, 3, 3]),
        ((0.0, 0.5), [3, 3, 1, 1]),
        ((0.25, 0.75), [1, 3, 3, 1]),
        ((0.125, 0.375), [3, 1, 1, 1]),  # a middle at the beginning counts, one at the end does not
        ((0.6, 1.0), [1, 1, 3, 3]),
    ],
)
def test_outside_the_guidance_interval_the_conditional_branch_is_asked_alone(
    interval: tuple[float, float], asked: list[int]
) -> None:
    plan = plan_evaluations(4, 7.5, 1.5, interval)

    assert [len(each.weights) for each in plan] == asked
    assert all(each.weights == {"conditional": 1.0} for each in plan if len(each.weights) == 1)
    assert all(tuple(each.weights) == ALL for each in plan if len(each.weights) == 3)


def test_an_interval_without_a_step_is_refused() -> None:
    with pytest.raises(LegoError, match="which holds the middle of none of the 1 steps"):
        plan_evaluations(1, 7.5, 1.5, (0.6, 0.7))


@pytest.mark.parametrize(
    ("steps", "interval", "expected"),
    [
        (4, 1, "dddd"),
        (6, 3, "krrkrr"),
        (7, 3, "krrkrrd"),  # what nobody reuses is not kept
        (5, 2, "krkrd"),
        (4, 100, "krrr"),
        (1, 5, "d"),
    ],
)
def test_deep_features_are_computed_at_every_nth_step_and_reused_between(
    steps: int, interval: int, expected: str
) -> None:
    assert "".join(features(steps, 7.5, 1.5, cache_interval=interval)) == expected


def test_where_the_branches_change_features_are_computed_anew() -> None:
    assert rows(8, 7.5, 1.5, (0.25, 0.75), 3) == [1, 1, 3, 3, 3, 3, 1, 1]
    assert "".join(features(8, 7.5, 1.5, (0.25, 0.75), 3)) == "krkrrdkr"
    # Guided or not, scales of 1 ask the conditional branch alone: nothing changes.
    assert "".join(features(8, 1.0, 1.0, (0.25, 0.75), 3)) == "krrkrrkr"


def test_evaluations_cost_what_their_rows_do_and_those_without_the_deep_layers_their_share() -> None:
    assert cost(plan_evaluations(10, 7.5, 1.5)) == 30
    assert cost(plan_evaluations(10, 7.5, 1.5, (0.5, 1.0))) == 5 + 15
    assert cost(plan_evaluations(10, 7.5, 1.5, cache_interval=2)) == pytest.approx(15 + 15 * SHALLOW_SHARE)
    assert cost(plan_evaluations(4, 1.0, 1.0, cache_interval=4)) == pytest.approx(1 + 3 * SHALLOW_SHARE)
