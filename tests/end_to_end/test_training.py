"""From nothing to a served model, as the training README says: every stage of the toy kitchen, with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lego_core.config import LegoConfig

from tests.end_to_end.processes import REPOSITORY, ask, serving

STAGES = ["vae", "pretrain-vllm", "tune-vllm", "embed", "tune-diffusion", "distil"]
LOOP = "{steps: 3, batch_size: 2, learning_rate: 1.0e-3, threads: 1}"
RUN = f"""
dataset: toykitchen
architecture: {REPOSITORY / "tests" / "export" / "tiny.yaml"}
seed: 0
vae: {LOOP}
pretrain_vllm: {LOOP}
tune_vllm: {LOOP}
tune_diffusion: {LOOP}
distil: {LOOP}
tuning: {{train_vision_tower: true}}
diffusion: {{train_text_encoder: true}}
distillation: {{steps: 2, teacher_steps: 4, samples: 8, rank: 2}}
"""


def command(package: str, *arguments: str | Path) -> str:
    """Runs one command to its end; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", package, *map(str, arguments)], capture_output=True, text=True, timeout=600
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(1200)  # twenty commands, each loading torch
def test_every_stage_from_nothing_makes_a_model_that_the_server_serves(tmp_path: Path, kitchen: Path) -> None:
    data, model, engines, runs = (tmp_path / name for name in ("data", "model", "engines", "runs"))
    (tmp_path / "run.yaml").write_text(RUN)
    places = ("--data", data, "--checkpoint", model, "--run", runs)

    command("lego_training", "toy-kitchen", "write", data, "--train", "8", "--val", "2")
    assert "0 faults" in command("lego_training", "check-data", data)
    command("lego_training", "all", tmp_path / "run.yaml", *places)
    assert list(LegoConfig.load(model).provenance["stages"]) == STAGES
    again = command("lego_training", "all", tmp_path / "run.yaml", *places)
    assert [line for line in again.splitlines() if line.endswith("is done")] == [f"{stage} is done" for stage in STAGES]

    judge = ("evaluate", "toy", "--checkpoint", model, "--scenes", "2", "--json", tmp_path / "figures.json")
    command("lego_training", *judge, "--sampler", "distilled")
    assert json.loads((tmp_path / "figures.json").read_text())["unet_evaluations_per_frame"] == 2

    command("lego_export", "build", model, engines)
    with serving(engines, tmp_path / "log") as server:
        query = "how do I open the drawer?"
        guided = ask(server, kitchen, tmp_path / "guided", query, "--seed", "3")
        distilled = ask(server, kitchen, tmp_path / "distilled", query, "--seed", "3", "--sampler", "distilled")
    assert distilled.record["sampling"]["sampler"] == "distilled"
    assert guided.record["description"] == distilled.record["description"]
    assert guided.guidance != distilled.guidance
