"""What a model takes, without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lego_core.command import run_command
from lego_export.cli import app
from lego_export.describe import Cost, describe_model
from lego_export.samples import DESCRIPTIONS
from lego_model.checkpoint import LegoCheckpoint
from lego_model.create import create
from lego_model.skeleton import read_skeleton


@pytest.fixture(scope="module")
def released() -> Cost:
    return describe_model(read_skeleton("lego-sd15-llava13b"))


def test_the_released_model_counts_as_the_original_does(released: Cost) -> None:
    counts = {part.name: (part.tensors, part.parameters) for part in released.parts}

    assert counts["unet"] == (686, 859_532_484)
    assert counts["vae"] == (248, 83_653_863)
    assert counts["text_encoder"] == (196, 123_060_480)
    assert released.original_file.tensors == 1859
    assert round(released.original_file.bytes / 1e9, 2) == 7.78


def test_memory_is_that_of_the_weights(released: Cost) -> None:
    unet = released.parts[0]

    assert unet.memory == {"fp32": 4 * 859_532_484, "fp16": 2 * 859_532_484, "int8": 859_532_484}
    assert released.total.parameters == sum(part.parameters for part in released.parts)
    assert 14.0e9 < released.total.parameters < 14.6e9  # 13 billion of LLaMA, 1.1 of diffusion, 0.3 of CLIP's tower


def test_a_u_net_evaluation_is_98_4_billion_multiply_adds(released: Cost) -> None:
    work = {each.name: each for each in released.work}
    denoise = work["denoise (U-Net)"]

    assert denoise.calls == 300
    assert denoise.flops / denoise.calls / 2 == pytest.approx(98.4e9, rel=1e-3)
    # A decoder does two operations for each of its weights and tokens, and some for attention.
    llama = 12.85e9
    assert work["read the prompt (VLLM)"].flops == pytest.approx(2 * llama * released.prompt_tokens, rel=0.03)
    assert work["write the description (VLLM)"].flops == pytest.approx(2 * 13.0e9 * 127, rel=0.03)
    assert released.flops == sum(each.flops for each in released.work)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("describe") / "tiny"
    create(Path(__file__).with_name("tiny.yaml"), DESCRIPTIONS).save(directory)
    return directory


def test_a_checkpoint_is_described_as_it_is(checkpoint: Path) -> None:
    cost = describe_model(read_skeleton(checkpoint))

    unet = LegoCheckpoint.load(checkpoint).unet
    assert cost.parts[0].parameters == sum(parameter.numel() for parameter in unet.parameters())
    assert [each.calls for each in cost.work if each.name == "denoise (U-Net)"] == [9]


def test_the_command_prints_tables_and_writes_json(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(app, "lego-export", ["describe", str(checkpoint), "--json", str(tmp_path / "cost.json")]) == 0

    said = capsys.readouterr().out
    assert "tiny: weights" in said and "Operations per guidance frame" in said
    values = json.loads((tmp_path / "cost.json").read_text())
    assert values["total"]["memory"]["fp16"] == 2 * values["total"]["parameters"] > 0
    assert values["flops"] == sum(each["flops"] for each in values["work"])


def test_a_model_that_cannot_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(__file__).with_name("tiny.yaml").read_text()
    (tmp_path / "deep.yaml").write_text(text.replace("vllm:\n", "vllm:\n  feature_layer: 99\n"))

    assert run_command(app, "lego-export", ["describe", str(tmp_path / "deep.yaml")]) == 2

    assert "tiny cannot run, its sizes do not fit each other" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_worked_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(app, "lego-export", ["describe", "none.yaml", "--json", str(tmp_path)]) == 2

    assert f"{tmp_path} is a folder" in capsys.readouterr().err


def test_what_cannot_be_described_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(app, "lego-export", ["describe", str(tmp_path / "none.yaml")]) == 2

    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "none.yaml is no architecture" in errors[0]
