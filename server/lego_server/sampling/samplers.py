"""The samplers: from noise to a clean latent, one denoiser evaluation at a time.

Each is a generator. It yields (noisy latent, sigma), is sent the denoised latent for it, and returns the final
latent, so that whoever drives it may serve other requests between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import pairwise
from math import exp, expm1, log, sqrt

import numpy as np
from lego_core.config import Sampler
from numpy.typing import NDArray

Latent = NDArray[np.float32]
Sampling = Generator[tuple[Latent, float], Latent, Latent]
NoiseSource = Callable[[int], Latent]


def start_sampling(sampler: Sampler, sigmas: NDArray[np.float32], noise: NoiseSource) -> Sampling:
    """Starts from pure noise with the named sampler.

    Args:
        sampler: One of `lego_core.config.SAMPLERS`.
        sigmas: (steps + 1,) falling noise levels that end in 0.
        noise: Gives the unit noise of step 0 (the initial latent) and of each later step.
    """
    levels = [float(sigma) for sigma in sigmas]
    latent = noise(0) * np.float32(levels[0])
    match sampler:
        case "euler_ancestral":
            return euler_ancestral(latent, levels, noise)
        case "euler" | "distilled":  # a student's steps are Euler's, at noise levels of its own
            return euler(latent, levels)
        case "dpm_solver_pp":
            return dpm_solver_pp_2m(latent, levels)


def euler(latent: Latent, sigmas: list[float]) -> Sampling:
    """Euler's method on the probability-flow equation: deterministic (Karras et al. 2022)."""
    for sigma, next_sigma in pairwise(sigmas):
        denoised = yield latent, sigma
        derivative = (latent - denoised) / np.float32(sigma)
        latent = latent + derivative * np.float32(next_sigma - sigma)
    return latent


def euler_ancestral(latent: Latent, sigmas: list[float], noise: NoiseSource) -> Sampling:
    """Euler steps that overshoot and add fresh noise, eta 1: the sampler of the paper's code."""
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        denoised = yield latent, sigma
        sigma_up = min(next_sigma, sqrt(next_sigma**2 * (sigma**2 - next_sigma**2) / sigma**2))
        sigma_down = sqrt(next_sigma**2 - sigma_up**2)
        derivative = (latent - denoised) / np.float32(sigma)
        latent = latent + derivative * np.float32(sigma_down - sigma)
        if next_sigma > 0:
            latent = latent + noise(step + 1) * np.float32(sigma_up)
    return latent


def dpm_solver_pp_2m(latent: Latent, sigmas: list[float]) -> Sampling:
    """DPM-Solver++(2M), data prediction, midpoint (Lu et al. 2022): good pictures in few steps; deterministic."""
    previous: Latent | None = None
    previous_h = 0.0
    for sigma, next_sigma in pairwise(sigmas):
        denoised = yield latent, sigma
        if next_sigma == 0:
            return denoised
        h = log(sigma) - log(next_sigma)
        estimate = denoised
        if previous is not None:
            ratio = previous_h / h
            estimate = denoised + (denoised - previous) * np.float32(1.0 / (2.0 * ratio))
        latent = latent * np.float32(exp(-h)) - estimate * np.float32(expm1(-h))
        previous, previous_h = denoised, h
    return latent
