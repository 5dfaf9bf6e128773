"""The diffusion process of Stable Diffusion 1.x, and the buffers the original stores it in (lego-reference A4)."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler
from lego_core.errors import LegoError
from torch import Tensor

from lego_export.original.tensors import Tensors, listed

BETA_START, BETA_END, TIMESTEPS = 0.00085, 0.012, 1000


def scheduler(prediction_type: str = "epsilon") -> EulerAncestralDiscreteScheduler:
    """Returns the process as a checkpoint stores it."""
    return EulerAncestralDiscreteScheduler(
        num_train_timesteps=TIMESTEPS, beta_start=BETA_START, beta_end=BETA_END, beta_schedule="scaled_linear",
        prediction_type=prediction_type,
    )  # fmt: skip


def buffers() -> dict[str, Tensor]:
    """Returns the 12 buffers of the original, (1000,) float32 each; computed in float64, as there."""
    betas = (torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2).numpy()
    alphas = 1.0 - betas
    cumprod = np.cumprod(alphas)
    previous = np.append(1.0, cumprod[:-1])
    variance = betas * (1.0 - previous) / (1.0 - cumprod)
    values = {
        "betas": betas,
        "alphas_cumprod": cumprod,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": np.sqrt(cumprod),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - cumprod),
        "log_one_minus_alphas_cumprod": np.log(1.0 - cumprod),
        "sqrt_recip_alphas_cumprod": np.sqrt(1.0 / cumprod),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1.0 / cumprod - 1),
        "posterior_variance": variance,
        # The first variance is 0; the original stops its logarithm there.
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(previous) / (1.0 - cumprod),
        "posterior_mean_coef2": (1.0 - previous) * np.sqrt(alphas) / (1.0 - cumprod),
    }
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()}


def check_buffers(tensors: Tensors, file: str) -> None:
    """Checks the buffers a file has against the process we sample with; they need not be stored then.

    Raises:
        LegoError: They are another process'.
    """
    different = [
        name for name, values in buffers().items()
        if name in tensors and not torch.allclose(tensors[name].load().float(), values, rtol=1e-3, atol=1e-6)
    ]  # fmt: skip
    if different:
        raise LegoError(
            f"{file} was trained with another noise schedule than Stable Diffusion 1.x's ({listed(different)} differ); "
            "it cannot be sampled as LEGO is"
        )
