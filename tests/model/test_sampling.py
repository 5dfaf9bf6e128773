"""The torch samplers against the server's, which are tested against diffusers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from lego_core.branches import branch_weights
from lego_core.config import GUIDED_SAMPLERS, Sampler
from lego_core.manifest import NoiseSchedule
from lego_core.noise import gaussian_noise
from lego_model.checkpoint import LegoCheckpoint
from lego_model.pipeline import LegoPipeline
from lego_model.sampling import SigmaSchedule, sample
from lego_server.sampling.guidance import denoised, guide, input_scale
from lego_server.sampling.samplers import start_sampling
from lego_server.sampling.schedule import SigmaSchedule as ServerSchedule

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "original_small.npz"
SEED, TEXT_SCALE, IMAGE_SCALE = 5, 3.0, 1.5


@pytest.fixture(scope="module")
def schedule() -> SigmaSchedule:
    return SigmaSchedule(
        EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    )


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the original code are not here")
@pytest.mark.parametrize("steps", [10, 100])
def test_sigmas_are_the_originals(schedule: SigmaSchedule, steps: int) -> None:
    with np.load(GOLDEN) as golden:
        np.testing.assert_allclose(schedule.sigmas(steps), golden[f"sigmas.{steps}"], rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_schedule_is_the_servers(schedule: SigmaSchedule, steps: int) -> None:
    server = ServerSchedule(NoiseSchedule())
    sigmas = schedule.sigmas(steps)

    np.testing.assert_allclose(sigmas, server.sigmas(steps), rtol=1e-4)
    timesteps = [schedule.timestep(sigma) for sigma in sigmas[:-1]]
    np.testing.assert_allclose(timesteps, np.linspace(999, 0, steps), atol=1e-6)


@pytest.mark.parametrize("sampler", GUIDED_SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_perfect_denoiser_is_followed_to_its_clean_latent(
    schedule: SigmaSchedule, sampler: Sampler, steps: int
) -> None:
    clean = torch.randn(2, 4, 8, 8)

    latents = sample(sampler, lambda _, sigma: clean, schedule.sigmas(steps), lambda step: torch.ones(2, 4, 8, 8))

    torch.testing.assert_close(latents, clean, rtol=1e-4, atol=1e-4)


def server_latent(
    checkpoint: LegoCheckpoint, frame: torch.Tensor, contexts: torch.Tensor, sampler: Sampler, steps: int
) -> np.ndarray:
    """What the server does for one request, with the torch U-Net behind it."""
    schedule, weights = ServerSchedule(NoiseSchedule()), branch_weights(TEXT_SCALE, IMAGE_SCALE)
    shape = tuple(frame.shape)
    frames = torch.stack([frame, frame, torch.zeros_like(frame)])
    sampling = start_sampling(sampler, schedule.sigmas(steps), lambda step: gaussian_noise(SEED, step, shape))
    latent, sigma = next(sampling)
    while True:
        noisy = torch.from_numpy(latent * np.float32(input_scale(sigma))).expand(3, -1, -1, -1)
        inputs = torch.cat([noisy, frames], dim=1)
        predictions = checkpoint.unet(inputs, torch.full((3,), schedule.timestep(sigma)), contexts).sample.numpy()
        try:
            clean = denoised(latent, sigma, guide(predictions, weights), "v_prediction")
            latent, sigma = sampling.send(clean)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("sampler", GUIDED_SAMPLERS)
@torch.inference_mode()
def test_the_server_paints_the_same_picture_from_the_same_seed(
    pipe: LegoPipeline, tiny: LegoCheckpoint, sampler: Sampler, steps: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(1, 4, 8, 8, generator=generator)
    context = torch.randn(1, 12 + 4 + 12, 16, generator=generator)

    latent = server_latent(tiny, frame[0], torch.cat([context, pipe.null, pipe.null]), sampler, steps)
    pixels = pipe.paint(
        frame, context, [SEED], steps=steps, sampler=sampler, text_scale=TEXT_SCALE, image_scale=IMAGE_SCALE
    )

    expected = tiny.vae.decode(torch.from_numpy(latent)[None] / tiny.vae.config.scaling_factor).sample
    torch.testing.assert_close(pixels, expected, rtol=1e-3, atol=1e-3)
