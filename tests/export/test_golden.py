"""The same function as the original's code: its golden values, through the converter and all our own parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from lego_core.branches import branch_weights
from lego_core.manifest import NoiseSchedule
from lego_export.original.convert import convert
from lego_model import sampling as torch_sampling
from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import null_context, pad_text_states
from lego_server.sampling import guidance, samplers
from lego_server.sampling.schedule import SigmaSchedule
from numpy.typing import NDArray
from torch import Tensor

from tests.export.released import GOLDEN, IMAGE_TOKENS, TEXT_TOKENS, golden_formula, lego_state, write_clip, write_llava

Golden = dict[str, NDArray[np.float32]]
# A denoiser evaluation: noisy latent (1, 4, 8, 8) and its sigma to the clean latent.
Denoiser = Callable[[NDArray[np.float32], float], NDArray[np.float32]]

STEPS = 10
TEXT_SCALE, IMAGE_SCALE = 7.5, 1.5


@pytest.fixture(scope="module")
def golden() -> Golden:
    if not GOLDEN.is_dir():
        pytest.skip("the golden values of the original code are not here")
    with np.load(GOLDEN / "original_small.npz") as values:
        return dict(values)


@pytest.fixture(scope="module")
def model(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> LegoCheckpoint:
    """The original's small model, as a released file holds it, converted."""
    formula, folder = golden_formula(), tmp_path_factory.mktemp("golden")

    def values(key: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(formula.tensor(key, shape))

    state = lego_state(values)
    for key in [key for key in state if key.startswith("model.diffusion_model.")]:
        # The average is what the original ran. The raw weights differ here, so that taking them would show.
        state["model_ema." + key.removeprefix("model.").replace(".", "")] = state[key]
        state[key] = state[key] + 1
    torch.save({"state_dict": state}, folder / "small.ckpt")
    (folder / "clip").mkdir()
    vllm, clip = write_llava(folder / "llava"), write_clip(folder / "clip")
    convert(folder / "small.ckpt", folder / "small", vllm=vllm, clip=clip)
    return LegoCheckpoint.load(folder / "small")


def given(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(golden_formula().tensor(f"input.{name}", shape))


def assert_equal(ours: Tensor | NDArray[np.float32], theirs: NDArray[np.float32]) -> None:
    """Within 1e-4 of the largest value."""
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


@torch.inference_mode()
def test_unet(model: LegoCheckpoint, golden: Golden) -> None:
    timesteps = torch.from_numpy(golden["unet.timesteps"])
    assert_equal(model.unet(given("unet.x", 2, 8, 16, 16), timesteps, given("unet.context", 2, 19, 64)).sample,
                 golden["unet.out"])  # fmt: skip


@torch.inference_mode()
def test_autoencoder(model: LegoCheckpoint, golden: Golden) -> None:
    image = given("vae.image", 1, 3, 64, 64).clamp(-1, 1)
    latent = given("vae.latent", 1, 4, 8, 8)
    assert_equal(model.vae.encode(image).latent_dist.mode(), golden["vae.mode"])
    assert_equal(model.vae.decode(latent / model.vae.config.scaling_factor).sample, golden["vae.decoded"])


@torch.inference_mode()
def context(model: LegoCheckpoint) -> Tensor:
    """The golden condition, (1, 2N + M, C)."""
    states = pad_text_states(given("conditioner.text", 1, 3, 96)[0], TEXT_TOKENS)[None]
    clip = given("sampler.clip_text", 1, TEXT_TOKENS, 64)
    return model.conditioner(clip, given("conditioner.image", 1, IMAGE_TOKENS, 96), states)


def test_conditioner(model: LegoCheckpoint, golden: Golden) -> None:
    assert_equal(context(model)[:, TEXT_TOKENS : TEXT_TOKENS + IMAGE_TOKENS], golden["conditioner.image_out"])
    assert_equal(context(model)[:, TEXT_TOKENS + IMAGE_TOKENS :], golden["conditioner.text_out"])


@pytest.mark.parametrize("steps", [10, 100])
def test_sigmas_to_four_decimals(model: LegoCheckpoint, golden: Golden, steps: int) -> None:
    theirs = golden[f"sigmas.{steps}"]
    np.testing.assert_allclose(schedule(model).sigmas(steps), theirs, rtol=0, atol=5e-5)
    np.testing.assert_allclose(torch_sampling.SigmaSchedule(model.scheduler).sigmas(steps), theirs, rtol=0, atol=5e-5)


def schedule(model: LegoCheckpoint) -> SigmaSchedule:
    config = model.scheduler.config
    return SigmaSchedule(
        NoiseSchedule(config.num_train_timesteps, config.beta_start, config.beta_end, config.prediction_type)
    )


@pytest.fixture(scope="module")
def denoise(model: LegoCheckpoint, golden: Golden) -> Denoiser:
    """One guided evaluation, with the server's own arithmetic around the U-Net."""
    null = null_context(given("sampler.clip_null", 1, TEXT_TOKENS, 64), IMAGE_TOKENS + TEXT_TOKENS)
    contexts = torch.cat([context(model), null, null])
    frame = torch.from_numpy(golden["vae.mode"])
    frames = torch.cat([frame, frame, torch.zeros_like(frame)])
    weights = branch_weights(TEXT_SCALE, IMAGE_SCALE)

    @torch.inference_mode()
    def evaluate(latent: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        scaled = torch.from_numpy(latent * np.float32(guidance.input_scale(sigma))).repeat(3, 1, 1, 1)
        timesteps = torch.full((3,), schedule(model).timestep(sigma))
        predictions = model.unet(torch.cat([scaled, frames], dim=1), timesteps, contexts).sample
        prediction = guidance.guide(predictions.numpy(), weights)[None]
        return guidance.denoised(latent, sigma, prediction, model.scheduler.config.prediction_type)

    return evaluate


def test_one_guided_step(model: LegoCheckpoint, golden: Golden, denoise: Denoiser) -> None:
    assert schedule(model).timestep(3.0) == pytest.approx(float(golden["guided.timestep_at_sigma_3"][0]), abs=1e-2)
    latent = 3 * given("sampler.z", 1, 4, 8, 8).numpy()
    assert_equal(denoise(latent, 3.0), golden["guided.denoised_at_sigma_3"])


def noise(step: int) -> Tensor:
    return given("sampler.initial" if step == 0 else f"sampler.noise.{step}", 1, 4, 8, 8)


def test_ten_ancestral_steps_with_the_servers_sampler(model: LegoCheckpoint, golden: Golden, denoise: Denoiser) -> None:
    sampling = samplers.start_sampling(
        "euler_ancestral", schedule(model).sigmas(STEPS), lambda step: noise(step).numpy()
    )  # fmt: skip
    seen, answer = [], None
    while True:
        try:
            latent, sigma = sampling.send(answer)  # type: ignore[arg-type]
        except StopIteration as ended:
            final = ended.value
            break
        seen.append(latent)
        answer = denoise(latent, sigma)

    for ours, theirs in zip(np.concatenate(seen), golden["sampler.x_before_each_step"], strict=True):
        assert_equal(ours, theirs)
    assert_equal(final, golden["sampler.final"])


def test_ten_ancestral_steps_with_the_torch_pipelines_sampler(
    model: LegoCheckpoint, golden: Golden, denoise: Denoiser
) -> None:  # fmt: skip
    seen = []

    def evaluate(latents: Tensor, sigma: float) -> Tensor:
        seen.append(latents)
        return torch.from_numpy(denoise(latents.float().numpy(), sigma))

    sigmas = torch_sampling.SigmaSchedule(model.scheduler).sigmas(STEPS)
    final = torch_sampling.sample("euler_ancestral", evaluate, sigmas, noise)

    for ours, theirs in zip(torch.cat(seen), golden["sampler.x_before_each_step"], strict=True):
        assert_equal(ours, theirs)
    assert_equal(final, golden["sampler.final"])


@torch.inference_mode()
def test_the_sampled_latent_decodes_to_the_originals_picture(model: LegoCheckpoint, golden: Golden) -> None:
    latent = torch.from_numpy(golden["sampler.final"])
    assert_equal(model.vae.decode(latent / model.vae.config.scaling_factor).sample, golden["sampler.decoded"])
