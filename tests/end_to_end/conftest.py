"""One real model, one real server, and pictures to ask about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lego_training.toy_kitchen import ACTIONS, make_pair, question
from PIL import Image

from tests.end_to_end.processes import REPOSITORY, Server, serving

_SHIPPED = REPOSITORY / "models" / "lego-nano"
_PHOTOGRAPHS = REPOSITORY.parent / "shared" / "fixtures" / "images" / "epic_frames"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its engines: LEGO_TEST_MODEL, the one that ships, or one of its shape with random weights."""
    if named := os.environ.get("LEGO_TEST_MODEL"):
        return Path(named)
    if (_SHIPPED / "manifest.json").is_file():
        return _SHIPPED
    from lego_export.build import build_engines
    from lego_model.create import NANO, create

    directory = tmp_path_factory.mktemp("model") / "untrained"
    create(NANO, [question(action.label("left")) for action in ACTIONS]).save(directory)
    build_engines(directory, directory)
    return directory


@pytest.fixture(scope="session")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(model, tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="session")
def kitchens(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three different frames of the toy kitchen, 256 x 256."""
    folder = tmp_path_factory.mktemp("kitchens")
    paths = [folder / f"{seed}.png" for seed in (0, 2, 4)]
    for path in paths:
        Image.fromarray(make_pair(int(path.stem), "val").input_frame).save(path)
    return paths


@pytest.fixture(scope="session")
def kitchen(kitchens: list[Path]) -> Path:
    return kitchens[0]


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    """Two real frames of a head-mounted camera, 456 x 256."""
    found = sorted(_PHOTOGRAPHS.glob("*.jpg"))[:2]
    if not found:
        pytest.skip(f"there are no photographs in {_PHOTOGRAPHS}")
    return found
