"""Tunes a text-to-image model on target frames with their labels (paper, appendix F.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lego_core.config import number_in_range
from lego_core.errors import LegoError
from lego_model.checkpoint import save_part
from torch import Tensor

from lego_training.batch import Batch
from lego_training.loop import LoopConfig, train
from lego_training.processes import this_process
from lego_training.stages.diffusion import diffusion_error, lay_out
from lego_training.stages.embed import Embeddings
from lego_training.text_to_image import TextToImage

NAME = "tune_text_to_image"


@dataclass(frozen=True)
class LabelConfig:
    """How a text-to-image model learns labels.

    Attributes:
        condition_dropout: Share of the samples whose label is the empty one, which guidance needs.
        train_text_encoder: For a model whose text encoder has no pretrained weights.
    """

    condition_dropout: float = 0.1
    train_text_encoder: bool = False

    def __post_init__(self) -> None:
        number_in_range("condition_dropout", self.condition_dropout, 0, 1)
        if not isinstance(self.train_text_encoder, bool):
            raise LegoError(f"train_text_encoder is {self.train_text_encoder!r}; it must be true or false")


def tune_text_to_image(directory: Path, data: Embeddings, config: LoopConfig, labels: LabelConfig, run: Path) -> None:
    """Trains the U-Net of a text-to-image directory, and its text encoder if so asked, on embedded target frames."""
    model = TextToImage.load(directory)
    unet, text_encoder = model.unet, model.text_encoder
    lay_out(unet)
    modules: dict[str, torch.nn.Module] = {"unet": unet}
    text_encoder.requires_grad_(labels.train_text_encoder).to(this_process().device)
    if labels.train_text_encoder:
        modules["text_encoder"] = text_encoder
    scale, empty = model.vae.config.scaling_factor, model.token_ids([""]).cpu()

    def loss_of(batch: Batch) -> Tensor:
        rows = batch.indices(len(data))

        def read(name: str) -> Tensor:
            return torch.from_numpy(getattr(data, name)[rows].astype(np.float32)).to(unet.device)

        mean, std = read("target_means"), read("target_stds")
        target = (mean + std * batch.normal(*std.shape[1:]).to(std.device)) * scale
        ids = torch.from_numpy(data.label_ids[rows].astype(np.int64))
        ids = torch.where((batch.uniform() < labels.condition_dropout)[:, None], empty, ids).to(unet.device)
        context = text_encoder(ids).last_hidden_state
        error = diffusion_error(model.scheduler, target, batch, lambda noisy, t: unet(noisy, t, context).sample)
        return error.mean()

    def name_of(batch: Batch) -> list[str]:
        return [data.names[row] for row in batch.indices(len(data))]

    def save_result() -> None:
        for name, module in modules.items():
            save_part(module, directory / name, torch.float16)

    train(NAME, modules, loss_of, config, run, save_result, name_of)
