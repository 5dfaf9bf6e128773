"""The samples of one training step, and the random numbers that belong to each.

Both are a function of the seed, the step and a sample's position in the step. So a step's samples are the same, whether
one process computes them or many, at once or in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from torch import Tensor


class Batch:
    """Some samples of a step: those that one process computes at a time.

    Args:
        step: From 0.
        positions: Of these samples among all of the step.
        step_size: How many samples the whole step has.
        seed: Of data order and random numbers.
    """

    def __init__(self, step: int, positions: range, step_size: int, seed: int) -> None:
        self.step, self.positions = step, positions
        self._step_size, self._seed = step_size, seed

    def __len__(self) -> int:
        return len(self.positions)

    def indices(self, count: int) -> NDArray[np.int64]:
        """Returns which of `count` samples these are, (B,)."""
        return batch_indices(self.step, self._step_size, count, self._seed)[self.positions.start : self.positions.stop]

    @cached_property
    def generators(self) -> list[np.random.Generator]:
        """One generator for each sample; what is drawn from it is the sample's own."""
        return [np.random.default_rng((self._seed, self.step, position)) for position in self.positions]

    def normal(self, *shape: int) -> Tensor:
        """Draws standard normal numbers for every sample, (B, *shape) float32 on the CPU."""
        return torch.from_numpy(np.stack([each.standard_normal(shape, np.float32) for each in self.generators]))

    def uniform(self) -> Tensor:
        """Draws a number in [0, 1) for every sample, (B,) float32 on the CPU."""
        return torch.tensor([each.random(dtype=np.float32) for each in self.generators])

    def integers(self, high: int) -> Tensor:
        """Draws a whole number in [0, high) for every sample, (B,) int64 on the CPU."""
        return torch.tensor([int(each.integers(high)) for each in self.generators])

    def one_by_one(self) -> Iterator[Batch]:
        """Yields each sample as a batch of its own, with its random numbers drawn anew."""
        for position in self.positions:
            yield Batch(self.step, range(position, position + 1), self._step_size, self._seed)


def split_step(step: int, step_size: int, seed: int, process: int, processes: int, pieces: int) -> list[Batch]:
    """Returns the batches of a step that one of several processes computes, `pieces` one after the other.

    Raises:
        LegoError: There are not enough samples for every process and piece to have one.
    """
    parts = processes * pieces
    if step_size < parts:
        raise LegoError(
            f"batch_size is {step_size}, but {processes} processes times accumulate = {pieces} need {parts} samples a "
            "step at least; raise batch_size or lower accumulate"
        )
    bounds = [part * step_size // parts for part in range(process * pieces, (process + 1) * pieces + 1)]
    return [Batch(step, range(*pair), step_size, seed) for pair in pairwise(bounds)]


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> NDArray[np.int64]:
    """Returns the sample indices of a step: every epoch is its own permutation, batches run on across epochs."""
    first = step * batch_size
    wanted = np.arange(first, first + batch_size)
    indices = np.empty(batch_size, np.int64)
    for epoch in np.unique(wanted // count):
        order = np.random.default_rng((seed, int(epoch))).permutation(count)
        mine = wanted // count == epoch
        indices[mine] = order[wanted[mine] % count]
    return indices
