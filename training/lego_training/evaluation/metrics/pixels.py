"""PSNR, and LPIPS with its three networks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.transforms import functional as transforms

from lego_training.evaluation.metrics.bench import Bench, Compute
from lego_training.evaluation.metrics.metric import Mode, mean_score
from lego_training.evaluation.metrics.samples import Fault, Sample
from lego_training.evaluation.metrics.scores import Score
from lego_training.evaluation.metrics.tensors import load_into, read_tensors

_MOST_DB = 100.0  # of equal pictures, whose PSNR is infinite

_RESIZED = "a picture of another size than its target's is resized {how}; the original does so for EPIC-KITCHENS only"
_PUBLISHED_RESIZE = _RESIZED.format(how="bilinearly without antialiasing, which makes it coarser")
_CORRECTED_RESIZE = _RESIZED.format(how="bilinearly with antialiasing")


def _at_target_size(generated: Tensor, target: Tensor, mode: Mode) -> Tensor:
    """Resizes a picture (3, H, W) to its target's height and width."""
    if generated.shape == target.shape:
        return generated
    size = list(target.shape[1:])
    resized: Tensor = transforms.resize(generated, size, antialias=mode == "corrected")
    return resized


class Psnr:
    """Peak signal-to-noise ratio in decibels: the mean of the pictures' values."""

    name, title, unit, scale = "psnr", "PSNR", "dB", 1.0
    better: Literal["higher", "lower"] = "higher"
    notes: dict[Mode, str] = {  # noqa: RUF012  # written nowhere
        "published": f"equal pictures have an infinite value, and the mean with them; {_PUBLISHED_RESIZE}",
        "corrected": f"at most {_MOST_DB:g} dB a picture; {_CORRECTED_RESIZE}",
    }

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""

        def compute(pictures: list[tuple[Tensor, ...]]) -> Tensor:
            errors = [(_at_target_size(g, t, mode) - t).double().square().mean() for t, g in pictures]
            return torch.stack(errors)[:, None]

        items = [(each.target, each.generated) for each in samples]
        errors = bench.features(f"psnr {mode}", items, lambda: compute)[:, 0].astype(np.float64)
        with np.errstate(divide="ignore"):
            values = -10 * np.log10(errors)
        return mean_score(samples, values if mode == "published" else np.minimum(values, _MOST_DB), allow_infinite=True)


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018), version 0.1.

    Args:
        network: "squeeze", which the paper reports, "alex" or "vgg".
    """

    unit, scale = "x100", 100.0
    better: Literal["higher", "lower"] = "lower"
    notes: dict[Mode, str] = {  # noqa: RUF012  # written nowhere
        "published": f"on values in [0, 1], though the networks expect [-1, 1]: the distances are smaller; "
        f"{_PUBLISHED_RESIZE}",
        "corrected": f"on values in [-1, 1]; {_CORRECTED_RESIZE}",
    }

    def __init__(self, network: Literal["squeeze", "alex", "vgg"]) -> None:
        self._network = network
        self.name, self.title = f"lpips_{network}", f"LPIPS ({network})"

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""
        path = bench.weights.find(self._network)
        items = [(each.target, each.generated) for each in samples]
        kind = f"{self.name} {mode} {bench.weights.digest(path)}"
        values = bench.features(kind, items, lambda: self._load(path, mode, bench.device))
        return mean_score(samples, values[:, 0])

    def _load(self, path: Path, mode: Mode, device: torch.device) -> Compute:
        network = load_lpips(self._network, path).to(device)

        def compute(pictures: list[tuple[Tensor, ...]]) -> Tensor:
            pairs = [(target, _at_target_size(generated, target, mode)) for target, generated in pictures]
            distances = torch.empty(len(pairs), 1, device=device)
            for rows in _of_one_size([target for target, _ in pairs]):
                target, generated = (torch.stack([pairs[row][side] for row in rows]) for side in (0, 1))
                distances[rows, 0] = network(target, generated, normalize=mode == "corrected").flatten()
            return distances

        return compute


def load_lpips(network: Literal["squeeze", "alex", "vgg"], path: Path) -> _LPIPS:
    """Returns the network with torchvision's weights of a file and the linear heads that torchmetrics carries."""
    model = _LPIPS(pretrained=True, net=network, pnet_rand=True)
    tensors = read_tensors(path)
    # torchvision numbers the layers of `features` through; here they stand in slices under the same numbers.
    names = {key: re.sub(r"^slices?\.?\d+\.", "features.", key) for key in model.net.state_dict()}
    load_into(model.net, {key: tensors[name] for key, name in names.items() if name in tensors}, path)
    return model.eval()


def _of_one_size(pictures: Sequence[Tensor]) -> list[list[int]]:
    """Returns the places of pictures, those of one size together."""
    groups: dict[torch.Size, list[int]] = {}
    for place, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(place)
    return list(groups.values())
