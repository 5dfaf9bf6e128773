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
from lego_model.checkpoint import LegoCheckpoint

from tests.training.conftest import Workshop
from tests.training.parallel_run import STEPS, train_both

ROOT = Path(__file__).parents[2]


def curves(run: Path) -> np.ndarray:
    """Loss and gradient norm of every step of both stages, (2 * STEPS, 2)."""
    rows = [row for stage in ("tune_vllm", "tune_diffusion") for row in csv.DictReader((run / f"{stage}.csv").open())]
    return np.array([[float(row["loss"]), float(row["gradient_norm"])] for row in rows])


def launch(processes: int, *arguments: str | Path) -> None:
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "-m", "tests.training.parallel_run", *map(str, arguments),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def alone(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and run of one process with the whole batch at once."""
    folder = tmp_path_factory.mktemp("alone")
    checkpoint = Path(shutil.copytree(workshop.checkpoint, folder / "checkpoint"))
    train_both(checkpoint, workshop.data, folder / "run", accumulate=1)
    return checkpoint, folder / "run"


def weights(checkpoint: Path) -> dict[str, np.ndarray]:
    parts = LegoCheckpoint.load(checkpoint)
    return {
        f"{part}.{name}": value.numpy()
        for part in ("vllm", "unet", "conditioner")
        for name, value in getattr(parts, part).state_dict().items()
    }


def assert_equal_weights(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # Stored in half precision.
        np.testing.assert_allclose(value, theirs[name], rtol=2e-2, atol=2e-3, err_msg=name)


def test_micro_batches_give_the_curve_of_the_whole_batch(
    alone: tuple[Path, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    train_both(checkpoint, workshop.data, tmp_path / "run", accumulate=3)

    assert len(curves(alone[1])) == 2 * STEPS
    np.testing.assert_allclose(curves(tmp_path / "run"), curves(alone[1]), rtol=1e-4)
    assert_equal_weights(checkpoint, alone[0])


def test_two_processes_give_the_curve_of_one(
    alone: tuple[Path, Path], checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    launch(2, checkpoint, workshop.data, tmp_path / "run", "2")

    np.testing.assert_allclose(curves(tmp_path / "run"), curves(alone[1]), rtol=1e-4)
    assert_equal_weights(checkpoint, alone[0])
