"""The ablation: one model a row and seed, all alike but for what their U-Net reads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_training.baselines import new_diffusion_model
from lego_training.config import RunConfig, load_config
from lego_training.evaluation.ablation import FIGURES, ROWS, ablate, table

from tests.training.conftest import TINY, Workshop

CONFIGS = Path(__file__).parents[2] / "training" / "lego_training" / "configs"
SMALL = ("tune_diffusion.steps=2", "tune_diffusion.batch_size=2", "tune_diffusion.threads=1", f"architecture={TINY}")


@pytest.fixture(scope="module")
def run_config() -> RunConfig:
    return load_config(CONFIGS / "ablation.yaml", SMALL)


@pytest.fixture(scope="module")
def untuned(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("untuned") / "checkpoint"
    shutil.copytree(workshop.checkpoint, directory)
    checkpoint = LegoCheckpoint.load(directory)
    checkpoint.vllm.lm_head.weight.data.mul_(-1)
    checkpoint.save(directory)
    return directory


def test_every_row_gets_a_model_and_the_table_says_how_they_differ(
    workshop: Workshop, untuned: Path, run_config: RunConfig, tmp_path: Path
) -> None:
    before = fingerprint(workshop.checkpoint)

    figures = ablate(workshop.checkpoint, untuned, workshop.records, run_config, tmp_path, seeds=1, scenes=1)

    assert fingerprint(workshop.checkpoint) == before
    made = [
        LegoConfig.load(tmp_path / f"{row.conditioning}{'' if row.tuned else '-untuned'}-0/checkpoint") for row in ROWS
    ]
    assert [each.conditioning for each in made] == [row.conditioning for row in ROWS]
    assert list(figures["rows"]) == [row.title for row in ROWS]
    assert json.loads((tmp_path / "ablation.json").read_text()) == figures
    assert (tmp_path / "ablation.md").read_text().count("\n") == len(ROWS) + 2
    assert (tmp_path / "ablation.png").stat().st_size > 1000

    # A cell that is done is kept: nothing is trained or judged again.
    cell = tmp_path / "joint-0" / "figures.json"
    cell.write_text(json.dumps(dict.fromkeys((*FIGURES, "description_slots"), 0.5)))
    shutil.rmtree(tmp_path / "joint-0" / "checkpoint")
    again = ablate(workshop.checkpoint, untuned, workshop.records, run_config, tmp_path, seeds=1, scenes=1)
    assert again["rows"]["joint (LEGO)"]["action_success"] == {"mean": 0.5, "std": 0.0, "seeds": [0.5]}
    assert "| joint (LEGO) | 0.500 ± 0.000 |" in table(again)

    with pytest.raises(LegoError, match="an ablation with another scenes; choose another folder"):
        ablate(workshop.checkpoint, untuned, workshop.records, run_config, tmp_path, seeds=1, scenes=2)


def test_a_new_diffusion_model_keeps_the_frozen_parts_and_its_seed_makes_it(workshop: Workshop, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        new_diffusion_model(workshop.checkpoint, str(TINY), seed).save(tmp_path / name)

    for part in ("vae/diffusion_pytorch_model.safetensors", "vllm/model.safetensors"):
        assert (tmp_path / "one" / part).read_bytes() == (workshop.checkpoint / part).read_bytes()
    trained = ("unet", "conditioner", "text_encoder")
    assert fingerprint(tmp_path / "one", trained) == fingerprint(tmp_path / "again", trained)
    assert fingerprint(tmp_path / "one", trained) != fingerprint(tmp_path / "two", trained)


def test_two_models_that_differ_in_more_than_their_vllm_are_refused(
    workshop: Workshop, checkpoint: Path, run_config: RunConfig, tmp_path: Path
) -> None:
    other = LegoCheckpoint.load(checkpoint)
    next(other.vae.parameters()).data.add_(1)
    replace(other).save(checkpoint)

    with pytest.raises(LegoError, match="differ in more than their VLLM"):
        ablate(workshop.checkpoint, checkpoint, workshop.records, run_config, tmp_path, seeds=1, scenes=1)
