from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lego_model.checkpoint import LegoCheckpoint
from lego_model.create import create
from lego_model.pipeline import LegoPipeline
from PIL import Image

TINY = Path(__file__).parents[1] / "export" / "tiny.yaml"
SENTENCES = (
    "How do I open the drawer?",
    "The right hand pulls the drawer open.",
    "The left hand turns the tap.",
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved checkpoint with random weights; tests that damage it copy it first."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    create(TINY, SENTENCES).save(directory)
    return directory


@pytest.fixture(scope="session")
def tiny(tiny_directory: Path) -> LegoCheckpoint:
    """Not to be changed."""
    return LegoCheckpoint.load(tiny_directory)


@pytest.fixture(scope="session")
def pipe(tiny: LegoCheckpoint) -> LegoPipeline:
    return LegoPipeline(tiny)


@pytest.fixture(scope="session")
def frames() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    coarse = [Image.fromarray(generator.integers(0, 255, (6, 8, 3), np.uint8)) for _ in range(2)]
    return [image.resize((160, 120), Image.Resampling.BICUBIC) for image in coarse]
