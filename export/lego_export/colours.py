"""The colours of a latent as a linear map: previews without a decoder."""

from __future__ import annotations

import numpy as np
import torch
from lego_core.images import frame_to_pixels
from lego_model.checkpoint import LegoCheckpoint
from torch.nn.functional import avg_pool2d

from lego_export.graphs import latent_factor
from lego_export.samples import synthetic_frame

_FRAMES = 12  # of 1024 latent positions each at 256 pixels: far more than the map's 15 numbers need


@torch.no_grad()
def measure_colour_map(modules: LegoCheckpoint) -> tuple[tuple[float, ...], ...]:
    """Fits, by least squares, the mean colour under each latent position to the sampler's latent there.

    Returns:
        `LatentSpec.colour_map`: three rows of a weight for each latent channel and a constant.
    """
    factor, scaling = latent_factor(modules), modules.vae.config.scaling_factor
    latents, colours = [], []
    for seed in range(_FRAMES):
        frame = synthetic_frame(1000 + seed)
        pixels = torch.from_numpy(frame_to_pixels(frame, modules.config.resolution))[None]
        latent = modules.vae.encode(pixels.to(modules.vae.dtype)).latent_dist.mode()[0] * scaling
        latents.append(latent.float().flatten(1).T.numpy())
        colours.append(avg_pool2d(pixels, factor)[0].flatten(1).T.numpy())
    known = np.concatenate(latents)
    known = np.concatenate([known, np.ones((len(known), 1), known.dtype)], axis=1)
    solution = np.linalg.lstsq(known.astype(np.float64), np.concatenate(colours).astype(np.float64), rcond=None)[0]
    return tuple(tuple(round(float(value), 5) for value in row) for row in solution.T)
