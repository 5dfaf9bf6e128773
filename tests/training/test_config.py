"""A run's YAML and its overrides."""

from __future__ import annotations

from pathlib import Path

import lego_training
import pytest
from lego_core.errors import LegoError
from lego_model.skeleton import find_architecture
from lego_training.config import load_config

NANO = Path(lego_training.__file__).parent / "configs" / "nano.yaml"


def test_the_shipped_configuration_is_valid() -> None:
    config = load_config(NANO)

    assert config.dataset == "toykitchen" and config.architecture == "nano.yaml"
    assert config.diffusion.train_conditioner


RUNS = sorted(path for path in NANO.parent.glob("*.yaml") if path.name not in ("prepare.yaml", "reproduce.yaml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_every_shipped_configuration_can_be_run(path: Path) -> None:
    config = load_config(path)

    assert find_architecture(Path(config.architecture)).is_file()


def test_the_papers_recipe_and_the_released_codes_differ_where_their_sources_do() -> None:
    paper, released = (load_config(NANO.with_name(name)) for name in ("paper.yaml", "released.yaml"))

    assert (paper.tune_diffusion.batch_size, released.tune_diffusion.batch_size) == (256, 1024)
    assert paper.tune_diffusion.learning_rate == released.tune_diffusion.learning_rate == 1e-4
    assert {paper.tune_diffusion.rate(step) for step in (0, 10_000, 19_999)} == {1.0}
    assert (paper.diffusion.train_conditioner, released.diffusion.train_conditioner) == (True, False)
    assert (paper.tune_vllm.schedule, released.tune_vllm.schedule) == ("cosine", "constant")
    assert paper.vae is None and released.pretrain_vllm is None


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

    assert (config.tune_diffusion.steps, config.tune_diffusion.learning_rate) == (20, 1e-3)
    assert config.vae is not None and config.vae.threads == 2
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
        ("diffusion.conditioning=image", "diffusion: conditioning is 'image'; choose one of label, description"),
        ("diffusion.conditioner_start=zero", "conditioner_start is 'zero'; choose checkpoint, xavier or torch"),
        ("diffusion.flip=yes", "diffusion: flip is "),
        ("tuning.mode=half", "tuning: mode is 'half'; choose full, lora or qlora"),
        ("tuning.rank=0", "tuning: rank is 0; it must lie between 1"),
        ("tuning.mode=lora", "train_vision_tower is true, but mode is 'lora'"),
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
