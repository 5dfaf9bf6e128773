"""FID against closed forms, torch-fidelity's own statistics and its own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.fid import Fid, FidScore, frechet_distance, load_inception
from lego_training.evaluation.metrics.metric import Mode
from lego_training.evaluation.metrics.samples import Sample
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_statistics_to_metric

from tests.training.metrics.conftest import picture


def test_sets_that_differ_by_a_shift_are_its_square_apart() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4)))

    assert frechet_distance(values, values) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(values, values + torch.tensor([3.0, 0, 4.0, 0])) == pytest.approx(25)


def test_in_one_dimension_it_is_the_difference_of_means_and_of_deviations() -> None:
    first, second = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [5.0]]).double()

    # Means 1 and 3; deviations √2 and √8 with n - 1.
    assert frechet_distance(first, second) == pytest.approx(2**2 + (8**0.5 - 2**0.5) ** 2)


@pytest.mark.parametrize("counts", [(60, 80), (5, 80), (4, 3)])
def test_it_agrees_with_the_eigenvalues_of_the_covariances_product(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) for count in counts]
    statistics = [{"mu": each.mean(0), "sigma": np.cov(each, rowvar=False)} for each in sets]

    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]

    assert frechet_distance(*map(torch.from_numpy, sets)) == pytest.approx(theirs, rel=1e-6)


@pytest.fixture(scope="module")
def inception(weights: Path) -> torch.nn.Module:
    return load_inception(weights / "pt_inception-2015-12-05-6726825d.pth")


def test_the_layers_are_those_of_torch_fidelity_in_order(weights: Path, inception: torch.nn.Module) -> None:
    file = weights / "pt_inception-2015-12-05-6726825d.pth"
    pixels = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    theirs = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file))

    with torch.inference_mode():
        ours = inception((pixels.float() - 128) / 128)
        torch.testing.assert_close(ours, theirs(pixels)[0], rtol=1e-5, atol=1e-5)
    assert ours.std(dim=0).max() > 0


@pytest.mark.parametrize("mode", ["published", "corrected"])
def test_pictures_are_resized_as_pytorch_fid_or_as_clean_fid_does(
    mode: Mode, samples: list[Sample], bench: Bench, inception: torch.nn.Module
) -> None:
    def features(path: Path) -> torch.Tensor:
        if mode == "published":
            x = torch.from_numpy(picture(path)).float().permute(2, 0, 1)[None]
            pixels = torch.nn.functional.interpolate(x, (299, 299), mode="bilinear", align_corners=False) * 2 - 1
        else:  # clean-fid resizes each channel as a picture of floats
            channels = [
                Image.fromarray(channel.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
                for channel in np.moveaxis(picture(path) * 255, 2, 0)
            ]
            values = np.clip(np.stack([np.asarray(channel) for channel in channels]), 0, 255)
            pixels = (torch.from_numpy(values)[None] - 128) / 128
        with torch.inference_mode():
            return inception(pixels)[0]

    score, faults = Fid().score(samples, mode, bench)

    assert isinstance(score, FidScore) and faults == []
    for sample, true, generated in zip(samples, score.true, score.generated, strict=True):
        np.testing.assert_allclose(true, features(sample.target), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(generated, features(sample.generated), rtol=2e-3, atol=2e-3)
    assert score.value() > 0


def test_its_interval_lies_around_it_and_is_seeded() -> None:
    rng = np.random.default_rng(2)
    score = FidScore(tuple(map(str, range(40))), *rng.normal(size=(2, 40, 6)).astype(np.float32), torch.device("cpu"))

    low, high = score.interval(20, seed=1)

    assert low < score.value() < high and (low, high) == score.interval(20, seed=1) != score.interval(20, seed=2)


def test_one_picture_has_no_fid(samples: list[Sample], bench: Bench) -> None:
    with pytest.raises(LegoError, match="FID needs 2 pictures at least; there are 1"):
        Fid().score(samples[:1], "published", bench)


def test_other_weights_are_refused(weights: Path) -> None:
    with pytest.raises(LegoError, match=r"alexnet.*does not hold FID's Inception v3"):
        load_inception(weights / "alexnet-owt-7be5be79.pth")
