"""A text-to-image latent diffusion model: what SDEdit and ProxEdit edit with (paper, appendix F.5).

Its directory holds text_to_image.json, unet/, vae/, text_encoder/, tokenizer/ and scheduler/, safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from lego_core.config import whole_number_in_range
from lego_core.errors import LegoError
from lego_core.images import frame_to_pixels
from lego_core.prompts import encode_description
from lego_model.checkpoint import LegoCheckpoint, load_part, load_scheduler, load_tokenizer, save_part
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextModel

from lego_training.files import read_json, write_json

CONFIG = "text_to_image.json"


@dataclass(frozen=True)
class TextToImageConfig:
    """`text_to_image.json`.

    Attributes:
        name: The model's name.
        resolution: Side in pixels of the square pictures it paints.
        text_tokens: Tokens that a label is padded to.
        provenance: What it was made of and how.
    """

    name: str
    resolution: int
    text_tokens: int
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole_number_in_range("resolution", self.resolution, 64, 2048)
        whole_number_in_range("text_tokens", self.text_tokens, 4, 1024)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Reads the file of a directory.

        Raises:
            LegoError: There is none, or it is damaged.
        """
        path = directory / CONFIG
        if not path.is_file():
            raise LegoError(
                f"{directory} is no text-to-image model: it has no {CONFIG}; train one with lego-train baselines"
            )
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise LegoError(f"{path} is damaged ({error}); train the model again") from error


@dataclass
class TextToImage:
    """Every part of one model.

    Attributes:
        config: Its shape.
        unet: Takes the noisy latent alone.
        vae: The autoencoder.
        text_encoder: CLIP's, or one like it.
        scheduler: The diffusion process.
        tokenizer: Of the labels.
    """

    config: TextToImageConfig
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    scheduler: EulerAncestralDiscreteScheduler
    tokenizer: Tokenizer

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Reads a model onto the CPU, in evaluation mode.

        Raises:
            LegoError: It is none, or a part is missing, damaged or of another model.
        """
        model = cls(
            TextToImageConfig.load(directory),
            load_part(UNet2DConditionModel, directory / "unet", dtype),
            load_part(AutoencoderKL, directory / "vae", dtype),
            load_part(CLIPTextModel, directory / "text_encoder", dtype),
            load_scheduler(directory / "scheduler"),
            load_tokenizer(directory / "tokenizer"),
        )
        if model.unet.config.in_channels != model.vae.config.latent_channels:
            raise LegoError(
                f"the U-Net of {directory} takes {model.unet.config.in_channels} channels; one that paints from text "
                f"takes the latent's {model.vae.config.latent_channels}"
            )
        return model

    def save(self, directory: Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the directory with weights in `dtype`; the file that makes it a whole model comes last."""
        for name in ("unet", "vae", "text_encoder"):
            save_part(getattr(self, name), directory / name, dtype)
        self.scheduler.save_pretrained(directory / "scheduler")
        (directory / "tokenizer").mkdir(exist_ok=True)
        self.tokenizer.save(str(directory / "tokenizer" / "tokenizer.json"))
        write_json(directory / CONFIG, json.loads(json.dumps(asdict(self.config))))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.unet.device

    def to(self, device: torch.device) -> Self:
        """Moves every part to a device."""
        for part in (self.unet, self.vae, self.text_encoder):
            part.to(device)
        return self

    def token_ids(self, labels: Sequence[str]) -> Tensor:
        """Returns labels as the text encoder reads them, (B, N) int64."""
        shape = self.text_encoder.config
        special = shape.bos_token_id, shape.eos_token_id, shape.eos_token_id
        ids = [encode_description(self.tokenizer, label, self.config.text_tokens, special) for label in labels]
        return torch.tensor(ids, device=self.device)

    @torch.inference_mode()
    def encode_text(self, labels: Sequence[str]) -> Tensor:
        """Returns the text encoder's last states of labels, (B, N, C)."""
        states: Tensor = self.text_encoder(self.token_ids(labels)).last_hidden_state
        return states

    @torch.inference_mode()
    def encode_frames(self, frames: Sequence[Image.Image], noise: Tensor | None = None) -> Tensor:
        """Returns RGB frames' scaled latents (B, 4, r, r): a sample of the posterior, or without noise its mode."""
        pixels = np.stack([frame_to_pixels(frame, self.config.resolution) for frame in frames])
        posterior = self.vae.encode(torch.from_numpy(pixels).to(self.device, self.vae.dtype)).latent_dist
        latents: Tensor = posterior.mode() if noise is None else posterior.mean + posterior.std * noise.to(self.device)
        return latents * self.vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Returns pixels (B, 3, R, R), about [-1, 1], of scaled latents."""
        pixels: Tensor = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample
        return pixels

    @torch.inference_mode()
    def noise_in(self, latents: Tensor, timestep: int, context: Tensor) -> Tensor:
        """Returns the noise that the network finds in noisy latents (B, 4, r, r), whatever it predicts itself."""
        timesteps = torch.full((len(latents),), timestep, device=self.device)
        predicted: Tensor = self.unet(
            latents.to(self.unet.dtype), timesteps, context.to(self.unet.dtype)
        ).sample.float()
        if self.scheduler.config.prediction_type == "v_prediction":
            alpha_bar = self.alpha_bar(timestep)
            return alpha_bar**0.5 * predicted + (1 - alpha_bar) ** 0.5 * latents
        return predicted

    def alpha_bar(self, timestep: int) -> float:
        """The share of signal in a timestep's variance; before the first it is the first's, as in Stable Diffusion."""
        return float(self.scheduler.alphas_cumprod[max(timestep, 0)])

    def timesteps(self, steps: int) -> list[int]:
        """Returns the rising timesteps of DDIM with so many steps: evenly spaced from 1, as in Stable Diffusion."""
        spacing = len(self.scheduler.alphas_cumprod) // steps
        return [1 + step * spacing for step in range(steps)]

    def move(self, latents: Tensor, noise: Tensor, timestep: int, to: int) -> Tensor:
        """Goes from one noise level to another along the predicted noise: a step of deterministic DDIM, either way."""
        here, there = self.alpha_bar(timestep), self.alpha_bar(to)
        clean = (latents - (1 - here) ** 0.5 * noise) / here**0.5
        return there**0.5 * clean + (1 - there) ** 0.5 * noise


def from_checkpoint(base: LegoCheckpoint, unet: UNet2DConditionModel | None = None) -> TextToImage:
    """Makes a text-to-image model of a LEGO checkpoint's parts.

    Args:
        base: Its autoencoder, text encoder, tokenizer and diffusion process are taken.
        unet: Another model's of which to take the U-Net; default: the base's own. Its first convolution loses the
            channels of the input frame. Of weights as LEGO's training begins with, where these channels are zero, what
            remains is Stable Diffusion itself.
    """
    source = base.unet if unet is None else unet
    channels = base.vae.config.latent_channels
    config = {**source.config, "in_channels": channels}
    narrow = UNet2DConditionModel.from_config(config)
    weights = source.state_dict()
    weights["conv_in.weight"] = weights["conv_in.weight"][:, :channels]
    narrow.load_state_dict(weights)
    settings = TextToImageConfig(
        f"{base.config.name}-text-to-image", base.config.resolution, base.config.text_tokens,
        {"base": base.config.name},
    )  # fmt: skip
    return TextToImage(settings, narrow.eval(), base.vae, base.text_encoder, base.scheduler, base.tokenizer)
