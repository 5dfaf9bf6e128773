"""Our samplers against those of diffusers, with a toy denoiser that both can call."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from lego_core.branches import branch_weights
from lego_core.manifest import NoiseSchedule
from lego_core.noise import gaussian_noise
from lego_server.sampling.guidance import denoised, guide, input_scale
from lego_server.sampling.samplers import Latent, euler_ancestral, start_sampling
from lego_server.sampling.schedule import SigmaSchedule

GOLDEN = Path(__file__).parents[3] / "shared/golden/original_small.npz"
SHAPE = (4, 8, 8)
BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def toy_denoiser(latent: Latent, sigma: float) -> Latent:
    """The exact denoiser of data that is normal around 0.5 with deviation 0.3, bent a little."""
    weight = 0.09 / (0.09 + sigma**2)
    return (weight * latent + (1 - weight) * 0.5 + 0.1 * np.sin(latent)).astype(np.float32)


def sample(sampler: str, sigmas: np.ndarray, seed: int = 1) -> Latent:
    sampling = start_sampling(sampler, sigmas, lambda step: gaussian_noise(seed, step, SHAPE))  # type: ignore[arg-type]
    latent, sigma = next(sampling)
    while True:
        try:
            latent, sigma = sampling.send(toy_denoiser(latent, sigma))
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("steps", [1, 2, 10, 30])
def test_euler_agrees_with_diffusers(steps: int) -> None:
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.EulerDiscreteScheduler(**BETAS, prediction_type="sample", timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.numpy()
    latent = torch.from_numpy(gaussian_noise(1, 0, SHAPE) * sigmas[0])
    for step, timestep in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(latent, timestep)
        clean = torch.from_numpy(toy_denoiser(latent.numpy(), float(sigmas[step])))
        latent = scheduler.step(clean, timestep, latent).prev_sample

    np.testing.assert_allclose(sample("euler", sigmas), latent.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 10, 30])
def test_euler_ancestral_agrees_with_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    module = pytest.importorskip("diffusers.schedulers.scheduling_euler_ancestral_discrete")
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.numpy()
    latent = torch.from_numpy(gaussian_noise(1, 0, SHAPE) * sigmas[0])
    for step, timestep in enumerate(scheduler.timesteps):
        # diffusers draws its own noise; ours is handed to it so that both take the same path.
        noise = torch.from_numpy(gaussian_noise(1, step + 1, SHAPE))
        monkeypatch.setattr(module, "randn_tensor", lambda *_, noise=noise, **__: noise)
        scheduler.scale_model_input(latent, timestep)
        clean = torch.from_numpy(toy_denoiser(latent.numpy(), float(sigmas[step])))
        latent = scheduler.step((latent - clean) / float(sigmas[step]), timestep, latent).prev_sample

    np.testing.assert_allclose(sample("euler_ancestral", sigmas), latent.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 30])
def test_dpm_solver_agrees_with_diffusers(steps: int) -> None:
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **BETAS, prediction_type="sample", algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
        final_sigmas_type="zero", timestep_spacing="linspace",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.numpy()
    # diffusers works on alpha * x, ours on x.
    latent = torch.from_numpy(gaussian_noise(1, 0, SHAPE) * sigmas[0] * np.float32(input_scale(float(sigmas[0]))))
    for step, timestep in enumerate(scheduler.timesteps):
        sigma = float(sigmas[step])
        clean = torch.from_numpy(toy_denoiser(latent.numpy() / np.float32(input_scale(sigma)), sigma))
        latent = scheduler.step(clean, timestep, latent).prev_sample

    np.testing.assert_allclose(sample("dpm_solver_pp", sigmas), latent.numpy(), rtol=1e-3, atol=1e-4)


def test_two_dpm_steps_beat_two_euler_steps() -> None:
    fine = sample("euler", SigmaSchedule(NoiseSchedule()).sigmas(1000))
    sigmas = SigmaSchedule(NoiseSchedule()).sigmas(12)

    def error(sampler: str) -> float:
        return float(np.abs(sample(sampler, sigmas) - fine).mean())

    assert error("dpm_solver_pp") < error("euler")


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the golden values of the original code are not here")
def test_ancestral_sampling_starts_and_ends_as_the_original() -> None:
    """Between start and end lies the network; at the last step sigma falls to 0, so there it is known without one."""
    with np.load(GOLDEN) as golden:
        states, final, sigmas = golden["sampler.x_before_each_step"], golden["sampler.final"][0], golden["sigmas.10"]
    noises = original_noises()

    first, _ = next(start_sampling("euler_ancestral", sigmas, noises.__getitem__))
    np.testing.assert_allclose(first, states[0], rtol=1e-5)

    last_step = euler_ancestral(states[-1], [float(sigmas[-2]), 0.0], noises.__getitem__)
    next(last_step)
    with pytest.raises(StopIteration) as end:
        last_step.send(final)
    np.testing.assert_allclose(end.value.value, final, atol=1e-6)


def original_noises() -> dict[int, Latent]:
    spec = importlib.util.spec_from_file_location("golden_formula", GOLDEN.parent / "formula.py")
    assert spec and spec.loader
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    names = ["initial", *(f"noise.{step}" for step in range(1, 10))]
    return {step: formula.tensor(f"input.sampler.{name}", (1, *SHAPE))[0] for step, name in enumerate(names)}


def test_guidance_is_the_papers_formula() -> None:
    conditional, image_only, null = predictions = np.random.default_rng(0).standard_normal((3, *SHAPE), np.float32)

    guided = guide(predictions, branch_weights(text_scale=7.5, image_scale=1.5))

    expected = null + 7.5 * (conditional - image_only) + 1.5 * (image_only - null)
    np.testing.assert_allclose(guided, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text_scale", "image_scale", "branches"),
    [
        (7.5, 1.5, ["conditional", "image_only", "null"]),
        (7.5, 1.0, ["conditional", "image_only"]),
        (2.0, 2.0, ["conditional", "null"]),
        (1.0, 1.0, ["conditional"]),
    ],
)
def test_branches_without_weight_are_not_computed(text_scale: float, image_scale: float, branches: list[str]) -> None:
    weights = branch_weights(text_scale, image_scale)

    assert list(weights) == branches
    assert sum(weights.values()) == pytest.approx(1)


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_both_prediction_types_recover_the_clean_latent(sigma: float) -> None:
    generator = np.random.default_rng(0)
    clean, noise = generator.standard_normal(SHAPE, np.float32), generator.standard_normal(SHAPE, np.float32)
    latent = clean + np.float32(sigma) * noise
    alpha = 1 / np.sqrt(sigma**2 + 1)
    velocity = (alpha * noise - sigma * alpha * clean).astype(np.float32)

    np.testing.assert_allclose(denoised(latent, sigma, noise, "epsilon"), clean, atol=1e-5)
    np.testing.assert_allclose(denoised(latent, sigma, velocity, "v_prediction"), clean, atol=1e-5)
