"""Each request's own noise: a function of its seed and the step, and of nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lego_core.errors import LegoError


def gaussian_noise(seed: int, step: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Returns the standard normal noise of one step of one request.

    The generator is counter-based (Philox) with the seed as its key and the step in its counter, so that a picture
    depends on its seed, never on what else the server was doing.

    Args:
        seed: 0 to 2**64 - 1.
        step: 0 is the initial latent; step i > 0 is injected after the i-th denoising step.
        shape: Of the latent.

    Returns:
        float32, unit variance.

    Raises:
        LegoError: The seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise LegoError(f"seed is {seed}; it must lie between 0 and 2**64 - 1")
    # The counter's low words advance while drawing; the step goes in the highest, so no two steps overlap.
    counter = np.array([0, 0, 0, step], np.uint64)
    key = np.array([seed, 0], np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key)).standard_normal(shape, dtype=np.float32)
