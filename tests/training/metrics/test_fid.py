"""FID against closed forms, its textbook formula and torchvision's own network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from lego_core.errors import LegoError
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.fid import Fid, FidScore, frechet_distance, load_inception
from lego_training.evaluation.metrics.metric import Mode
from lego_training.evaluation.metrics.samples import Sample
from PIL import Image

from tests.training.metrics.conftest import picture


def test_sets_that_differ_by_a_shift_are_its_square_apart() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4)))

    assert frechet_distance(values, values) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(values, values + torch.tensor([3.0, 0, 4.0, 0])) == pytest.approx(25)


def test_in_one_dimension_it_is_the_difference_of_means_and_of_deviations() -> None:
    first, second = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [5.0]]).double()

    # Means 1 and 3; deviations √2 and √8 with n - 1.
    assert frechet_distance(first, second) == pytest.approx(2**2 + (8**0.5 - 2**0.5) ** 2)


def by_definition(*sets: np.ndarray) -> float:
    """The textbook's formula for two sets, (n, D) and (m, D)."""
    means, covariances = [each.mean(0) for each in sets], [np.cov(each, rowvar=False) for each in sets]
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    return float(np.square(means[0] - means[1]).sum() + sum(np.trace(each) for each in covariances) - 2 * root)


@pytest.mark.parametrize("counts", [(60, 80), (5, 80), (4, 3)])
def test_it_agrees_with_the_eigenvalues_of_the_covariances_product(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) for count in counts]

    assert frechet_distance(*map(torch.from_numpy, sets)) == pytest.approx(by_definition(*sets), rel=1e-6)


def test_it_is_never_below_nothing() -> None:
    values = torch.from_numpy(np.random.default_rng(3).normal(size=(20, 40, 8)))

    assert min(frechet_distance(each, each.clone()) for each in values) >= 0


@pytest.fixture(scope="module")
def inception(weights: Path) -> torch.nn.Module:
    return load_inception(weights / "pt_inception-2015-12-05-6726825d.pth")


class Rescaled(torch.nn.Module):
    """Takes means in which padding counts, as torchvision's blocks make them, and gives the branch true ones."""

    def __init__(self, branch: torch.nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, means: torch.Tensor) -> torch.Tensor:
        here = torch.nn.functional.avg_pool2d(torch.ones_like(means[:1, :1]), 3, stride=1, padding=1)
        return self.branch(means / here)


class OfMaxima(torch.nn.Module):
    """Forgets the means and gives the branch the maxima of what its block was shown."""

    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.branch = block.branch_pool
        block.register_forward_pre_hook(lambda module, shown: setattr(self, "shown", shown[0]))

    def forward(self, means: torch.Tensor) -> torch.Tensor:
        return self.branch(torch.nn.functional.max_pool2d(self.shown, 3, stride=1, padding=1))


def test_the_network_is_torchvisions_but_for_its_pooling(weights: Path, inception: torch.nn.Module) -> None:
    reference = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False, weights=None)
    reference.load_state_dict(torch.load(weights / "pt_inception-2015-12-05-6726825d.pth"))
    last = reference.eval().Mixed_7c
    last.branch_pool = OfMaxima(last)
    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        block = getattr(reference, f"Mixed_{name}")
        block.branch_pool = Rescaled(block.branch_pool)
    reference.dropout = reference.fc = torch.nn.Identity()
    pixels = torch.rand(2, 3, 299, 299) * 2 - 1

    with torch.inference_mode():
        ours, expected = inception(pixels), reference(pixels)

    assert ours.shape == (2, 2048) and ours.std(dim=1).min() > 0.1
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


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
        assert true.max() > 0.5
        np.testing.assert_allclose(true, features(sample.target), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(generated, features(sample.generated), rtol=2e-3, atol=2e-3)
    # In the few dimensions that the pictures span, which keep all distances.
    both = [np.stack([features(path).double().numpy() for path in paths])
            for paths in ([each.target for each in samples], [each.generated for each in samples])]  # fmt: skip
    span, _ = np.linalg.qr(np.vstack(both).T)
    assert score.value() == pytest.approx(by_definition(*(each @ span for each in both)), rel=2e-3)
    assert score.value() > 0.1


def test_its_interval_lies_around_it_and_is_seeded() -> None:
    rng = np.random.default_rng(2)
    score = FidScore(tuple(map(str, range(40))), *rng.normal(size=(2, 40, 6)).astype(np.float32), torch.device("cpu"))

    low, high = score.interval(20, seed=1)

    assert low < score.value() < high and (low, high) == score.interval(20, seed=1) != score.interval(20, seed=2)


def test_one_picture_has_no_fid(samples: list[Sample], bench: Bench) -> None:
    with pytest.raises(LegoError, match="FID needs 2 pictures at least; there are 1"):
        Fid().score(samples[:1], "published", bench)


def test_a_picture_whose_features_are_no_numbers_is_left_out_by_name(samples: list[Sample], bench: Bench) -> None:
    whole, _ = Fid().score(samples, "published", bench)
    kind = f"fid published {bench.weights.digest(bench.weights.find('inception'))}"
    bench.cache.put({bench.cache.key(kind, samples[1].generated): np.full(2048, np.nan, np.float32)})

    score, faults = Fid().score(samples, "published", bench)

    assert [(fault.file, fault.reason) for fault in faults] == [
        (str(samples[1].generated), "its Inception features are no numbers")
    ]
    assert score.names == (samples[0].name, samples[2].name)
    assert score.value() == pytest.approx(whole.take(np.array([0, 2])).value())


def test_other_weights_are_refused(weights: Path) -> None:
    with pytest.raises(LegoError, match=r"alexnet.*lacks the weights Conv2d_1a_3x3.* it is of another network"):
        load_inception(weights / "alexnet-owt-7be5be79.pth")
