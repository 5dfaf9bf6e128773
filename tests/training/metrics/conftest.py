from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.cache import FeatureCache
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.weights import WeightPlaces
from PIL import Image

from tests.training.metrics.weights import write_all

SIZE = (100, 64)  # width and height of a frame


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every weight set, in miniature."""
    folder = tmp_path_factory.mktemp("weights")
    write_all(folder)
    return folder


@pytest.fixture
def bench(weights: Path, tmp_path: Path) -> Iterator[Bench]:
    with FeatureCache(tmp_path / "features") as cache:
        yield Bench(cache, WeightPlaces(weights), batch_size=2)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Three samples of coarse random pictures, the generated one a column narrower as EPIC-KITCHENS' are."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    made = []
    for number in range(3):
        paths = {}
        for place, size in (
            ("val/a/frame_0.png", SIZE),
            ("val/a/frame_1.png", SIZE),
            ("made.png", (SIZE[0] - 1, SIZE[1])),
        ):
            path = folder / str(number) / place
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
            coarse.resize(size, Image.Resampling.BICUBIC).save(path)
            paths[place] = path
        input_frame, target, generated = paths.values()
        sample = Sample(f"clip{number}/a", generated, target, input_frame, "open drawer", "the right hand opens drawer")
        made.append(sample)
    return made


def picture(path: Path) -> np.ndarray:
    """A picture as (H, W, 3) float64 in [0, 1], read without the code under test."""
    return np.asarray(Image.open(path).convert("RGB"), np.float64) / 255
