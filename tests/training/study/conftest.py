"""Studies to try."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lego_training.dataset import read_records
from lego_training.toy_kitchen.dataset import write_dataset

from tests.training.study.running import METHODS, run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four pairs and a folder of pictures for each method."""
    folder = tmp_path_factory.mktemp("made")
    write_dataset(folder / "data", train=1, val=4)
    for method in METHODS:
        for record in read_records(folder / "data", "toykitchen", "val"):
            place = folder / method / Path(*record.target_path.parts[-3:])
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(record.target_path, place)
    return folder


@pytest.fixture
def images(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "best picture"
    methods = [part for method in METHODS for part in ("--method", f"{method}={made / method}")]
    run("images", folder, "--data", made / "data", "--dataset", "toykitchen", "--items", 3, "--raters", 2, *methods)
    return folder
