from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from lego_training.dataset import Record, read_records
from lego_training.toy_kitchen.dataset import write_dataset

TINY = Path(__file__).parents[1] / "export" / "tiny.yaml"
PAIRS = 6


@dataclass(frozen=True)
class Workshop:
    """A small dataset and a checkpoint with random weights of its words; tests that change either copy it first."""

    data: Path
    checkpoint: Path
    records: list[Record]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    import torch
    from lego_model.create import create
    from lego_training.queries import corpus

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("training")
    write_dataset(folder / "data", train=PAIRS, val=1)
    records = read_records(folder / "data", "toykitchen", "train")
    create(TINY, corpus(records)).save(folder / "checkpoint")
    return Workshop(folder / "data", folder / "checkpoint", records)


@pytest.fixture
def checkpoint(workshop: Workshop, tmp_path: Path) -> Path:
    """A copy of the checkpoint for a test to train."""
    return Path(shutil.copytree(workshop.checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def plain_data(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames as a dataset named "plain", without metadata, as another source might write it."""
    root = tmp_path_factory.mktemp("plain")
    shutil.copytree(workshop.data / "EgoGen" / "toykitchen", root / "EgoGen" / "plain")
    content = json.loads((workshop.data / "toykitchen_train.json").read_text())
    (root / "plain_train.json").write_text(json.dumps(content))
    return root
