"""The noise schedule: sigmas to sample at, and the timestep the U-Net is told for each (lego-reference B)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lego_core.errors import LegoError
from lego_core.manifest import NoiseSchedule
from numpy.typing import NDArray


class SigmaSchedule:
    """The sigmas of a trained diffusion process, readable between its timesteps.

    sigma = sqrt((1 - alpha_bar) / alpha_bar), so that x = x0 + sigma * noise. Between two trained timesteps
    sigma is interpolated log-linearly, as k-diffusion does.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        """Computes the table, in float64.

        Args:
            schedule: Betas linear in their square root (lego-reference A4).
        """
        betas = np.linspace(schedule.beta_start**0.5, schedule.beta_end**0.5, schedule.train_timesteps) ** 2
        alphas_cumprod = np.cumprod(1.0 - betas)
        self._timesteps = np.arange(schedule.train_timesteps, dtype=np.float64)
        self._log_sigmas: NDArray[np.float64] = 0.5 * np.log((1.0 - alphas_cumprod) / alphas_cumprod)

    def sigmas(self, steps: int) -> NDArray[np.float32]:
        """Returns the sigmas to step through, from the noisiest down, with a final 0.

        Args:
            steps: Number of denoising steps, 1 to the number of trained timesteps.

        Returns:
            (steps + 1,) float32, at timesteps linspace(last, 0, steps).

        Raises:
            LegoError: `steps` is out of range.
        """
        if not 1 <= steps <= len(self._timesteps):
            raise LegoError(f"steps is {steps}; it must lie between 1 and {len(self._timesteps)}")
        return self.sigmas_at(np.linspace(self._timesteps[-1], 0.0, steps).tolist())

    def sigmas_at(self, timesteps: Sequence[float]) -> NDArray[np.float32]:
        """Returns the sigmas of some timesteps, with a final 0, (len(timesteps) + 1,) float32."""
        sigmas = np.exp(np.interp(timesteps, self._timesteps, self._log_sigmas))
        return np.append(sigmas, 0.0).astype(np.float32)

    def timestep(self, sigma: float) -> float:
        """Returns the fractional timestep of a sigma above 0; sigmas beyond the table take its ends."""
        return float(np.interp(np.log(sigma), self._log_sigmas, self._timesteps))
