"""Sample pictures of a U-Net in training: the same scenes and seeds each time, so that pictures can be compared."""

from __future__ import annotations

import numpy as np
import torch
from lego_core.images import pixels_to_frame
from lego_model.checkpoint import LegoCheckpoint
from lego_model.pipeline import LegoPipeline
from numpy.typing import NDArray
from torch import Tensor

from lego_training.conditions import conditions
from lego_training.processes import this_process
from lego_training.stages.embed import Embeddings

SCENES = 4


class Gallery:
    """Paints some embedded pairs.

    Args:
        checkpoint: Its U-Net, conditioner and text encoder are those in training.
        data: The pairs; the scenes are spread evenly over them.
    """

    def __init__(self, checkpoint: LegoCheckpoint, data: Embeddings) -> None:
        self._checkpoint, self._data = checkpoint, data
        # Even rows are the pairs, odd ones their mirror images.
        self._rows = 2 * np.unique(np.linspace(0, len(data) // 2 - 1, SCENES).astype(int))

    @torch.no_grad()
    def paint(self) -> NDArray[np.uint8]:
        """Returns input, target and painted frame, a row for each scene, (scenes * R, 3 * R, 3)."""
        checkpoint, device = self._checkpoint, this_process().device
        checkpoint.vae.to(device)
        checkpoint.conditioner.eval()  # where it is frozen, the loop does not do so
        frames, context = conditions(checkpoint, self._data, self._rows)
        targets = torch.from_numpy(self._data.target_means[self._rows].astype(np.float32)).to(device)
        painted = LegoPipeline(checkpoint).paint(frames, context, range(len(self._rows)))
        columns = [*(checkpoint.vae.decode(each).sample for each in (frames, targets)), painted]
        return np.concatenate(
            [np.concatenate([_picture(each) for each in row], axis=1) for row in zip(*columns, strict=True)]
        )


def _picture(pixels: Tensor) -> NDArray[np.uint8]:
    values = pixels.float().cpu().numpy()
    return np.asarray(pixels_to_frame(values, values.shape[2], values.shape[1]))
