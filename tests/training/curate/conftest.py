from __future__ import annotations

from pathlib import Path

import pytest
from lego_training.toy_kitchen.dataset import write_dataset

PAIRS = 6


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy-kitchen dataset; tests that change it copy it first."""
    return write_dataset(tmp_path_factory.mktemp("kitchen"), train=PAIRS, val=1).root
