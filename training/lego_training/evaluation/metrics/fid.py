"""Fréchet Inception distance (Heusel et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from lego_training.evaluation.metrics.bench import Bench, stack_resized
from lego_training.evaluation.metrics.metric import Mode
from lego_training.evaluation.metrics.samples import Fault, Sample
from lego_training.evaluation.metrics.scores import Rows, Score
from lego_training.evaluation.metrics.tensors import load_into, read_tensors

_SIZE = 299
_RESAMPLES = 50  # each costs a decomposition of 2048 x 2048


@dataclass(frozen=True)
class FidScore:
    """The distance between the features of true and of generated pictures.

    Attributes:
        names: Of the samples.
        true: (n, D).
        generated: (n, D), in the same order.
        device: Where distances are computed.
    """

    names: tuple[str, ...]
    true: NDArray[np.float32]
    generated: NDArray[np.float32]
    device: torch.device

    def take(self, rows: Rows) -> FidScore:
        """Returns the distance of some.

        Raises:
            LegoError: They are fewer than two.
        """
        if len(rows) < 2:
            raise LegoError(f"FID needs 2 pictures at least; there are {len(rows)}")
        return FidScore(tuple(self.names[row] for row in rows), self.true[rows], self.generated[rows], self.device)

    def value(self) -> float:
        """The distance."""
        sets = (torch.from_numpy(each).to(self.device, torch.float64) for each in (self.true, self.generated))
        return frechet_distance(*sets)

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The value and 1.96 bootstrap standard errors to either side, from at most 50 resamples.

        Percentiles would lie too high: a resample holds fewer different pictures, and FID rises with their scarcity.
        """
        rng, count = np.random.default_rng(seed), len(self.true)
        rows = (rng.integers(count, size=count) for _ in range(min(resamples, _RESAMPLES)))
        values = [self.take(each).value() for each in rows]
        value, error = self.value(), float(np.std(values, ddof=1))
        return max(0.0, value - 1.96 * error), value + 1.96 * error


class Fid:
    """FID of generated and true pictures."""

    name, title, unit, scale = "fid", "FID", "", 1.0
    better: Literal["higher", "lower"] = "lower"
    notes: dict[Mode, str] = {  # noqa: RUF012  # written nowhere
        "published": "resized to 299x299 bilinearly without antialiasing (pytorch-fid)",
        "corrected": "resized to 299x299 bicubically with antialiasing (Parmar et al. 2022)",
    }

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""
        path = bench.weights.find("inception")
        kind = f"fid {mode} {bench.weights.digest(path)}"

        def load() -> partial[Tensor]:
            return partial(_activations, bench.network(str(path), lambda: load_inception(path)), mode)

        true, generated = (
            bench.features(kind, [(picture,) for picture in pictures], load)
            for pictures in ([each.target for each in samples], [each.generated for each in samples])
        )
        fine = np.asarray(np.isfinite(np.hstack([true, generated])).all(axis=1))
        faults = [
            Fault(str(each.generated), "its Inception features are no numbers")
            for each, ok in zip(samples, fine, strict=True)
            if not ok
        ]
        names = tuple(each.name for each in samples)
        return FidScore(names, true, generated, bench.device).take(np.flatnonzero(fine)), faults


def _activations(inception: nn.Module, mode: Mode, pictures: list[tuple[Tensor, ...]]) -> Tensor:
    """Inception's pooled features, (B, 2048)."""
    only = [picture for (picture,) in pictures]
    if mode == "published":
        pixels = 2 * stack_resized(only, (_SIZE, _SIZE), "bilinear", antialias=False) - 1
    else:
        pixels = stack_resized(only, (_SIZE, _SIZE), "bicubic", antialias=True).clamp(0, 1)
        pixels = (255 * pixels - 128) / 128  # as the network was trained
    features: Tensor = inception(pixels)
    return features


def load_inception(path: Path) -> nn.Module:
    """Returns Inception v3 as FID uses it, up to its pooled features: from (B, 3, 299, 299) to (B, 2048).

    Raises:
        LegoError: The file holds other weights.
    """
    blocks = [BasicConv2d, _BlockA, InceptionB, _BlockC, InceptionD, _BlockE, InceptionAux]
    with torch.device("meta"):  # random weights would take long to draw
        whole = Inception3(1008, aux_logits=False, inception_blocks=blocks, init_weights=False)
    whole.Mixed_7c.pool = _maxima
    tensors = read_tensors(path)
    # Older files do not count the batches that a norm has seen, which nothing reads.
    counts = {name: torch.tensor(0) for name in whole.state_dict() if name.endswith("num_batches_tracked")}
    load_into(whole, {**counts, **tensors}, path)
    # Its layers in order, without dropout and classifier.
    return nn.Sequential(*list(whole.children())[:-2], nn.Flatten()).eval()


def _means(features: Tensor) -> Tensor:
    """Means of 3 x 3 neighbours; at the border of those that there are."""
    return avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)


def _maxima(features: Tensor) -> Tensor:
    return max_pool2d(features, 3, stride=1, padding=1)


class _Pooled(nn.Module):
    """A block of torchvision's Inception whose pooling branch is that of the network in TensorFlow.

    There, padding does not count in means, and the last block takes maxima.
    """

    pool = staticmethod(_means)

    def _forward(self, features: Tensor) -> list[Tensor]:
        *others, _ = super()._forward(features)  # type: ignore[misc]
        pooled: Tensor = self.branch_pool(self.pool(features))  # type: ignore[operator]  # a block of the subclass
        return [*others, pooled]


class _BlockA(_Pooled, InceptionA):
    pass


class _BlockC(_Pooled, InceptionC):
    pass


class _BlockE(_Pooled, InceptionE):
    pass


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Returns the Fréchet distance of the Gaussians with the means and covariances of two sets, (n, D) and (m, D).

    The trace of the root of the covariances' product is the sum of the singular values of A Bᵀ, where A and B are the
    centred sets: exact also where a covariance is singular, for which the original's matrix root needs a fallback.
    """
    means = first.mean(dim=0), second.mean(dim=0)
    a, b = (
        (each - mean) / (len(each) - 1) ** 0.5 for each, mean in zip((first, second), means, strict=True)
    )  # fmt: skip
    variances = a.square().sum() + b.square().sum()
    # The triangular factor has the same products, in at most D rows.
    a, b = (torch.linalg.qr(each, "r").R if len(each) > each.shape[1] else each for each in (a, b))
    root = torch.linalg.svdvals(a @ b.T).sum()
    distance = float((means[0] - means[1]).square().sum() + variances - 2 * root)
    return max(0.0, distance)  # rounding may take that of equal sets below
