"""The fidelity "original" against the original's inference written out plainly (lego-reference B)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lego_core.config import GuidanceDefaults
from lego_core.errors import LegoError
from lego_core.images import original_frame
from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import null_context
from lego_model.describe import describe
from lego_model.pipeline import LegoPipeline
from PIL import Image

QUERY = "How do I open the drawer?"
STEPS = 5


def original_picture(pixels: torch.Tensor, width: int, height: int) -> np.ndarray:
    """The original's post-processing, in torch."""
    rows = pixels.shape[-1]
    resized = F.interpolate(pixels[None], size=(rows, round(width / height * rows)), mode="bicubic")[0]
    stretched = (resized - resized.min()) / (resized.max() - resized.min()) * 255
    return stretched.permute(1, 2, 0).numpy().astype(np.uint8)


@pytest.mark.parametrize("size", [(1280, 720), (456, 256), (64, 64), (48, 120)])
def test_the_picture_is_finished_as_torch_does(size: tuple[int, int]) -> None:
    pixels = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))

    ours, theirs = np.asarray(original_frame(pixels.numpy(), *size), int), original_picture(pixels, *size).astype(int)

    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1  # where rounding moves a value over a whole number
    assert (ours != theirs).mean() < 0.01


@torch.inference_mode()
def original_inference(
    checkpoint: LegoCheckpoint, frame: torch.Tensor, context: torch.Tensor, seed: int
) -> torch.Tensor:
    """Sampling as k-diffusion's Euler-ancestral does behind a denoiser of the original's kind; pixels (3, R, R).

    Sigmas and noise have the frame's type, as the original's do.
    """
    alphas = checkpoint.scheduler.alphas_cumprod.double().cpu()
    log_sigmas = ((1 - alphas) / alphas).sqrt().log().numpy()
    trained = np.arange(len(alphas))
    spaced = np.exp(np.interp(np.linspace(len(alphas) - 1, 0, STEPS), trained, log_sigmas))
    sigmas = torch.tensor([*spaced, 0]).to(frame)
    torch.manual_seed(seed)
    x = torch.randn_like(frame) * sigmas[0]
    for sigma, following in pairwise(sigmas):
        t = torch.tensor(np.interp(np.log(sigma.item()), log_sigmas, trained)).to(context)
        scaled = torch.cat([x / (sigma**2 + 1).sqrt()] * 3)
        inputs = torch.cat([scaled, torch.cat([frame, frame, torch.zeros_like(frame)])], dim=1)
        output = checkpoint.unet(inputs, t.repeat(3), context).sample
        # The tiny model predicts v, where the original's predicts the noise.
        both, image, nothing = (x / (sigma**2 + 1) - output * (sigma / (sigma**2 + 1).sqrt())).chunk(3)
        denoised = nothing + 7.5 * (both - image) + 1.5 * (image - nothing)
        up = min(following, (following**2 * (sigma**2 - following**2) / sigma**2).sqrt())
        x = x + (x - denoised) / sigma * ((following**2 - up**2).sqrt() - sigma)
        if following > 0:
            x = x + torch.randn_like(x) * up
    return checkpoint.vae.decode(x / checkpoint.vae.config.scaling_factor).sample[0]


def test_an_answer_is_the_originals_step_for_step(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    words = describe(pipe.checkpoint, pipe.embed(frames[0]), QUERY, "original")
    context = torch.cat([pipe.context([words]), pipe.null, pipe.null])
    # Contiguous, as the original's is: noise made like a tensor follows that tensor's layout.
    latents = pipe.encode_frames(frames[:1]).contiguous()
    pixels = original_inference(pipe.checkpoint, latents, context, seed=3)

    answer = pipe(frames[0], QUERY, seed=3, steps=STEPS, fidelity="original")

    expected = original_picture(pixels, *frames[0].size).astype(int)
    picture = np.asarray(answer.image, int)
    assert picture.shape == expected.shape
    assert np.abs(picture - expected).max() <= 1
    assert (picture.min(), picture.max()) == (0, 255)


def test_sampling_defaults_are_the_originals_unless_given(pipe: LegoPipeline) -> None:
    assert pipe.config.guidance != GuidanceDefaults(), "the tiny model has defaults of its own"

    assert pipe.config.sampling("original") == GuidanceDefaults("euler_ancestral", 100, 7.5, 1.5)
    assert pipe.config.sampling("original", steps=4, text_scale=None) == GuidanceDefaults(
        "euler_ancestral", 4, 7.5, 1.5
    )


def test_each_picture_of_a_batch_has_its_own_seeds_noise(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    latents = pipe.encode_frames(frames)
    together = pipe.paint(latents, pipe.null.expand(2, -1, -1), [1, 2], steps=2, fidelity="original")

    alone = pipe.paint(latents[1:], pipe.null, [2], steps=2, fidelity="original")

    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-3)


def test_the_question_keeps_its_articles(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    embeddings = pipe.embed(frames[0])

    with_article, without = (
        describe(pipe.checkpoint, embeddings, "How do I open the drawer?", fidelity).text_states[0]
        for fidelity in ("original", "default")
    )

    assert not torch.equal(with_article, without)


def test_an_unknown_fidelity_is_refused(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    with pytest.raises(LegoError, match="fidelity is 'exact'; choose one of default, original"):
        pipe(frames[0], QUERY, fidelity="exact")  # type: ignore[arg-type]


def on_a_gpu(test: Callable[..., None]) -> Callable[..., None]:
    reason = "half precision is the original's on an NVIDIA GPU only, and there is none"
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason=reason)(test))


@on_a_gpu
def test_on_a_gpu_an_answer_is_the_originals_under_half_precision_autocast(
    tiny_directory: Path, frames: list[Image.Image]
) -> None:  # fmt: skip
    pipe = LegoPipeline.from_pretrained(tiny_directory, device="cuda")
    words = describe(pipe.checkpoint, pipe.embed(frames[0]), QUERY, "original")
    with torch.inference_mode(), torch.autocast("cuda", torch.float16):
        nothing = null_context(pipe.encode_text([""]), pipe.config.image_tokens)
        context = torch.cat([pipe.context([words]), nothing, nothing])
        latents = pipe.encode_frames(frames[:1]).contiguous()
        pixels = original_inference(pipe.checkpoint, latents, context, seed=3)

    answer = pipe(frames[0], QUERY, seed=3, steps=STEPS, fidelity="original")

    assert latents.dtype == pixels.dtype == torch.float16
    expected = original_picture(pixels.float().cpu(), *frames[0].size).astype(int)
    difference = np.abs(np.asarray(answer.image, int) - expected)
    # Half precision rounds each of the two differently where one works in tensors and the other in numbers.
    assert difference.mean() < 1 and difference.max() <= 8


@on_a_gpu
def test_on_a_gpu_latents_are_in_half_precision(tiny_directory: Path, frames: list[Image.Image]) -> None:
    pipe = LegoPipeline.from_pretrained(tiny_directory, device="cuda")
    with pipe.precision("original"):
        latents = pipe.encode_frames(frames[:1])

    pixels = pipe.paint(latents, pipe.null, [0], steps=2, fidelity="original")

    assert latents.dtype == pixels.dtype == torch.float16
