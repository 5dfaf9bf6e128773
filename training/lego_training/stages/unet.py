"""Diffusion tuning: the U-Net with σ, μ and π (paper 3.3; lego-reference A4 to A7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lego_core.errors import LegoError
from torch import Tensor

from lego_model.checkpoint import LegoCheckpoint, save_part
from lego_model.conditioner import null_context
from lego_training.loop import LoopConfig, batch_indices, train
from lego_training.stages.embed import Embeddings


@dataclass(frozen=True)
class DiffusionConfig:
    """What is trained and how much each part of the picture counts.

    Attributes:
        condition_dropout: p. Text-side conditions are dropped for u in [0, 2p), the frame for u in [p, 3p), u uniform
            in [0, 1): each alone with p, both with p (lego-reference A5).
        train_conditioner: σ, μ and π learn too, as the paper says; the released code left them at their random start.
        train_text_encoder: For a model whose text encoder has no pretrained weights.
        change_weight: Added weight of latents in proportion to how much the frame changes there; 0 is the paper's plain
            mean. Most of a pair does not change, and a small model otherwise spends itself on copying.
    """

    condition_dropout: float = 0.05
    train_conditioner: bool = True
    train_text_encoder: bool = False
    change_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.condition_dropout <= 1 / 3:
            raise LegoError(f"condition_dropout is {self.condition_dropout}; it must lie between 0 and 1/3")
        if self.change_weight < 0:
            raise LegoError(f"change_weight is {self.change_weight}; it must be 0 or more")


def train_unet(directory: Path, data: Embeddings, config: LoopConfig, diffusion: DiffusionConfig, run: Path) -> None:
    """Trains the U-Net, and with it what `diffusion` names, on embedded pairs."""
    checkpoint = LegoCheckpoint.load(directory)
    unet, conditioner, text_encoder = checkpoint.unet, checkpoint.conditioner, checkpoint.text_encoder
    unet.to(memory_format=torch.channels_last)
    modules = {"unet": unet}
    for name, module, trained in (("conditioner", conditioner, diffusion.train_conditioner),
                                  ("text_encoder", text_encoder, diffusion.train_text_encoder)):  # fmt: skip
        module.requires_grad_(trained)
        if trained:
            modules[name] = module
    scheduler = checkpoint.scheduler
    scale = checkpoint.vae.config.scaling_factor
    empty_ids = torch.tensor([_empty_ids(checkpoint)])
    image_tokens = checkpoint.config.image_tokens

    def loss_of_step(step: int) -> Tensor:
        rows = np.sort(batch_indices(step, config.batch_size, len(data), config.seed))
        frame, mean, std, image, states = (
            torch.from_numpy(array[rows].astype(np.float32)).to(unet.device)
            for array in (data.frame_latents, data.target_means, data.target_stds, data.image_embeddings, data.text_states)
        )
        ids = torch.from_numpy(data.text_ids[rows].astype(np.int64)).to(unet.device)
        target = (mean + std * torch.randn_like(std)) * scale
        # The empty sentence rides along as the last row: its encoding is the text half of the null condition.
        hidden = text_encoder(torch.cat([ids, empty_ids.to(ids.device)])).last_hidden_state
        context = conditioner(hidden[:-1], image, states)
        null = null_context(hidden[-1:], image_tokens).to(context.dtype)
        chance = torch.rand(len(rows), device=unet.device)
        drop = diffusion.condition_dropout
        context = torch.where((chance < 2 * drop)[:, None, None], null, context)
        keep_frame = ~((chance >= drop) & (chance < 3 * drop))
        source = frame * keep_frame[:, None, None, None]

        noise = torch.randn_like(target)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(rows),), device=unet.device)
        alpha_bar = scheduler.alphas_cumprod.to(unet.device)[timesteps][:, None, None, None]
        noisy = alpha_bar.sqrt() * target + (1 - alpha_bar).sqrt() * noise
        if scheduler.config.prediction_type == "v_prediction":
            wanted = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * target
        else:
            wanted = noise
        inputs = torch.cat([noisy, source], dim=1).contiguous(memory_format=torch.channels_last)
        error = (unet(inputs, timesteps, context).sample.float() - wanted).square()
        weight = 1 + diffusion.change_weight * change(frame, mean, scale)
        return (weight * error).mean() / weight.mean()

    def save_result() -> None:
        for name, module in modules.items():
            save_part(module, directory / name, torch.float16)

    train("unet", modules, loss_of_step, config, run, save_result)


def change(frame: Tensor, target: Tensor, scale: float) -> Tensor:
    """How much each latent position changes from frame to target, (B, 1, r, r) in [0, 1]."""
    difference = ((target - frame) * scale).abs().mean(dim=1, keepdim=True)
    blurred = torch.nn.functional.avg_pool2d(difference, 3, stride=1, padding=1)
    return blurred.clamp(max=1.0)


def _empty_ids(checkpoint: LegoCheckpoint) -> list[int]:
    beginning, end, padding = checkpoint.special_text_tokens
    return [beginning, end] + [padding] * (checkpoint.config.text_tokens - 2)
