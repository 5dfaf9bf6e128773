"""What the U-Net is conditioned on, from embedded samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lego_model.checkpoint import LegoCheckpoint
from numpy.typing import NDArray
from torch import Tensor

from lego_training.stages.embed import Embeddings


def conditions(checkpoint: LegoCheckpoint, data: Embeddings, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Returns frame latents (B, 4, r, r), not scaled, and the contexts (B, N + projected_tokens, C) of some samples.

    Args:
        checkpoint: Its conditioner and text encoder are used, and its `conditioning` says which blocks there are.
        data: Embedded samples.
        rows: Which of them, (B,).
    """
    lego, device = checkpoint.config, checkpoint.unet.device

    def read(name: str, dtype: Any = np.float32) -> Tensor:
        return torch.from_numpy(getattr(data, name)[rows].astype(dtype)).to(device)

    ids = read("label_ids" if lego.conditioning == "label" else "text_ids", np.int64)
    context = checkpoint.conditioner(
        checkpoint.text_encoder(ids).last_hidden_state,
        read("image_embeddings") if lego.has_image_block else None,
        read("text_states") if lego.has_text_block else None,
    )
    return read("frame_latents"), context
