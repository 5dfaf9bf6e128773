"""The samplers in torch: from noise to a clean latent, the paper's own and two for fewer steps (lego-reference B).

Noise levels follow k-diffusion's convention, latent = clean + sigma * noise. The server has the same samplers in NumPy;
both take their noise from `lego_core.noise`, so the same seed gives the same picture, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp, expm1, log, sqrt

import numpy as np
from diffusers import EulerAncestralDiscreteScheduler
from lego_core.config import Sampler
from numpy.typing import NDArray
from torch import Tensor

# From noisy latents (B, 4, r, r) and their sigma to clean ones.
Denoiser = Callable[[Tensor, float], Tensor]
# Unit noise (B, 4, r, r) of a step: 0 for the initial latents, i > 0 for what is added after step i.
NoiseSource = Callable[[int], Tensor]


class SigmaSchedule:
    """The sigmas of a trained diffusion process, log-linear between its timesteps.

    Args:
        scheduler: Knows the process' alphas.
    """

    def __init__(self, scheduler: EulerAncestralDiscreteScheduler) -> None:
        alpha_bar = scheduler.alphas_cumprod.double().numpy()
        self._log_sigmas: NDArray[np.float64] = 0.5 * np.log((1 - alpha_bar) / alpha_bar)
        self._timesteps = np.arange(len(alpha_bar), dtype=np.float64)

    def __len__(self) -> int:
        """The timesteps of the training process."""
        return len(self._timesteps)

    def sigmas(self, steps: int) -> list[float]:
        """Returns steps + 1 falling sigmas: evenly spaced timesteps from the last to the first, then 0."""
        return [*self.sigmas_at(np.linspace(self._timesteps[-1], 0, steps).tolist()), 0.0]

    def sigmas_at(self, timesteps: Sequence[float]) -> list[float]:
        """Returns the sigmas of timesteps, which may be fractions."""
        return np.exp(np.interp(timesteps, self._timesteps, self._log_sigmas)).tolist()

    def timestep(self, sigma: float) -> float:
        """Returns the fractional timestep of a sigma above 0."""
        return float(np.interp(log(sigma), self._log_sigmas, self._timesteps))


def sample(sampler: Sampler, denoise: Denoiser, sigmas: list[float], noise: NoiseSource) -> Tensor:
    """Returns clean latents (B, 4, r, r) painted from pure noise; one denoiser evaluation a step."""
    latents = noise(0) * sigmas[0]
    if sampler == "euler_ancestral":
        return euler_ancestral(denoise, latents, sigmas, noise)
    if sampler in ("euler", "distilled"):  # a student's steps are Euler's, at noise levels of its own
        return euler(denoise, latents, sigmas)
    return dpm_solver_pp_2m(denoise, latents, sigmas)


def euler(denoise: Denoiser, latents: Tensor, sigmas: list[float]) -> Tensor:
    """Euler's method on the probability-flow equation: deterministic (Karras et al. 2022)."""
    for sigma, next_sigma in pairwise(sigmas):
        derivative = (latents - denoise(latents, sigma)) / sigma
        latents = latents + derivative * (next_sigma - sigma)
    return latents


def euler_ancestral(denoise: Denoiser, latents: Tensor, sigmas: list[float], noise: NoiseSource) -> Tensor:
    """Euler steps that overshoot and add fresh noise, eta 1: the sampler of the paper's code."""
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas), start=1):
        sigma_up = next_sigma * sqrt(1 - (next_sigma / sigma) ** 2)
        sigma_down = next_sigma**2 / sigma
        derivative = (latents - denoise(latents, sigma)) / sigma
        latents = latents + derivative * (sigma_down - sigma)
        if next_sigma > 0:
            latents = latents + noise(step) * sigma_up
    return latents


def dpm_solver_pp_2m(denoise: Denoiser, latents: Tensor, sigmas: list[float]) -> Tensor:
    """DPM-Solver++(2M): second order from the previous step's result; good pictures in few steps (Lu et al. 2022)."""
    previous, previous_h = None, 0.0
    for sigma, next_sigma in pairwise(sigmas):
        clean = denoise(latents, sigma)
        if next_sigma == 0:
            return clean
        h = log(sigma / next_sigma)
        estimate = clean if previous is None else clean + (clean - previous) * (h / (2 * previous_h))
        latents = latents * exp(-h) - estimate * expm1(-h)
        previous, previous_h = clean, h
    return latents
