from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from lego_core.config import StudentConfig
from lego_core.manifest import Manifest
from lego_export.build import build_engines
from lego_export.graphs import GraphDefinition, define_graphs
from lego_export.samples import DESCRIPTIONS, QUERIES, Samples, synthetic_frame
from lego_model.checkpoint import LegoCheckpoint
from lego_model.create import create
from lego_model.student import STUDENT, add_student, save_student


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def give_student(directory: Path) -> None:
    """Adds a student of two steps with random changes to a checkpoint."""
    checkpoint = LegoCheckpoint.load(directory)
    student = add_student(checkpoint.unet, rank=3)
    torch.manual_seed(4)
    for name, parameter in student.named_parameters():
        if ".parametrizations.weight.0." in name:
            parameter.data.normal_(std=0.1)
    save_student(student, directory / STUDENT, torch.float16)
    guidance = checkpoint.config.guidance
    made = StudentConfig((999, 499), guidance.text_scale, guidance.image_scale)
    replace(checkpoint.config, student=made).save(directory)


@dataclass(frozen=True)
class Built:
    """A tiny checkpoint with random weights and a student, and its engines in a directory of their own."""

    checkpoint: Path
    engines: Path
    manifest: Manifest


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("export")
    create(Path(__file__).with_name("tiny.yaml"), [*QUERIES, *DESCRIPTIONS]).save(folder / "checkpoint")
    give_student(folder / "checkpoint")
    manifest = build_engines(folder / "checkpoint", folder / "engines")
    return Built(folder / "checkpoint", folder / "engines", manifest)


@pytest.fixture(scope="session")
def in_place(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with its engines built inside it."""
    directory = tmp_path_factory.mktemp("in_place") / "tiny"
    shutil.copytree(built.checkpoint, directory)
    build_engines(directory, directory)
    return directory


@pytest.fixture(scope="session")
def modules(built: Built) -> LegoCheckpoint:
    return LegoCheckpoint.load(built.checkpoint)


@pytest.fixture(scope="session")
def definitions(modules: LegoCheckpoint) -> dict[str, GraphDefinition]:
    return define_graphs(modules)


@pytest.fixture(scope="session")
def samples(modules: LegoCheckpoint, definitions: dict[str, GraphDefinition]) -> Samples:
    return Samples(modules, definitions, [synthetic_frame(1), synthetic_frame(2)])
