"""Several processes, and several micro-batches, train as one process with the whole batch does."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_model.checkpoint import LegoCheckpoint
from torch.distributed.tensor import DTensor

from tests.training.conftest import Workshop
from tests.training.parallel_run import STAGES, STEPS, train_stages

ROOT = Path(__file__).parents[2]
PARTS = ("vllm", "unet", "conditioner", "text_encoder")


def curves(run: Path, stages: tuple[str, ...] = STAGES) -> np.ndarray:
    """Loss and gradient norm of every step of the stages, (len(stages) * STEPS, 2)."""
    rows = [row for stage in stages for row in csv.DictReader((run / f"{stage}.csv").read_text().splitlines())]
    return np.array([[float(row["loss"]), float(row["gradient_norm"])] for row in rows])


def launch_two(*arguments: str | Path) -> None:
    """Runs parallel_run as `accelerate launch` would on two GPUs."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "tests.training.parallel_run", *map(str, arguments),
    ]  # fmt: skip
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1",         "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def alone(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and run of one process with the whole batch at once."""
    folder = tmp_path_factory.mktemp("alone")
    checkpoint = Path(shutil.copytree(workshop.checkpoint, folder / "checkpoint"))
    train_stages(checkpoint, workshop.data, folder / "run", accumulate=1)
    return checkpoint, folder / "run"


def weights(
    checkpoint: Path, names: tuple[str, ...] = ("vllm", "unet", "conditioner", "text_encoder")
) -> dict[str, np.ndarray]:
    parts = LegoCheckpoint.load(checkpoint)
    return {
        f"{part}.{name}": value.numpy() for part in names for name, value in getattr(parts, part).state_dict().items()
    }


def assert_equal_weights(one: Path, other: Path, parts: tuple[str, ...] = PARTS) -> None:
    ours, theirs = weights(one, parts), weights(other, parts)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # Stored in half precision.
        np.testing.assert_allclose(value, theirs[name], rtol=2e-2, atol=2e-3, err_msg=name)


def test_micro_batches_give_the_curve_of_the_whole_batch(
    alone: tuple[Path, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    train_stages(checkpoint, workshop.data, tmp_path / "run", accumulate=3)

    assert len(curves(alone[1])) == 2 * STEPS
    np.testing.assert_allclose(curves(tmp_path / "run"), curves(alone[1]), rtol=1e-4)
    assert_equal_weights(checkpoint, alone[0])


def test_two_processes_give_the_curve_of_one(
    alone: tuple[Path, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    launch_two(checkpoint, workshop.data, tmp_path / "run", "whole")

    assert len(list((tmp_path / "run").glob("process_*_of_2"))) == 2
    np.testing.assert_allclose(curves(tmp_path / "run"), curves(alone[1]), rtol=1e-4)
    assert_equal_weights(checkpoint, alone[0])


def test_weights_divided_between_two_processes_give_the_curve_of_one(
    alone: tuple[Path, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    launch_two(checkpoint, workshop.data, tmp_path / "run", "sharded")

    assert len(list((tmp_path / "run").glob("process_*_of_2"))) == 2
    stages = ("tune_diffusion",)
    expected = curves(alone[1], stages)
    # The VLLM is not the one that `alone` tuned first, but embeddings are made before that.
    np.testing.assert_allclose(curves(tmp_path / "run", stages), expected, rtol=1e-4)
    assert_equal_weights(checkpoint, alone[0], ("unet", "conditioner", "text_encoder"))
    # And the state goes on in one process, undivided.
    state = torch.load(tmp_path / "run" / "tune_diffusion.pt", weights_only=True)
    assert state["step"] == STEPS
    assert not any(isinstance(value, DTensor) for value in state["modules"].values())
    train_stages(checkpoint, workshop.data, tmp_path / "run", accumulate=1, stages=stages)
    assert len(curves(tmp_path / "run", stages)) == STEPS
