from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lego_core.errors import LegoError
from lego_core.manifest import NoiseSchedule
from lego_server.sampling.schedule import SigmaSchedule

GOLDEN = Path(__file__).parents[3] / "shared/golden/original_small.npz"
schedule = SigmaSchedule(NoiseSchedule())


def test_a_hundred_sigmas_are_those_of_the_papers_code() -> None:
    sigmas = schedule.sigmas(100)

    assert sigmas.shape == (101,)
    np.testing.assert_allclose(sigmas[:3], [14.6146, 13.7525, 12.9524], atol=5e-5)
    np.testing.assert_allclose(sigmas[-4:], [0.1386, 0.0987, 0.0292, 0], atol=5e-5)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the original code are not here")
@pytest.mark.parametrize("steps", [10, 100])
def test_sigmas_match_the_original_code(steps: int) -> None:
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(schedule.sigmas(steps), golden[f"sigmas.{steps}"], rtol=2e-5)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the original code are not here")
def test_the_timestep_of_a_sigma_matches_the_original_code() -> None:
    with np.load(GOLDEN) as golden:
        assert schedule.timestep(3.0) == pytest.approx(float(golden["guided.timestep_at_sigma_3"][0]), abs=1e-2)


def test_timesteps_of_the_sigmas_are_evenly_spaced_and_fractional() -> None:
    timesteps = [schedule.timestep(float(sigma)) for sigma in schedule.sigmas(5)[:-1]]

    np.testing.assert_allclose(timesteps, [999, 749.25, 499.5, 249.75, 0], atol=1e-3)


def test_one_step_starts_from_the_noisiest_sigma() -> None:
    np.testing.assert_allclose(schedule.sigmas(1), [14.6146, 0], atol=5e-5)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(LegoError, match=f"steps is {steps}; it must lie between 1 and 1000"):
        schedule.sigmas(steps)
