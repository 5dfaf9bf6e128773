"""PSNR and LPIPS against values computed by hand and by an independent implementation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics
import torchvision
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.metric import Mode
from lego_training.evaluation.metrics.pixels import Lpips, Psnr
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.scores import MeanScore
from PIL import Image

from tests.training.metrics.conftest import SIZE, picture


def widened(values: np.ndarray, width: int, antialias: bool) -> np.ndarray:
    """Columns (H, W, 3) resized linearly, by the definition: triangle weights around each new column's centre."""
    scale = values.shape[1] / width
    reach = max(1.0, scale) if antialias else 1.0
    out = np.empty((values.shape[0], width, 3))
    for column in range(width):
        centre = (column + 0.5) * scale - 0.5
        if antialias:
            places = np.arange(values.shape[1])
            share = np.maximum(0, 1 - np.abs(places - centre) / reach)
        else:
            low = np.floor(np.clip(centre, 0, None)).astype(int)
            share = np.zeros(values.shape[1])
            share[low] += 1 - (max(centre, 0) - low)
            share[min(low + 1, values.shape[1] - 1)] += max(centre, 0) - low
        out[:, column] = np.tensordot(values, share / share.sum(), (1, 0))
    return out


@pytest.mark.parametrize("mode", ["published", "corrected"])
def test_psnr_is_the_mean_of_the_pictures_decibels(mode: Mode, samples: list[Sample], bench: Bench) -> None:
    decibels = []
    for sample in samples:
        generated = widened(picture(sample.generated), SIZE[0], antialias=mode == "corrected")
        decibels.append(-10 * np.log10(np.mean((generated - picture(sample.target)) ** 2)))

    score, faults = Psnr().score(samples, mode, bench)

    assert score.value() == pytest.approx(np.mean(decibels), abs=1e-4) and faults == []


def test_psnr_of_equal_pictures_is_infinite_as_published_and_100_db_corrected(
    samples: list[Sample], bench: Bench
) -> None:
    equal = [replace(each, generated=each.target) for each in samples[:1]] + samples[1:]

    published, _ = Psnr().score(equal, "published", bench)
    corrected, _ = Psnr().score(equal, "corrected", bench)

    assert np.isinf(published.value()) and published.interval(10, 0) == (np.inf, np.inf)
    assert isinstance(corrected, MeanScore) and corrected.values[0] == 100 and corrected.values[1] < 30


def lpips_by_definition(network: str, weights: Path, first: np.ndarray, second: np.ndarray) -> float:
    """LPIPS of two pictures (H, W, 3), as the paper of Zhang et al. defines it."""
    model, taps = {
        "alex": (torchvision.models.alexnet, (1, 4, 7, 9, 11)),
        "vgg": (torchvision.models.vgg16, (3, 8, 15, 22, 29)),
        "squeeze": (torchvision.models.squeezenet1_1, (1, 4, 7, 9, 10, 11, 12)),
    }[network]
    with torch.device("meta"):
        features = model(weights=None).features
    features.to_empty(device="cpu")
    (file,) = weights.glob({"alex": "alexnet*", "vgg": "vgg16*", "squeeze": "squeezenet*"}[network])
    features.load_state_dict({key.removeprefix("features."): value for key, value in torch.load(file).items()})
    heads = torch.load(Path(torchmetrics.__file__).parent / "functional/image/lpips_models" / f"{network}.pth", "cpu")

    def activations(values: np.ndarray) -> list[torch.Tensor]:
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x = ((torch.from_numpy(values).float() - shift) / scale).permute(2, 0, 1)[None]
        found = []
        for place, layer in enumerate(features):
            x = layer(x)
            if place in taps:
                found.append(x.clone())
        return found

    total = 0.0
    with torch.no_grad():
        for number, (a, b) in enumerate(zip(activations(first), activations(second), strict=True)):
            a, b = (each / (each.square().sum(1, keepdim=True) + 1e-8).sqrt() for each in (a, b))
            weight = heads[f"lin{number}.model.1.weight"].flatten()[None, :, None, None]
            total += float(((a - b).square() * weight).sum(1).mean())
    return total


@pytest.mark.parametrize("mode", ["published", "corrected"])
@pytest.mark.parametrize("network", ["squeeze", "alex", "vgg"])
def test_lpips_takes_unit_range_as_published_and_the_networks_own_corrected(
    network: str, mode: Mode, samples: list[Sample], bench: Bench, weights: Path
) -> None:
    def scaled(values: np.ndarray) -> np.ndarray:
        return values if mode == "published" else 2 * values - 1

    expected = []
    for sample in samples[:2]:
        generated = widened(picture(sample.generated), SIZE[0], antialias=mode == "corrected")
        expected.append(lpips_by_definition(network, weights, scaled(picture(sample.target)), scaled(generated)))

    score, _ = Lpips(network).score(samples[:2], mode, bench)  # type: ignore[arg-type]

    assert isinstance(score, MeanScore)
    assert score.values == pytest.approx(expected, rel=1e-3)


def test_pictures_of_different_sizes_share_a_batch(samples: list[Sample], bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    Image.open(samples[0].target).resize((110, 70)).save(other)
    mixed = [replace(samples[0], target=other), samples[1]]

    together, _ = Lpips("alex").score(mixed, "corrected", bench)
    bench.batch_size = 1
    alone = [Lpips("alex").score([each], "corrected", bench)[0].value() for each in mixed]

    assert together.value() == pytest.approx(np.mean(alone), rel=1e-5)
