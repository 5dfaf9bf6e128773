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
        ["unet.steps=20", "unet.learning_rate=1e-3", "diffusion.change_weight=0", "dataset=ego4d", "vae.threads=2"],
    )

    assert (config.unet.steps, config.unet.learning_rate, config.vae.threads) == (20, 1e-3, 2)
    assert (config.diffusion.change_weight, config.dataset) == (0, "ego4d")
    assert config.unet.batch_size == load_config(NANO).unet.batch_size


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("unet.steps", "'unet.steps' is not of the form key=value"),
        ("unet.steps=0", "unet: steps is 0; it must lie between 1"),
        ("unet.steps=many", "unet: steps is 'many'; it must be a whole number"),
        ("unet.stepz=5", "unet: unknown key 'stepz'; known keys are steps, batch_size"),
        ("unetz.steps=5", "unknown key 'unetz'"),
        ("unet=5", "unet is 5; it must be a mapping"),
        ("diffusion.condition_dropout=0.5", "diffusion: condition_dropout is 0.5; it must lie between 0 and"),
        ("diffusion.change_weight=-1", "diffusion: change_weight is -1"),
        ("diffusion.train_conditioner=maybe", "diffusion: train_conditioner is 'maybe'; it must be true or false"),
        ("tuning.train_vision_tower=1", "tuning: train_vision_tower is 1; it must be true or false"),
        ("dataset=5", "dataset is 5; it must be text"),
        ("seed=x", "seed is 'x'; it must be a whole number"),
        ("unet.steps=[", "cannot be read as a configuration"),
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
