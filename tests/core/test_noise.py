"""A request's noise depends on its seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_core.noise import gaussian_noise

SHAPE = (4, 32, 32)


def test_the_same_seed_and_step_give_the_same_noise_whatever_was_drawn_between() -> None:
    alone = gaussian_noise(7, 3, SHAPE)
    np.random.default_rng(7).standard_normal(100)
    for neighbour in range(5):
        gaussian_noise(neighbour, 3, SHAPE)

    np.testing.assert_array_equal(gaussian_noise(7, 3, SHAPE), alone)


def test_noise_is_standard_normal_float32() -> None:
    noise = gaussian_noise(0, 0, (4, 128, 128))

    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


@pytest.mark.parametrize("other", [(1, 0), (0, 1), (2**64 - 1, 0), (0, 999)])
def test_seeds_and_steps_do_not_share_noise(other: tuple[int, int]) -> None:
    correlation = np.corrcoef(gaussian_noise(0, 0, SHAPE).ravel(), gaussian_noise(*other, SHAPE).ravel())[0, 1]

    assert abs(correlation) < 0.06


def test_a_neighbouring_step_never_continues_the_same_stream() -> None:
    first, second = gaussian_noise(5, 0, (100_000,)), gaussian_noise(5, 1, (1000,))

    assert not np.isin(second, first).mean() > 0.1


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(LegoError, match=f"seed is {seed}; it must lie between 0 and"):
        gaussian_noise(seed, 0, SHAPE)
