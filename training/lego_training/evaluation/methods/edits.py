"""SDEdit and ProxEdit: edits of the input frame by a text-to-image model (paper, appendix F.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from lego_core.config import Fidelity
from lego_core.noise import gaussian_noise
from torch import Tensor
from torch.nn.functional import max_pool2d, scaled_dot_product_attention

from lego_training.evaluation.methods.method import Ask, Painting, finish
from lego_training.evaluation.methods.settings import ProxEditSettings, SdEditSettings
from lego_training.text_to_image import TextToImage

_MOST_SHARED_TOKENS = 32**2  # larger attention maps are left alone, as in ProxEdit's code


Settings = TypeVar("Settings", SdEditSettings, ProxEditSettings)


class _Edit(Generic[Settings]):
    """An edit with a text-to-image model.

    Args:
        directory: The model.
        settings: How.
        device: Where it runs.
        fidelity: Of the pictures' files.
    """

    def __init__(self, directory: Path, settings: Settings, device: torch.device, fidelity: Fidelity) -> None:
        self._model = TextToImage.load(directory).to(device)
        self._settings: Settings = settings
        self._fidelity = fidelity


class SdEdit(_Edit[SdEditSettings]):
    """Noises the input frame part of the way and paints it again by the label (Meng et al. 2022)."""

    @torch.inference_mode()
    def paint(self, asks: Sequence[Ask]) -> list[Painting]:
        """See `Method`."""
        model, settings = self._model, self._settings
        frames = [ask.frame for ask in asks]
        shape = _latent_shape(model)
        # Both of the picture's own seed: the one of the noise itself, the other of the autoencoder's posterior.
        noise, posterior = (_noise(asks, step, shape) for step in (0, 1))
        clean = model.encode_frames(frames, posterior)
        times = model.timesteps(settings.steps)[: int(settings.strength * settings.steps)]
        latents = clean
        if times:
            signal = model.alpha_bar(times[-1])
            latents = signal**0.5 * clean + (1 - signal) ** 0.5 * noise.to(model.device)
        context = torch.cat([model.encode_text([""]).expand(len(asks), -1, -1), self._labels(asks)])
        for timestep, to in _falling(times):
            empty, full = model.noise_in(latents.repeat(2, 1, 1, 1), timestep, context).chunk(2)
            latents = model.move(latents, empty + settings.text_scale * (full - empty), timestep, to)
        return _finished(model, latents, asks, self._fidelity)

    def _labels(self, asks: Sequence[Ask]) -> Tensor:
        return self._model.encode_text([ask.record.action for ask in asks])


class ProxEdit(_Edit[ProxEditSettings]):
    """Inverts the input frame and paints it again by the label, changing only what changes much (Han et al. 2023).

    As their ProxNPI: negative-prompt inversion, proximal guidance, inversion guidance, and the input frame's
    self-attention for a while. Their exchange of cross-attention needs a source text aligned with the label's words,
    which a frame without a caption does not have; it is left out. Thresholds are the paper's: in its code both are
    taken over source and edit together, and "l0" shrinks what it keeps.
    """

    @torch.inference_mode()
    def paint(self, asks: Sequence[Ask]) -> list[Painting]:
        """See `Method`."""
        model, settings, count = self._model, self._settings, len(asks)
        source = model.encode_text([settings.source]).expand(count, -1, -1)
        label = model.encode_text([ask.record.action for ask in asks])
        times = model.timesteps(settings.steps)
        inverted = self.invert(model.encode_frames([ask.frame for ask in asks]), source, times)
        # The source is painted again beside its edit, which for a while takes over its self-attention.
        original = edited = inverted[-1]
        with _shared_attention(model.unet) as sharing:
            for step, (timestep, to) in enumerate(_falling(times)):
                sharing.active = step < int(settings.self_replace * settings.steps)
                noises = model.noise_in(
                    torch.cat([original, edited, edited]), timestep, torch.cat([source, source, label])
                )
                of_original, of_source, of_label = noises.chunk(3)
                change, changed = proximal(of_label - of_source, settings.threshold, settings.quantile)
                original = model.move(original, of_original, timestep, to)
                edited = model.move(edited, of_source + settings.text_scale * change, timestep, to)
                if settings.threshold != "none" and timestep < settings.restore_below:
                    stays = 1 - _dilated(changed, settings.dilate)
                    edited = edited - settings.restore_rate * stays * (edited - inverted[len(times) - 1 - step])
        return _finished(model, edited, asks, self._fidelity)

    def invert(self, latents: Tensor, context: Tensor, times: Sequence[int]) -> list[Tensor]:
        """Returns clean latents and what they were at each rising noise level, by DDIM run backwards, unguided."""
        path, spacing = [latents], times[1] - times[0] if len(times) > 1 else times[0]
        for timestep in times:
            noise = self._model.noise_in(path[-1], timestep, context)
            path.append(self._model.move(path[-1], noise, timestep - spacing, timestep))
        return path


def proximal(change: Tensor, threshold: str, quantile: float) -> tuple[Tensor, Tensor]:
    """Returns a change of noise (B, C, r, r) without what is small in it, and where it is not.

    Args:
        change: From the source's words to the label.
        threshold: "l0" keeps what is above the threshold, "l1" only what exceeds it, "none" everything.
        quantile: The threshold is this quantile of a picture's absolute values.
    """
    if threshold == "none":
        return change, torch.ones_like(change)
    limit = change.abs().flatten(1).quantile(quantile, dim=1)[:, None, None, None]
    above = change.abs() > limit
    kept = change if threshold == "l0" else change - change.sign() * limit
    return torch.where(above, kept, 0.0), above.float()


def _dilated(mask: Tensor, radius: int) -> Tensor:
    return max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius) if radius else mask


def _falling(times: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields every timestep, the highest first, with the one it leads to; the last leads to the clean picture."""
    return pairwise([*reversed(times), 0])


def _noise(asks: Sequence[Ask], step: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.stack([gaussian_noise(ask.seed, step, shape) for ask in asks]))


def _latent_shape(model: TextToImage) -> tuple[int, int, int]:
    side = model.config.resolution // 2 ** (len(model.vae.config.block_out_channels) - 1)
    return model.vae.config.latent_channels, side, side


def _finished(model: TextToImage, latents: Tensor, asks: Sequence[Ask], fidelity: Fidelity) -> list[Painting]:
    return [
        # The stretch of colours of LEGO's published code is no part of these methods; its compression is.
        finish(pixels, ask.frame, "default", file=fidelity)
        for pixels, ask in zip(model.decode(latents), asks, strict=True)
    ]


class _SharedSelfAttention:
    """Attention whose last third of a batch looks where the first third looks, while that is asked for.

    As diffusers' attention processor for blocks without norms or biases of their own, which these U-Nets have.
    """

    def __init__(self) -> None:
        self.active = False

    def __call__(
        self, attention: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, temb: Tensor | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attention.to_q(hidden_states), attention.to_k(seen), attention.to_v(seen)
        if self.active and encoder_hidden_states is None and hidden_states.shape[1] <= _MOST_SHARED_TOKENS:
            third = len(query) // 3
            query, key = (torch.cat([each[: 2 * third], each[:third]]) for each in (query, key))
        query, key, value = (each.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for each in (query, key, value))
        attended = scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        projected: Tensor = attention.to_out[1](attention.to_out[0](attended))
        return projected


@contextmanager
def _shared_attention(unet: Any) -> Iterator[_SharedSelfAttention]:
    processor, before = _SharedSelfAttention(), unet.attn_processors
    unet.set_attn_processor(processor)
    try:
        yield processor
    finally:
        unet.set_attn_processor(before)
