"""A checkpoint directory: what is saved comes back, and what is damaged is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from lego_core.errors import LegoError
from lego_model.checkpoint import PARTS, LegoCheckpoint, fingerprint, load_part, save_part
from lego_model.conditioner import Conditioner
from lego_model.create import create
from safetensors.torch import load_file, save_file

from tests.model.conftest import SENTENCES, TINY


@pytest.fixture
def copy(tiny_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_directory, tmp_path / "copy"))


def weights_file(directory: Path, part: str) -> Path:
    return next((directory / part).glob("*.safetensors"))


def test_a_round_trip_in_float16_keeps_every_bit(tiny_directory: Path, tmp_path: Path) -> None:
    LegoCheckpoint.load(tiny_directory, torch.float16).save(tmp_path / "again")
    first = LegoCheckpoint.load(tiny_directory, torch.float16)
    second = LegoCheckpoint.load(tmp_path / "again", torch.float16)

    assert second.config == first.config
    assert second.scheduler.config.prediction_type == "v_prediction"
    assert second.tokenizer.to_str() == first.tokenizer.to_str()
    for part in PARTS:
        ours, theirs = getattr(first, part).state_dict(), getattr(second, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), part


def test_saving_rounds_what_is_on_disk_and_not_the_model(tmp_path: Path) -> None:
    module = Conditioner(8, 16, 2, 32)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    parameters = list(module.parameters())

    save_part(module, tmp_path / "conditioner", torch.float16)

    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True)), "an optimizer would lose them"
    assert all(value.dtype == torch.float16 for value in load_file(weights_file(tmp_path, "conditioner")).values())


def test_saving_again_replaces_files_whole_and_leaves_no_shard_behind(tmp_path: Path) -> None:
    folder = tmp_path / "conditioner"
    save_part(Conditioner(8, 16, 2, 32), folder, torch.float16)
    linked, before = tmp_path / "linked", weights_file(tmp_path, "conditioner").read_bytes()
    linked.hardlink_to(weights_file(tmp_path, "conditioner"))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"a shard of an older save")
    (folder / "tokenizer.json").write_text("another's file")

    save_part(Conditioner(8, 16, 2, 32), folder, torch.float16)

    assert linked.read_bytes() == before != weights_file(tmp_path, "conditioner").read_bytes()
    names = ["config.json", "diffusion_pytorch_model.safetensors", "tokenizer.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conditioner", "linked"]


def test_the_same_seed_creates_the_same_weights() -> None:
    one, two, other = (create(TINY, SENTENCES, seed).conditioner.image_projection.weight for seed in (1, 1, 2))

    assert torch.equal(one, two) and not torch.equal(one, other)


def test_an_architecture_without_a_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shape.yaml"
    path.write_text(TINY.read_text().replace("attention_heads: 2, ", ""))

    with pytest.raises(LegoError, match=r"shape\.yaml lacks the key 'attention_heads'"):
        create(path, SENTENCES)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name: tiny", "name: [", "is no architecture"),
        ("sampler: euler", "sampler: heun", "sampler is 'heun'; choose one of"),
        ("steps: ", "stepping: ", "is no architecture .*'stepping'"),
        ("vae: {", "vae: 3\nother: {", "is no architecture"),
    ],
)
def test_what_is_wrong_with_an_architecture_is_said(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "shape.yaml"
    assert before in TINY.read_text()
    path.write_text(TINY.read_text().replace(before, after))

    with pytest.raises(LegoError, match=rf"shape\.yaml .*{message}"):
        create(path, SENTENCES)


@pytest.mark.parametrize("part", [*PARTS, "scheduler", "tokenizer"])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)

    with pytest.raises(LegoError, match=f"{part}.*restore the checkpoint"):
        LegoCheckpoint.load(copy)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vllm"])
def test_a_truncated_weights_file_is_named(copy: Path, part: str) -> None:
    file = weights_file(copy, part)
    file.write_bytes(file.read_bytes()[:1000])

    with pytest.raises(LegoError, match=f"/{part} cannot be loaded .*restore the checkpoint"):
        LegoCheckpoint.load(copy)


@pytest.mark.parametrize("part", ["conditioner", "text_encoder", "vllm"])
def test_weights_that_are_absent_are_not_made_up(copy: Path, part: str) -> None:
    file = weights_file(copy, part)
    weights = load_file(file)
    gone = sorted(weights)[-1]
    del weights[gone]
    save_file(weights, file, metadata={"format": "pt"})

    with pytest.raises(LegoError, match=f"/{part} (lacks the weights|cannot be loaded).*restore the checkpoint"):
        LegoCheckpoint.load(copy)


def test_pickled_weights_are_never_read(copy: Path) -> None:
    file = weights_file(copy, "text_encoder")
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()

    with pytest.raises(LegoError, match="/text_encoder cannot be loaded"):
        LegoCheckpoint.load(copy)


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer" / "tokenizer.json").write_text("{}")

    with pytest.raises(LegoError, match=r"tokenizer\.json is not a tokenizer"):
        LegoCheckpoint.load(copy)


def test_a_tokenizers_own_padding_and_truncation_are_ignored(copy: Path, tiny: LegoCheckpoint) -> None:
    tiny_tokenizer = LegoCheckpoint.load(copy).tokenizer
    tiny_tokenizer.enable_truncation(2)
    tiny_tokenizer.enable_padding(length=99)
    tiny_tokenizer.save(str(copy / "tokenizer" / "tokenizer.json"))

    ids = LegoCheckpoint.load(copy).tokenizer.encode(SENTENCES[1], add_special_tokens=False).ids

    assert ids == tiny.tokenizer.encode(SENTENCES[1], add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Conditioner(32, 32, 2, 32), "context widths disagree: unet 16, conditioner 32"),
        (Conditioner(48, 16, 2, 32), "projects 48-wide VLLM states but the VLLM is 32 wide"),
    ],
)
def test_parts_of_different_models_are_refused(tiny: LegoCheckpoint, part: Conditioner, message: str) -> None:
    with pytest.raises(LegoError, match=message):
        replace(tiny, conditioner=part).check()


def test_a_prediction_that_no_sampler_knows_is_refused(copy: Path) -> None:
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"v_prediction"', '"sample"'))

    with pytest.raises(LegoError, match="prediction_type is 'sample'; choose one of epsilon, v_prediction"):
        LegoCheckpoint.load(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_tokens": 9}, r"lego\.json says 9 image tokens of a 32-pixel picture; the vision tower makes 4"),
        ({"text_tokens": 99}, r"lego\.json says 99 text tokens; the text encoder holds at most 12"),
    ],
)
def test_lego_json_must_fit_the_parts(tiny: LegoCheckpoint, values: dict[str, Any], message: str) -> None:
    with pytest.raises(LegoError, match=message):
        replace(tiny, config=replace(tiny.config, **values)).check()


def test_the_fingerprint_changes_with_any_weight_and_with_nothing_else(copy: Path) -> None:
    before, others = fingerprint(copy), fingerprint(copy, parts=("unet", "vllm"))
    (copy / "notes.txt").write_text("not part of the model")
    assert fingerprint(copy) == before

    file = weights_file(copy, "vae")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(copy) != before
    assert fingerprint(copy, parts=("unet", "vllm")) == others


def test_parts_can_be_fingerprinted_alone(copy: Path) -> None:
    before = fingerprint(copy, parts=("vae", "vllm"))
    lego = json.loads((copy / "lego.json").read_text())
    (copy / "lego.json").write_text(json.dumps({**lego, "notice": "trained on"}))
    weights_file(copy, "unet").write_bytes(b"")

    assert fingerprint(copy, parts=("vae", "vllm")) == before


def test_one_part_loads_alone(tiny_directory: Path) -> None:
    conditioner = load_part(Conditioner, tiny_directory / "conditioner", torch.float32)

    assert not conditioner.training and conditioner.config.vllm_width == 32


def test_a_save_that_was_interrupted_while_it_moved_is_ended_by_the_next_load(
    tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy"))
    unet = load_part(UNet2DConditionModel, copy / "unet", torch.float32)
    with torch.no_grad():
        unet.conv_in.weight.fill_(0.5)
    move = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path.suffix == ".safetensors":
            raise KeyboardInterrupt
        return move(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_part(unet, copy / "unet", torch.float16)

    again = load_part(UNet2DConditionModel, copy / "unet", torch.float32)
    assert (again.conv_in.weight == 0.5).all()
    assert not list(copy.glob(".sav*"))
