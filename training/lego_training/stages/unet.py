"""Diffusion tuning: the U-Net with σ, μ and π (paper 3.3; lego-reference A4 to A7)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from lego_core.config import number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.prompts import encode_description
from lego_model.checkpoint import LegoCheckpoint, save_part
from lego_model.conditioner import Conditioner, null_context
from torch import Tensor

from lego_training.batch import Batch
from lego_training.loop import LoopConfig, train
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
        pairs: How many of the dataset's pairs are embedded and trained on, from the first; 0 takes all.
    """

    condition_dropout: float = 0.05
    train_conditioner: bool = True
    train_text_encoder: bool = False
    change_weight: float = 0.0
    pairs: int = 0

    def __post_init__(self) -> None:
        number_in_range("condition_dropout", self.condition_dropout, 0, 1 / 3)
        for name in ("train_conditioner", "train_text_encoder"):
            if not isinstance(getattr(self, name), bool):
                raise LegoError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        number_in_range("change_weight", self.change_weight, 0, 1e3)
        whole_number_in_range("pairs", self.pairs, 0, 10**9)


def train_unet(directory: Path, data: Embeddings, config: LoopConfig, diffusion: DiffusionConfig, run: Path) -> None:
    """Trains the U-Net, and with it what `diffusion` names, on embedded pairs."""
    checkpoint = LegoCheckpoint.load(directory)
    unet, conditioner, text_encoder = checkpoint.unet, checkpoint.conditioner, checkpoint.text_encoder
    unet.to(memory_format=torch.channels_last)
    modules = {"unet": unet}
    for name, module, trained in (
        ("conditioner", conditioner, diffusion.train_conditioner),
        ("text_encoder", text_encoder, diffusion.train_text_encoder),
    ):
        # The loop moves what it trains; what is only used must be where that is.
        module.requires_grad_(trained).to(PartialState().device)
        if trained:
            modules[name] = module
    scheduler = checkpoint.scheduler
    scale = checkpoint.vae.config.scaling_factor
    image_tokens, text_tokens = checkpoint.config.image_tokens, checkpoint.config.text_tokens
    empty_ids = torch.tensor(
        [encode_description(checkpoint.tokenizer, "", text_tokens, checkpoint.special_text_tokens)]
    )

    def loss_of(batch: Batch) -> tuple[Tensor, Tensor]:
        rows = batch.indices(len(data))
        frame, mean, std, image, states = (
            torch.from_numpy(array[rows].astype(np.float32)).to(unet.device)
            for array in (
                data.frame_latents, data.target_means, data.target_stds, data.image_embeddings, data.text_states,
            )
        )  # fmt: skip
        ids = torch.from_numpy(data.text_ids[rows].astype(np.int64)).to(unet.device)
        target = (mean + std * batch.normal(*std.shape[1:]).to(std.device)) * scale
        # The empty sentence rides along as the last row: its encoding is the text half of the null condition.
        hidden = text_encoder(torch.cat([ids, empty_ids.to(ids.device)])).last_hidden_state
        context = condition(conditioner, hidden[:-1], image, states, batch)
        null = null_context(hidden[-1:], image_tokens).to(context.dtype)
        chance = batch.uniform().to(unet.device)
        context, source = drop_conditions(context, frame, null, chance, diffusion.condition_dropout)

        noise = batch.normal(*target.shape[1:]).to(unet.device)
        timesteps = batch.integers(scheduler.config.num_train_timesteps).to(unet.device)
        alpha_bar = scheduler.alphas_cumprod.to(unet.device)[timesteps][:, None, None, None]
        noisy = alpha_bar.sqrt() * target + (1 - alpha_bar).sqrt() * noise
        if scheduler.config.prediction_type == "v_prediction":
            wanted = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * target
        else:
            wanted = noise
        inputs = torch.cat([noisy, source], dim=1).contiguous(memory_format=torch.channels_last)
        error = (unet(inputs, timesteps, context).sample.float() - wanted).square()
        weight = 1 + diffusion.change_weight * change(frame, mean, scale)
        return (weight * error).mean(dim=(1, 2, 3)).sum(), weight.mean(dim=(1, 2, 3)).sum()

    def name_of(batch: Batch) -> list[str]:
        return [f"number {row // 2}{' mirrored' if row % 2 else ''}" for row in batch.indices(len(data))]

    def save_result() -> None:
        for name, module in modules.items():
            save_part(module, directory / name, torch.float16)

    train("unet", modules, loss_of, config, run, save_result, name_of)


def condition(conditioner: Conditioner, hidden: Tensor, image: Tensor, states: Tensor, batch: Batch) -> Tensor:
    """Returns the context of a batch, one sample after the other: π's dropout belongs to its sample."""
    contexts = []
    for row, generator in enumerate(batch.generators):
        torch.manual_seed(int(generator.integers(2**63)))
        one = slice(row, row + 1)
        contexts.append(conditioner(hidden[one], image[one], states[one]))
    return torch.cat(contexts)


def drop_conditions(
    context: Tensor, frame: Tensor, null: Tensor, chance: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """Takes conditions away from some samples, so that the U-Net learns the branches of guidance (lego-reference A5).

    Args:
        context: (B, 2N + M, C).
        frame: Latents of the input frames, (B, 4, r, r).
        null: The context of "no condition", (1, 2N + M, C).
        chance: u, uniform in [0, 1), (B,).
        probability: p. The text side is dropped for u in [0, 2p), the frame for u in [p, 3p).

    Returns:
        Context and frame latents, `null` and zeros in place of what is dropped.
    """
    drops_text = chance < 2 * probability
    drops_frame = (chance >= probability) & (chance < 3 * probability)
    return torch.where(drops_text[:, None, None], null, context), frame * ~drops_frame[:, None, None, None]


def change(frame: Tensor, target: Tensor, scale: float) -> Tensor:
    """How much each latent position changes from frame to target, (B, 1, r, r) in [0, 1]."""
    difference = ((target - frame) * scale).abs().mean(dim=1, keepdim=True)
    blurred = torch.nn.functional.avg_pool2d(difference, 3, stride=1, padding=1)
    return blurred.clamp(max=1.0)
