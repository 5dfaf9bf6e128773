"""Several processes, and several micro-batches, train as one process with the whole batch does."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lego_training
import numpy as np
import pytest
import torch
from lego_model.checkpoint import LegoCheckpoint
from torch.distributed.tensor import DTensor

from tests.training.conftest import Workshop
from tests.training.parallel_run import STAGES, STEPS, train_stages

ROOT = Path(__file__).parents[2]
ZERO3 = Path(lego_training.__file__).parent / "configs" / "accelerate" / "zero3.yaml"
PARTS = ("vllm", "unet", "conditioner", "text_encoder")


def curves(run: Path, stages: tuple[str, ...] = STAGES) -> np.ndarray:
    """Loss and gradient norm of every step of the stages, (len(stages) * STEPS, 2)."""
    rows = [row for stage in stages for row in csv.DictReader((run / f"{stage}.csv").read_text().splitlines())]
    return np.array([[float(row["loss"]), float(row["gradient_norm"])] for row in rows])


def launch_two(*arguments: str | Path) -> None:
    """Runs parallel_run as `accelerate launch` would on two GPUs."""
    _run(
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
        "tests.training.parallel_run",
        *arguments,
    )


def launch_two_with_deepspeed(*arguments: str | Path) -> None:
    """Runs parallel_run by `accelerate launch` with the configuration that users have."""
    _run(
        "accelerate.commands.launch", "--config_file", ZERO3, "--num_processes", "2", "--main_process_port", "0",
        "-m", "tests.training.parallel_run", *arguments,
    )  # fmt: skip


def _run(module: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
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


@pytest.fixture(scope="module")
def divided(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint and run of two processes under ZeRO-3 that stopped halfway."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'lego-ar[deepspeed]'")
    folder = tmp_path_factory.mktemp("divided")
    shutil.copytree(workshop.checkpoint, folder / "checkpoint")
    launch_two_with_deepspeed(folder / "checkpoint", workshop.data, folder / "run", "zero3")
    return folder


def first_half(rows: np.ndarray) -> np.ndarray:
    """The rows of `curves` that are of the first half of each stage's steps."""
    return rows.reshape(-1, STEPS, 2)[:, : STEPS // 2].reshape(-1, 2)


def test_zero3_of_two_processes_gives_the_curve_of_one(alone: tuple[Path, Path], divided: Path) -> None:
    assert len(list((divided / "run").glob("process_*_of_2"))) == 2
    np.testing.assert_allclose(curves(divided / "run"), first_half(curves(alone[1])), rtol=1e-4)


def test_a_run_under_zero3_goes_on_in_one_process(
    alone: tuple[Path, Path], divided: Path, checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(divided / "run", tmp_path / "run"))

    train_stages(checkpoint, workshop.data, run, accumulate=1, stages=("tune_diffusion",))

    np.testing.assert_allclose(curves(run, ("tune_diffusion",)), curves(alone[1], ("tune_diffusion",)), rtol=1e-4)
    assert_equal_weights(checkpoint, alone[0], ("unet", "conditioner", "text_encoder"))


def test_runs_of_one_process_and_of_two_go_on_under_zero3(
    alone: tuple[Path, Path], divided: Path, workshop: Workshop, tmp_path: Path
) -> None:
    checkpoints, runs = tmp_path / "checkpoints", tmp_path / "runs"
    for name in ("one", "two"):
        shutil.copytree(workshop.checkpoint, checkpoints / name)
    shutil.copytree(divided / "run", runs / "two")
    stages = ("tune_diffusion",)
    train_stages(checkpoints / "one", workshop.data, runs / "one", accumulate=1, stages=stages, steps=STEPS // 2)

    launch_two_with_deepspeed(checkpoints, workshop.data, runs, "zero3_resumed")

    for name in ("one", "two"):
        np.testing.assert_allclose(curves(runs / name, stages), curves(alone[1], stages), rtol=1e-4)
        assert_equal_weights(checkpoints / name, alone[0], ("unet", "conditioner", "text_encoder"))
        # And the states that they leave are whole.
        state = torch.load(runs / name / "tune_diffusion.pt", weights_only=True)
        expected = torch.load(alone[1] / "tune_diffusion.pt", weights_only=True)
        assert state["step"] == STEPS
        assert {key: value.shape for key, value in state["modules"].items()} == {
            key: value.shape for key, value in expected["modules"].items()
        }
