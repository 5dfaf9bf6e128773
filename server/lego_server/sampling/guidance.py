"""Dual classifier-free guidance (see `lego_core.branches`), and what a U-Net prediction says about the clean latent."""

from __future__ import annotations

import numpy as np
from lego_core.branches import Branch
from numpy.typing import NDArray


def guide(predictions: NDArray[np.float32], weights: dict[Branch, float]) -> NDArray[np.float32]:
    """Mixes the branches of one request.

    Args:
        predictions: (len(weights), C, H, W) float32, branches in the order of `weights`.
        weights: From `branch_weights`.

    Returns:
        (C, H, W) float32.
    """
    # As np.tensordot does it, without its preparations: after a U-Net call has emptied the caches they take longest.
    mixed: NDArray[np.float32] = np.dot(
        np.array([list(weights.values())], np.float32), predictions.reshape(len(weights), -1)
    )
    return mixed.reshape(predictions.shape[1:])


def input_scale(sigma: float) -> float:
    """Returns c_in: what the noisy latent is multiplied by so that the U-Net sees unit variance."""
    return 1.0 / (sigma**2 + 1.0) ** 0.5


def denoised(
    latent: NDArray[np.float32], sigma: float, prediction: NDArray[np.float32], prediction_type: str
) -> NDArray[np.float32]:
    """Returns the clean latent that a prediction implies.

    Args:
        latent: Noisy latent x = x0 + sigma * noise, any shape.
        sigma: Its noise level.
        prediction: The U-Net's guided output, same shape.
        prediction_type: "epsilon" (the noise) or "v_prediction".

    Returns:
        float32, same shape.
    """
    if prediction_type == "epsilon":
        return latent - np.float32(sigma) * prediction
    variance = sigma**2 + 1.0
    return latent * np.float32(1.0 / variance) - prediction * np.float32(sigma / variance**0.5)
