"""LegoPipeline: a frame and a query in, the guidance frame out. The readable torch reference of the whole method.

Example:
    pipe = LegoPipeline.from_pretrained("models/lego-nano")
    guidance = pipe(Image.open("kitchen.jpg"), "how do I open the drawer?")
    print(guidance.description)
    guidance.image.save("guidance.png")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import reduce
from inspect import signature
from itertools import repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import SchedulerMixin
from lego_core.branches import Evaluation, branch_weights, plan_evaluations
from lego_core.config import Fidelity, Sampler, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels, frame_to_vision_pixels, guidance_frame
from lego_core.noise import gaussian_noise
from lego_core.prompts import action_from_query, encode_description
from PIL import Image
from torch import Tensor
from torch.nn.utils import parametrize

from lego_model.checkpoint import LegoCheckpoint
from lego_model.conditioner import null_context, pad_text_states
from lego_model.describe import Description, describe, embed_image, states_of
from lego_model.feature_cache import evaluate_keeping, evaluate_reusing
from lego_model.sampling import Denoiser, NoiseSource, SigmaSchedule, sample

# From noisy latents of unit variance (B, 4, r, r) and their timestep to the network's answer.
Prediction = Callable[[Tensor, float], Tensor]


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
        guidance_interval: tuple[float, float] | None = None,
        cache_interval: int | None = None,
        sampler: Sampler | None = None,
        scheduler: SchedulerMixin | None = None,
        fidelity: Fidelity = "default",
        on_step: Callable[[int, int], None] | None = None,
    ) -> Guidance:
        """Answers one query about one frame.

        Args:
            image: The input frame, any size.
            query: What the wearer asks, such as "how do I open the drawer?".
            description: Paints from this sentence instead of the VLLM's own.
            seed: Of the noise; the server makes the same picture from it, up to rounding.
            steps: Denoising steps; None takes the model's default, as for the five below.
            text_scale: Guidance scale of the text-side conditions.
            image_scale: Guidance scale of the input frame.
            guidance_interval: Where guidance is applied, as two fractions of the steps
                (`lego_core.config.GuidanceDefaults`).
            cache_interval: Every how many steps the U-Net's deep layers are evaluated; 1 at each.
            sampler: One of `lego_core.config.SAMPLERS`.
            scheduler: Samples with this diffusers scheduler instead, made `from_config` of the checkpoint's own, such
                as `UniPCMultistepScheduler.from_config(pipe.checkpoint.scheduler.config)`. Noise that it adds between
                steps is the seed's too, but torch's.
            fidelity: "original" does as the code of the paper does: its sampling defaults, noise from torch's generator
                in its order, its precision on a GPU, its post-processing (docs/fidelity.md). Save the picture with
                `lego_core.images.encode_jpeg(image, fidelity="original")` for the original's file.
            on_step: Called with (steps done, steps) after each.

        Raises:
            LegoError: The query names no action, the description is empty, or an option is out of range.
        """
        options = self.config.sampling(
            fidelity, steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler,
            guidance_interval=guidance_interval, cache_interval=cache_interval,
        )  # fmt: skip
        image = image.convert("RGB")
        words = self.describe(image, query, description, fidelity)
        with self.precision(fidelity):
            frames, context = self.encode_frames([image]), self.context([words])
        pixels = self.paint(
            frames, context, [seed], scheduler=scheduler, fidelity=fidelity, on_step=on_step, **asdict(options)
        )
        frame = guidance_frame(pixels[0].float().cpu().numpy(), *image.size, fidelity)
        return Guidance(frame, words.text, seed)

    def describe(
        self, image: Image.Image, query: str, description: str | None = None, fidelity: Fidelity = "default"
    ) -> Description:
        """Describes the action asked about in an RGB frame, or reads the given description.

        A model that is conditioned on the label alone has no need of its VLLM; its description is the label.

        Raises:
            LegoError: The query names no action, or the description is empty.
        """
        if description is not None and not description.strip():
            raise LegoError("the description is empty; leave it out to let the model write it")
        if self.config.conditioning == "label":
            nothing = torch.empty(0)
            return Description(
                action_from_query(query, fidelity) if description is None else description, nothing, nothing
            )
        features = self.embed(image)
        if description is None:
            return describe(self.checkpoint, features, query, fidelity)
        return states_of(self.checkpoint, features, query, " ".join(description.split()), fidelity)

    @torch.inference_mode()
    def embed(self, image: Image.Image) -> Tensor:
        """Returns the VLLM's image embeddings of an RGB frame, (M, D)."""
        pixels = torch.from_numpy(frame_to_vision_pixels(image, self.config.vision))[None]
        computes_in = self.checkpoint.vllm.get_input_embeddings().weight.dtype  # stored weights may be widened first
        return embed_image(self.checkpoint, pixels.to(self.device, computes_in))[0]

    @torch.inference_mode()
    def encode_frames(self, images: Sequence[Image.Image]) -> Tensor:
        """Returns RGB frames' latents (B, 4, r, r): the posterior's mode, not scaled (lego-reference A1)."""
        pixels = np.stack([frame_to_pixels(image, self.config.resolution) for image in images])
        return self.checkpoint.vae.encode(
            torch.from_numpy(pixels).to(self.device, self.checkpoint.vae.dtype)
        ).latent_dist.mode()

    @torch.inference_mode()
    def encode_text(self, descriptions: Sequence[str]) -> Tensor:
        """Returns CLIP's last hidden states of the descriptions, (B, N, C)."""
        special = self.checkpoint.special_text_tokens
        ids = [
            encode_description(self.checkpoint.tokenizer, text, self.config.text_tokens, special)
            for text in descriptions
        ]
        return self.checkpoint.text_encoder(torch.tensor(ids, device=self.device)).last_hidden_state

    @torch.inference_mode()
    def context(self, words: Sequence[Description]) -> Tensor:
        """Returns the cross-attention context of descriptions, (B, N + projected_tokens, C)."""
        embeddings = states = None
        if self.config.has_image_block:
            embeddings = torch.stack([each.image_embeddings for each in words])
        if self.config.has_text_block:
            states = torch.stack([pad_text_states(each.text_states, self.config.text_tokens) for each in words])
        return self.checkpoint.conditioner(self.encode_text([each.text for each in words]), embeddings, states)

    @property
    def null(self) -> Tensor:
        """The context of "no condition", (1, N + projected_tokens, C)."""
        if self._null is None:
            self._null = self._empty_context()
        return self._null

    def _empty_context(self) -> Tensor:
        return null_context(self.encode_text([""]), self.config.projected_tokens)

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
        guidance_interval: tuple[float, float] | None = None,
        cache_interval: int | None = None,
        sampler: Sampler | None = None,
        scheduler: SchedulerMixin | None = None,
        fidelity: Fidelity = "default",
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Denoises and decodes a batch.

        Args:
            frame_latents: Of the input frames, (B, 4, r, r), not scaled.
            contexts: As `context` returns them.
            seeds: One per frame.
            steps: As for `__call__`, and so the five below.
            text_scale: See above.
            image_scale: See above.
            guidance_interval: See above.
            cache_interval: See above.
            sampler: See above.
            scheduler: See above.
            fidelity: See above.
            on_step: Called with (steps done, steps) after each.

        Returns:
            Pixels (B, 3, R, R), about [-1, 1].

        Raises:
            LegoError: An option or a seed is out of range, or the batch sizes disagree.
        """
        options = self.config.sampling(
            fidelity, steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler,
            guidance_interval=guidance_interval, cache_interval=cache_interval,
        )  # fmt: skip
        batch, shape = len(seeds), tuple(frame_latents.shape[1:])
        if not len(frame_latents) == len(contexts) == batch:
            raise LegoError(
                f"{len(frame_latents)} frames, {len(contexts)} contexts and {batch} seeds: give one of each"
            )
        vae, done = self.checkpoint.vae, 0
        if scheduler is not None:
            scheduler.set_timesteps(options.steps, device=self.device)
        if options.sampler == "distilled":
            answer, sigmas = self._student_prediction(frame_latents, contexts), self._student_sigmas()
        else:
            # A scheduler of higher order asks more than once a step.
            times = options.steps if scheduler is None else len(scheduler.timesteps)
            plan = plan_evaluations(
                times, options.text_scale, options.image_scale, options.guidance_interval, options.cache_interval
            )
            answer = self._guided_prediction(frame_latents, contexts, plan, fidelity)
            sigmas = self.schedule.sigmas(options.steps)

        def predict(noisy: Tensor, timestep: float) -> Tensor:
            nonlocal done
            prediction = answer(noisy, timestep)
            done += 1
            if on_step is not None:
                on_step(done, options.steps)
            return prediction

        def our_noise(step: int) -> Tensor:
            return torch.from_numpy(np.stack([gaussian_noise(seed, step, shape) for seed in seeds])).to(self.device)

        noise = our_noise if fidelity == "default" else _original_noise(frame_latents, seeds)
        # Within it, a student's weights are put together once and not at every step.
        with self.precision(fidelity), parametrize.cached():
            if scheduler is None:
                latents = sample(options.sampler, self._denoiser(predict), sigmas, noise)
            else:
                latents = noise(0) * scheduler.init_noise_sigma
                # Without generators, a scheduler that adds noise would take it from torch's global state.
                generators = [torch.Generator().manual_seed(seed) for seed in seeds]
                extra = {"generator": generators} if "generator" in signature(scheduler.step).parameters else {}
                for timestep in scheduler.timesteps:
                    prediction = predict(scheduler.scale_model_input(latents, timestep), float(timestep))
                    latents = scheduler.step(prediction, timestep, latents, **extra).prev_sample
            return vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample

    @property
    def schedule(self) -> SigmaSchedule:
        """The noise levels this model was trained at."""
        return SigmaSchedule(self.checkpoint.scheduler)

    def guided_denoiser(
        self, frame_latents: Tensor, contexts: Tensor, text_scale: float | None = None, image_scale: float | None = None
    ) -> Denoiser:
        """Returns the denoiser that `paint` samples with: dual guidance of the model's own scales, unless given.

        Args:
            frame_latents: Of the input frames, (B, 4, r, r), not scaled.
            contexts: (B, 2N + M, C).
            text_scale: Guidance scale of the text-side conditions.
            image_scale: Guidance scale of the input frame.
        """
        options = self.config.sampling(sampler="dpm_solver_pp", text_scale=text_scale, image_scale=image_scale)
        always = repeat(Evaluation(branch_weights(options.text_scale, options.image_scale)))
        return self._denoiser(self._guided_prediction(frame_latents, contexts, always, "default"))

    def _guided_prediction(
        self, frame_latents: Tensor, contexts: Tensor, plan: Iterable[Evaluation], fidelity: Fidelity
    ) -> Prediction:
        """Asks the branches that count at a step in one call, and mixes the answers by guidance (lego-reference B)."""
        unet, batch = self.checkpoint.unet, len(contexts)
        with self.precision(fidelity):
            null = (self._empty_context() if fidelity == "original" else self.null).expand(batch, -1, -1)
        nothing = torch.zeros_like(frame_latents)
        planned = iter(plan)
        features: Tensor | None = None

        def ask(evaluation: Evaluation, sample: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
            nonlocal features
            if evaluation.features == "reused":
                assert features is not None
                return evaluate_reusing(unet, sample, timesteps, context, features)
            if evaluation.features == "kept":
                prediction, features = evaluate_keeping(unet, sample, timesteps, context)
                return prediction
            return unet(sample, timesteps, context).sample

        def predict(noisy: Tensor, timestep: float) -> Tensor:
            evaluation = next(planned)
            weights = evaluation.weights
            context = torch.cat([contexts if branch == "conditional" else null for branch in weights])
            frames = torch.cat([nothing if branch == "null" else frame_latents for branch in weights])
            inputs = torch.cat([noisy.to(unet.dtype).repeat(len(weights), 1, 1, 1), frames], dim=1)
            timesteps = torch.full((len(inputs),), timestep, device=self.device)
            answers = ask(evaluation, inputs, timesteps, context).to(noisy.dtype).chunk(len(weights))
            weighted = (weight * answer for weight, answer in zip(weights.values(), answers, strict=True))
            return reduce(torch.add, weighted)

        return predict

    def _student_prediction(self, frame_latents: Tensor, contexts: Tensor) -> Prediction:
        """The student's one branch: guidance is in its weights."""
        unet = self.checkpoint.student
        assert unet is not None

        def predict(noisy: Tensor, timestep: float) -> Tensor:
            inputs = torch.cat([noisy.to(unet.dtype), frame_latents], dim=1)
            timesteps = torch.full((len(contexts),), timestep, device=self.device)
            return unet(inputs, timesteps, contexts).sample.to(noisy.dtype)

        return predict

    def _student_sigmas(self) -> list[float]:
        assert self.config.student is not None
        return [*self.schedule.sigmas_at(self.config.student.timesteps), 0.0]

    def _denoiser(self, predict: Prediction) -> Denoiser:
        """What a prediction says about the clean latents, in the convention of the samplers."""
        predicts_velocity = self.checkpoint.scheduler.config.prediction_type == "v_prediction"
        schedule = self.schedule

        def denoise(latents: Tensor, sigma: float) -> Tensor:
            # The original tells its network the sigma in the latents' own type, which matters in half precision.
            sigma = torch.tensor(sigma, dtype=latents.dtype).item()
            variance = sigma**2 + 1
            prediction = predict(latents / variance**0.5, schedule.timestep(sigma))
            if predicts_velocity:
                return latents / variance - prediction * (sigma / variance**0.5)
            return latents - sigma * prediction

        return denoise

    def precision(self, fidelity: Fidelity) -> AbstractContextManager[Any]:
        """The original samples under half-precision autocast, which it has on a GPU only (lego-reference B)."""
        if fidelity == "original" and self.device.type == "cuda":
            return torch.autocast("cuda", torch.float16)
        return nullcontext()


def _original_noise(frame_latents: Tensor, seeds: Sequence[int]) -> NoiseSource:
    """Returns the original's noise: torch's, drawn step by step, of the frame latents' type and on their device.

    The original seeds torch once in a process, so this is the noise of the first picture of one.

    Raises:
        LegoError: A seed is out of range.
    """
    for seed in seeds:
        whole_number_in_range("seed", seed, 0, 2**64 - 1)
    generators = [torch.Generator(frame_latents.device).manual_seed(seed) for seed in seeds]
    shape, dtype, device = (1, *frame_latents.shape[1:]), frame_latents.dtype, frame_latents.device
    return lambda step: torch.cat(
        [torch.randn(shape, generator=generator, dtype=dtype, device=device) for generator in generators]
    )
