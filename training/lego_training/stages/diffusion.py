"""Diffusion tuning: the U-Net with σ, μ and π (paper 3.3; lego-reference A4 to A7)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from lego_core.config import Conditioning, LegoConfig, check_conditioning, number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.prompts import encode_description
from lego_model.checkpoint import LegoCheckpoint, load_part, save_part
from lego_model.conditioner import Conditioner, null_context
from lego_model.student import STUDENT
from numpy.typing import NDArray
from torch import Tensor

from lego_training.batch import Batch
from lego_training.features import FeatureRows
from lego_training.gallery import Gallery
from lego_training.loop import LoopConfig, train
from lego_training.processes import this_process
from lego_training.stages.embed import FLIPS, Embeddings, Flip

NAME = "tune_diffusion"
Rows = NDArray[Any] | FeatureRows


@dataclass(frozen=True)
class DiffusionConfig:
    """What is trained and how much each part of the picture counts.

    Attributes:
        condition_dropout: p. Text-side conditions are dropped for u in [0, 2p), the frame for u in [p, 3p), u uniform
            in [0, 1): each alone with p, both with p (lego-reference A5).
        train_conditioner: σ, μ and π learn too, as the paper says; the released code left them at their random start.
        conditioner_start: σ, μ and π begin as the "checkpoint" has them (a new one has Xavier initialisation), or anew
            with "xavier" or, as in the released code, with the defaults of "torch".
        train_text_encoder: For a model whose text encoder has no pretrained weights.
        change_weight: Added weight of latents in proportion to how much the frame changes there; 0 is the paper's plain
            mean. Most of a pair does not change, and a small model otherwise spends itself on copying.
        pairs: How many of the dataset's pairs are embedded and trained on, from the first; 0 takes all.
        conditioning: Which blocks the context has, one of `lego_core.config.CONDITIONINGS`; lego.json records it.
        flip: What is mirrored in mirror images, one of `lego_training.stages.embed.FLIPS`.
    """

    condition_dropout: float = 0.05
    train_conditioner: bool = True
    conditioner_start: Literal["checkpoint", "xavier", "torch"] = "checkpoint"
    train_text_encoder: bool = False
    change_weight: float = 0.0
    pairs: int = 0
    conditioning: Conditioning = "joint"
    flip: Flip = "everything"

    def __post_init__(self) -> None:
        number_in_range("condition_dropout", self.condition_dropout, 0, 1 / 3)
        for name in ("train_conditioner", "train_text_encoder"):
            if not isinstance(getattr(self, name), bool):
                raise LegoError(f"{name} is {getattr(self, name)!r}; it must be true or false")
        number_in_range("change_weight", self.change_weight, 0, 1e3)
        whole_number_in_range("pairs", self.pairs, 0, 10**9)
        check_conditioning(self.conditioning)
        if self.conditioner_start not in ("checkpoint", "xavier", "torch"):
            raise LegoError(f"conditioner_start is {self.conditioner_start!r}; choose checkpoint, xavier or torch")
        if self.flip not in FLIPS:
            raise LegoError(f"flip is {self.flip!r}; choose one of {', '.join(FLIPS)}")


def tune_diffusion(
    directory: Path, data: Embeddings, config: LoopConfig, diffusion: DiffusionConfig, run: Path
) -> None:
    """Trains the U-Net, and with it what `diffusion` names, on embedded pairs."""
    checkpoint = LegoCheckpoint.load(directory, without=("vllm", "student"))
    lego = checkpoint.config = replace(checkpoint.config, conditioning=diffusion.conditioning)
    if diffusion.conditioner_start != "checkpoint" and not (run / f"{NAME}.pt").exists():
        with this_process().main_process_first():
            torch.manual_seed(config.seed)
            checkpoint.conditioner.start_anew(diffusion.conditioner_start)
            if this_process().is_main_process:
                save_part(checkpoint.conditioner, directory / "conditioner", torch.float16)
        # As a resumed run will find it, which has it from there if it is frozen.
        checkpoint.conditioner = load_part(Conditioner, directory / "conditioner", torch.float32)
    unet, conditioner, text_encoder = checkpoint.unet, checkpoint.conditioner, checkpoint.text_encoder
    lay_out(unet)
    modules = {"unet": unet}
    for name, module, trained in (
        ("conditioner", conditioner, diffusion.train_conditioner),
        ("text_encoder", text_encoder, diffusion.train_text_encoder),
    ):
        # The loop moves what it trains; what is only used must be where that is.
        module.requires_grad_(trained).to(this_process().device)
        if trained:
            modules[name] = module
    scheduler = checkpoint.scheduler
    scale = checkpoint.vae.config.scaling_factor
    sentences = data.label_ids if lego.conditioning == "label" else data.text_ids
    empty_ids = torch.tensor(
        [encode_description(checkpoint.tokenizer, "", lego.text_tokens, checkpoint.special_text_tokens)]
    )

    def rows_of(batch: Batch) -> NDArray[np.int64]:
        # Even rows are the pairs, odd ones their mirror images.
        return 2 * batch.indices(len(data) // 2) if diffusion.flip == "never" else batch.indices(len(data))

    def loss_of(batch: Batch) -> tuple[Tensor, Tensor]:
        rows = rows_of(batch)

        def read(array: Rows) -> Tensor:
            return torch.from_numpy(array[rows].astype(np.float32)).to(unet.device)

        frame, mean, std = read(data.frame_latents), read(data.target_means), read(data.target_stds)
        image = read(data.image_embeddings) if lego.has_image_block else None
        states = read(data.text_states) if lego.has_text_block else None
        ids = torch.from_numpy(sentences[rows].astype(np.int64)).to(unet.device)
        target = (mean + std * batch.normal(*std.shape[1:]).to(std.device)) * scale
        # The empty sentence rides along as the last row: its encoding is the text half of the null condition.
        hidden = text_encoder(torch.cat([ids, empty_ids.to(ids.device)])).last_hidden_state
        # Also where it is frozen, as in the original (lego-reference A3).
        conditioner.train(unet.training)
        context = condition(conditioner, hidden[:-1], image, states, batch)
        null = null_context(hidden[-1:], lego.projected_tokens).to(context.dtype)
        chance = batch.uniform().to(unet.device)
        context, source = drop_conditions(context, frame, null, chance, diffusion.condition_dropout)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            inputs = torch.cat([noisy, source], dim=1).contiguous(memory_format=torch.channels_last)
            prediction: Tensor = unet(inputs, timesteps, context).sample
            return prediction

        error = diffusion_error(scheduler, target, batch, predict)
        weight = 1 + diffusion.change_weight * change(frame, mean, scale)
        return (weight * error).mean(dim=(1, 2, 3)).sum(), weight.mean(dim=(1, 2, 3)).sum()

    def name_of(batch: Batch) -> list[str]:
        return [data.names[row] for row in rows_of(batch)]

    def save_result() -> None:
        for name, module in modules.items():
            save_part(module, directory / name, torch.float16)
        written = LegoConfig.load(directory)
        # A student is a change of the U-Net as it was; of this one it has to be distilled anew.
        replace(written, conditioning=lego.conditioning, student=None).save(directory)
        shutil.rmtree(directory / STUDENT, ignore_errors=True)

    gallery = Gallery(checkpoint, data)
    train(NAME, modules, loss_of, config, run, save_result, name_of, gallery.paint)


def lay_out(unet: UNet2DConditionModel) -> None:
    """Brings a U-Net into the form that trains fastest on this process's device; it computes the same."""
    unet.to(memory_format=torch.channels_last)
    if this_process().device.type == "cpu":
        # A CPU's fused attention saves memory, which small models do not lack, and its gradient takes twice as long.
        unet.set_attn_processor(AttnProcessor())


def diffusion_error(
    scheduler: EulerAncestralDiscreteScheduler,
    target: Tensor,
    batch: Batch,
    predict: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Returns the squared errors (B, 4, r, r) of a network's prediction at random noise levels (lego-reference A4).

    Args:
        scheduler: The diffusion process, and what is predicted.
        target: Scaled latents, (B, 4, r, r).
        batch: Gives noise and timesteps.
        predict: The network, of noisy latents (B, 4, r, r) and timesteps (B,).
    """
    noise = batch.normal(*target.shape[1:]).to(target.device)
    timesteps = batch.integers(scheduler.config.num_train_timesteps).to(target.device)
    alpha_bar = scheduler.alphas_cumprod.to(target.device)[timesteps][:, None, None, None]
    noisy = alpha_bar.sqrt() * target + (1 - alpha_bar).sqrt() * noise
    if scheduler.config.prediction_type == "v_prediction":
        wanted = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * target
    else:
        wanted = noise
    return (predict(noisy, timesteps).float() - wanted).square()


def condition(
    conditioner: Conditioner, hidden: Tensor, image: Tensor | None, states: Tensor | None, batch: Batch
) -> Tensor:
    """Returns the context of a batch, one sample after the other: π's dropout belongs to its sample."""
    contexts = []
    for row, generator in enumerate(batch.generators):
        torch.manual_seed(int(generator.integers(2**63)))
        contexts.append(
            conditioner(*(each if each is None else each[row : row + 1] for each in (hidden, image, states)))
        )
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
