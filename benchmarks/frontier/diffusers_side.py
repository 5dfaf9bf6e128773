"""The side to beat: diffusers' own InstructPix2Pix pipeline, with transformers' `generate` for the description.

Only what LEGO adds to InstructPix2Pix is ours here: the context that the U-Net attends to.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionInstructPix2PixPipeline
from diffusers.schedulers import scheduling_euler_ancestral_discrete
from lego_core.config import GuidanceDefaults
from lego_core.images import frame_square, frame_to_vision_pixels, output_size
from lego_core.noise import gaussian_noise
from lego_core.prompts import build_prompt, encode_description, encode_prompt
from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import null_context, pad_text_states
from PIL import Image
from torch import Tensor

from benchmarks.frontier.sides import Outcome, clock


class DiffusersSide:
    """See `benchmarks.frontier.sides.Side`.

    Args:
        model: Checkpoint directory.
        threads: CPU threads.
        compiled: Whether U-Net and decoder go through `torch.compile`.
        bf16: Whether all of it runs under bfloat16 autocast.
    """

    def __init__(self, model: Path, threads: int, compiled: bool, bf16: bool) -> None:
        torch.set_num_threads(threads)
        self._bf16 = bf16
        self._checkpoint = checkpoint = LegoCheckpoint.load(model, without=("student",))
        self._pipeline = StableDiffusionInstructPix2PixPipeline(
            vae=checkpoint.vae, text_encoder=checkpoint.text_encoder, tokenizer=None, unet=checkpoint.unet,
            scheduler=checkpoint.scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        self._pipeline.set_progress_bar_config(disable=True)
        if compiled:
            self._pipeline.unet = torch.compile(checkpoint.unet)
            self._pipeline.vae.decode = torch.compile(checkpoint.vae.decode)

    def answers(self, sampling: GuidanceDefaults) -> bool:
        """See `Side`; diffusers would have to be given our student, and whatever else is not InstructPix2Pix."""
        plain = GuidanceDefaults(sampling.sampler, sampling.steps, sampling.text_scale, sampling.image_scale)
        return sampling == plain and sampling.sampler in ("euler_ancestral", "dpm_solver_pp")

    @torch.no_grad()
    def answer(self, frame: bytes, query: str, seed: int, sampling: GuidanceDefaults) -> Outcome:
        """See `Side`."""
        begin = time.perf_counter()
        image = Image.open(io.BytesIO(frame)).convert("RGB")
        with self._precision():
            words, image_embeddings, text_states = self._describe(image, query)
            described = time.perf_counter()
            context, null = self._contexts(words, image_embeddings, text_states)
            picture = self._paint(image, context, null, seed, sampling)
        picture = picture.resize(output_size(self._checkpoint.config.resolution, *image.size), Image.Resampling.BICUBIC)
        return Outcome(words, np.asarray(picture), clock(begin, described, time.perf_counter()))

    def _describe(self, image: Image.Image, query: str) -> tuple[str, Tensor, Tensor]:
        """Returns the sentence, the image's embeddings (M, D) and the written tokens' states (T, D)."""
        checkpoint, lego, vllm = self._checkpoint, self._checkpoint.config, self._checkpoint.vllm
        before, after = encode_prompt(
            checkpoint.vllm_tokenizer, build_prompt(lego, query), vllm.config.text_config.bos_token_id
        )
        ids = torch.tensor([[*before, *[vllm.config.image_token_id] * lego.image_tokens, *after]])
        pixels = torch.from_numpy(frame_to_vision_pixels(image, lego.vision))[None]
        written = vllm.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, do_sample=False,
            max_new_tokens=lego.max_description_tokens, return_dict_in_generate=True, output_hidden_states=True,
        )  # fmt: skip
        # The embedding layer's output for the prompt holds the image's embeddings; the last layer's, for each token,
        # what it was written from.
        embeddings = written.hidden_states[0][0][0, len(before) : len(before) + lego.image_tokens]
        states = torch.cat([layers[-1][0, -1:] for layers in written.hidden_states])
        words = checkpoint.vllm_tokenizer.decode(written.sequences[0, ids.shape[1] :].tolist()).strip()
        return words, embeddings, states

    def _contexts(self, words: str, image_embeddings: Tensor, text_states: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the context of the description and that of "no condition", (1, 2N + M, C) each."""
        checkpoint, lego = self._checkpoint, self._checkpoint.config
        ids = [
            encode_description(checkpoint.tokenizer, text, lego.text_tokens, checkpoint.special_text_tokens)
            for text in (words, "")
        ]
        described, empty = checkpoint.text_encoder(torch.tensor(ids)).last_hidden_state.float().split(1)
        context = checkpoint.conditioner(
            described, image_embeddings[None].float(), pad_text_states(text_states, lego.text_tokens)[None].float()
        )
        return context, null_context(empty, lego.projected_tokens)

    def _paint(
        self, image: Image.Image, context: Tensor, null: Tensor, seed: int, sampling: GuidanceDefaults
    ) -> Image.Image:
        pipeline, lego = self._pipeline, self._checkpoint.config
        pipeline.scheduler = self._checkpoint.scheduler
        if sampling.sampler == "dpm_solver_pp":
            pipeline.scheduler = DPMSolverMultistepScheduler.from_config(self._checkpoint.scheduler.config)
        side = lego.resolution // pipeline.vae_scale_factor
        shape = (1, self._checkpoint.vae.config.latent_channels, side, side)
        with _our_noise(seed):
            return pipeline(
                image=frame_square(image, lego.resolution), prompt_embeds=context, negative_prompt_embeds=null,
                guidance_scale=sampling.text_scale, image_guidance_scale=sampling.image_scale,
                num_inference_steps=sampling.steps, latents=torch.from_numpy(gaussian_noise(seed, 0, shape)),
            ).images[0]  # fmt: skip

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if self._bf16 else nullcontext()


@contextmanager
def _our_noise(seed: int) -> Iterator[None]:
    """Has the scheduler add the server's noise between its steps, so that pictures can be compared."""
    step = 0

    def noise(shape: torch.Size, dtype: torch.dtype, **_: Any) -> Tensor:
        nonlocal step
        step += 1
        return torch.from_numpy(gaussian_noise(seed, step, tuple(shape))).to(dtype)

    with mock.patch.object(scheduling_euler_ancestral_discrete, "randn_tensor", noise):
        yield
