"""LegoPipeline: a frame and a query in, the guidance frame out. The readable torch reference of the whole method.

    from lego_model.pipeline import LegoPipeline
    pipe = LegoPipeline.from_pretrained("models/lego-nano")
    guidance = pipe(Image.open("kitchen.jpg"), "how do I open the drawer?")
    guidance.image.save("guidance.png"); print(guidance.description)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from lego_core.config import SAMPLERS, Sampler
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels, frame_to_vision_pixels, pixels_to_frame
from lego_core.noise import gaussian_noise
from lego_core.prompts import encode_description
from PIL import Image
from torch import Tensor

from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import null_context, pad_text_states
from lego_model.describe import Description, describe, embed_image, states_of

Scheduler = DPMSolverMultistepScheduler | EulerAncestralDiscreteScheduler | EulerDiscreteScheduler


@dataclass(frozen=True)
class Guidance:
    """One answer.

    Attributes:
        image: The guidance frame at the input frame's aspect ratio.
        description: The sentence it was painted from.
        seed: Makes the same picture again.
    """

    image: Image.Image
    description: str
    seed: int


class LegoPipeline:
    """Describes an action in a frame and paints it (paper, section 3)."""

    def __init__(self, checkpoint: LegoCheckpoint) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config
        self._null: Tensor | None = None

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> Self:
        """Loads a checkpoint directory.

        Raises:
            LegoError: The directory is not a whole LEGO checkpoint.
        """
        return cls(LegoCheckpoint.load(directory, dtype).to(device))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.checkpoint.unet.device

    def __call__(
        self,
        image: Image.Image,
        query: str,
        *,
        description: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        text_scale: float | None = None,
        image_scale: float | None = None,
        sampler: Sampler | None = None,
    ) -> Guidance:
        """Answers one query about one frame.

        Args:
            image: The input frame, any size.
            query: What the wearer asks, such as "how do I open the drawer?".
            description: Paints from this sentence instead of the VLLM's own.
            seed: Of the noise; the server makes the same picture from it, up to rounding.
            steps: Denoising steps; None takes the model's default, as for the three below.
            text_scale: Guidance scale of the text-side conditions.
            image_scale: Guidance scale of the input frame.
            sampler: One of `lego_core.config.SAMPLERS`.

        Raises:
            LegoError: The query names no action, or an option is out of range.
        """
        image = image.convert("RGB")
        features = self.embed(image)
        if description is None:
            words = describe(self.checkpoint, features, query)
        else:
            words = states_of(self.checkpoint, features, query, description)
        pixels = self.paint(
            self.encode_frames([image]), self.context([words]), [seed],
            steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler,
        )  # fmt: skip
        frame = pixels_to_frame(pixels[0].float().cpu().numpy(), *image.size)
        return Guidance(frame, words.text, seed)

    @torch.inference_mode()
    def embed(self, image: Image.Image) -> Tensor:
        """Returns the VLLM's image embeddings of a frame, (M, D)."""
        pixels = torch.from_numpy(frame_to_vision_pixels(image, self.config.vision))[None]
        return embed_image(self.checkpoint, pixels.to(self.device, self.checkpoint.vllm.dtype))[0]

    @torch.inference_mode()
    def encode_frames(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns the frames' latents (B, 4, r, r): the posterior's mode, not scaled (lego-reference A1)."""
        pixels = np.stack([frame_to_pixels(image, self.config.resolution) for image in images])
        return self.checkpoint.vae.encode(
            torch.from_numpy(pixels).to(self.device, self.checkpoint.vae.dtype)
        ).latent_dist.mode()

    @torch.inference_mode()
    def encode_text(self, descriptions: Sequence[str]) -> Tensor:
        """Returns CLIP's last hidden states of the descriptions, (B, N, C)."""
        special = self.checkpoint.special_text_tokens
        ids = [
            encode_description(self.checkpoint.tokenizer, text, self.config.text_tokens, special) for text in descriptions
        ]
        return self.checkpoint.text_encoder(torch.tensor(ids, device=self.device)).last_hidden_state

    @torch.inference_mode()
    def context(self, words: Sequence[Description]) -> Tensor:
        """Returns the cross-attention context (B, 2N + M, C) of descriptions."""
        states = torch.stack([pad_text_states(each.text_states, self.config.text_tokens) for each in words])
        embeddings = torch.stack([each.image_embeddings for each in words])
        return self.checkpoint.conditioner(self.encode_text([each.text for each in words]), embeddings, states)

    @property
    def null(self) -> Tensor:
        """The context of "no condition", (1, 2N + M, C)."""
        if self._null is None:
            self._null = null_context(self.encode_text([""]), self.config.image_tokens)
        return self._null

    @torch.inference_mode()
    def paint(
        self,
        frame_latents: Tensor,
        contexts: Tensor,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        text_scale: float | None = None,
        image_scale: float | None = None,
        sampler: Sampler | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Denoises and decodes a batch.

        Args:
            frame_latents: Of the input frames, (B, 4, r, r), not scaled.
            contexts: (B, 2N + M, C).
            seeds: One per frame.
            steps: As for `__call__`, and so the three below.
            text_scale: See above.
            image_scale: See above.
            sampler: See above.
            on_step: Called with (steps done, steps) after each.

        Returns:
            Pixels (B, 3, R, R), about [-1, 1].
        """
        defaults = self.config.guidance
        text_scale = defaults.text_scale if text_scale is None else text_scale
        image_scale = defaults.image_scale if image_scale is None else image_scale
        scheduler = self._scheduler(sampler or defaults.sampler, steps or defaults.steps)
        unet, dtype = self.checkpoint.unet, self.checkpoint.unet.dtype
        batch = len(seeds)
        shape = frame_latents.shape[1:]
        noise = np.stack([gaussian_noise(seed, 0, tuple(shape)) for seed in seeds])
        latents = torch.from_numpy(noise).to(self.device) * scheduler.init_noise_sigma
        # The three branches of dual guidance share one call: condition, input frame only, nothing (lego-reference B).
        context = torch.cat([contexts, self.null.expand(2 * batch, -1, -1)])
        frames = torch.cat([frame_latents, frame_latents, torch.zeros_like(frame_latents)])
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        ancestral = {"generator": generators} if isinstance(scheduler, EulerAncestralDiscreteScheduler) else {}
        for index, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(latents, timestep)
            inputs = torch.cat([scaled.to(dtype).repeat(3, 1, 1, 1), frames], dim=1)
            timesteps = timestep.float().to(self.device).expand(3 * batch)
            conditioned, image_only, nothing = unet(inputs, timesteps, context).sample.float().chunk(3)
            prediction = nothing + image_scale * (image_only - nothing) + text_scale * (conditioned - image_only)
            latents = scheduler.step(prediction, timestep, latents, **ancestral).prev_sample
            if on_step is not None:
                on_step(index + 1, len(scheduler.timesteps))
        vae = self.checkpoint.vae
        return vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample

    def _scheduler(self, sampler: Sampler, steps: int) -> Scheduler:
        if not 1 <= steps <= 1000:
            raise LegoError(f"steps is {steps}; it must lie between 1 and 1000")
        config = self.checkpoint.scheduler.config
        scheduler: Scheduler
        if sampler == "euler_ancestral":
            scheduler = EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="linspace")
        elif sampler == "euler":
            scheduler = EulerDiscreteScheduler.from_config(config, timestep_spacing="linspace")
        elif sampler == "dpm_solver_pp":
            scheduler = DPMSolverMultistepScheduler.from_config(
                config, timestep_spacing="linspace", algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
            )
        else:
            raise LegoError(f"sampler is {sampler!r}; choose one of {', '.join(SAMPLERS)}")
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler
