"""A run's YAML and its overrides."""

from __future__ import annotations

from pathlib import Path

import lego_training
import pytest
from lego_core.errors import LegoError
from lego_training.config import load_config

NANO = Path(lego_training.__file__).parent / "configs" / "nano.yaml"


def test_the_shipped_configuration_is_valid() -> None:
    config = load_config(NANO)

    assert config.dataset == "toykitchen" and config.architecture == "nano.yaml"
    assert config.diffusion.train_conditioner


def test_any_key_can_be_overridden() -> None:
    config = load_config(
        NANO,
        [
            "tune_diffusion.steps=20",
            "tune_diffusion.learning_rate=1e-3",
            "diffusion.change_weight=0",
            "dataset=ego4d",
            "vae.threads=2",
        ],
    )

    assert (config.tune_diffusion.steps, config.tune_diffusion.learning_rate, config.vae.threads) == (20, 1e-3, 2)
    assert (config.diffusion.change_weight, config.dataset) == (0, "ego4d")
    assert config.tune_diffusion.batch_size == load_config(NANO).tune_diffusion.batch_size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tune_diffusion.steps", "'tune_diffusion.steps' is not of the form key=value"),
        ("tune_diffusion.steps=0", "tune_diffusion: steps is 0; it must lie between 1"),
        ("tune_diffusion.steps=many", "tune_diffusion: steps is 'many'; it must be a whole number"),
        ("tune_diffusion.stepz=5", "tune_diffusion: unknown key 'stepz'; known keys are steps, batch_size"),
        ("unetz.steps=5", "unknown key 'unetz'"),
        ("unet.steps=5", "the key 'unet' is called 'tune_diffusion' now; rename it"),
        ("tune_diffusion=5", "tune_diffusion is 5; it must be a mapping"),
        ("diffusion.condition_dropout=0.5", "diffusion: condition_dropout is 0.5; it must lie between 0 and"),
        ("diffusion.change_weight=-1", "diffusion: change_weight is -1"),
        ("diffusion.train_conditioner=maybe", "diffusion: train_conditioner is 'maybe'; it must be true or false"),
        ("tuning.train_vision_tower=1", "tuning: train_vision_tower is 1; it must be true or false"),
        ("dataset=5", "dataset is 5; it must be text"),
        ("seed=x", "seed is 'x'; it must be a whole number"),
        ("tune_diffusion.steps=[", "cannot be read as a configuration"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(LegoError, match=message):
        load_config(NANO, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "cannot be read as a configuration"),
        ("- 1\n- 2\n", "run.yaml"),
        ("", "the key 'dataset' is missing"),
        ("5", "run.yaml"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)

    with pytest.raises(LegoError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"none\.yaml cannot be read as a configuration"):
        load_config(tmp_path / "none.yaml")
