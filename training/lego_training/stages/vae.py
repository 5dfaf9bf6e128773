"""Trains the frame autoencoder from random weights, on crops of frames.

Real LEGO checkpoints take Stable Diffusion's autoencoder and skip this stage.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from lego_core.images import frame_square
from lego_model.checkpoint import load_part, save_part
from torch import Tensor

from lego_training.batch import Batch
from lego_training.dataset import Record, Squares
from lego_training.loop import LoopConfig, train

CROP = 96
KL_WEIGHT = 1e-6
# Of the mean colours of 8 x 8 patches: without it four latent channels go to outlines first and green turns grey.
COLOUR_WEIGHT = 3.0


def train_vae(checkpoint: Path, records: list[Record], config: LoopConfig, run: Path, resolution: int) -> None:
    """Trains `checkpoint/vae` and sets its scaling factor so that latents have unit standard deviation.

    Crops train as well as whole frames (the network is convolutional) at a quarter of the cost.
    """
    vae = load_part(AutoencoderKL, checkpoint / "vae", torch.float32).to(memory_format=torch.channels_last)
    paths = [path for record in records for path in (record.input_path, record.target_path)]
    frames = Squares(paths, resolution, lambda frame: frame_square(frame, resolution))
    crop = min(CROP, resolution)

    def loss_of(batch: Batch) -> Tensor:
        crops = []
        for index, rng in zip(batch.indices(len(frames)), batch.generators, strict=True):
            top, left = rng.integers(0, resolution - crop + 1, 2)
            picture = frames[index][top : top + crop, left : left + crop]
            crops.append(picture[:, ::-1] if rng.random() < 0.5 else picture)
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
        pixels = pixels.to(vae.device, memory_format=torch.channels_last)
        posterior = vae.encode(pixels).latent_dist
        noise = batch.normal(*posterior.mean.shape[1:]).to(vae.device)
        reconstruction = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        return (
            F.l1_loss(reconstruction, pixels)
            + F.mse_loss(reconstruction, pixels)
            + edge_loss(reconstruction, pixels)
            + COLOUR_WEIGHT * F.l1_loss(F.avg_pool2d(reconstruction, 8), F.avg_pool2d(pixels, 8))
            + KL_WEIGHT * posterior.kl().float().mean()
        )

    def save_result() -> None:
        vae.register_to_config(scaling_factor=latent_scale(vae, frames, config.seed))
        save_part(vae, checkpoint / "vae", torch.float16)

    def name_of(batch: Batch) -> list[str]:
        return [str(paths[index]) for index in batch.indices(len(paths))]

    train("vae", {"vae": vae}, loss_of, config, run, save_result, name_of)


def edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 between horizontal and vertical differences of neighbouring pixels: keeps outlines sharp."""
    horizontal = F.l1_loss(output.diff(dim=-1), target.diff(dim=-1))
    return horizontal + F.l1_loss(output.diff(dim=-2), target.diff(dim=-2))


@torch.inference_mode()
def latent_scale(vae: AutoencoderKL, frames: Squares, seed: int, count: int = 64) -> float:
    """Returns 1 / standard deviation of the latents of some frames."""
    chosen = np.random.default_rng(seed).choice(len(frames), min(count, len(frames)), replace=False)
    pixels = (
        torch.from_numpy(np.stack([frames[index] for index in np.sort(chosen)]))
        .permute(0, 3, 1, 2)
        .float()
        .to(vae.device)
        / 127.5
        - 1
    )
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(8)])
    return float(1 / latents.std())
