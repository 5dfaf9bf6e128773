"""The distilled student: a low-rank change of the U-Net, stored as a LoRA adapter."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lego_core.config import GuidanceDefaults, LegoConfig, StudentConfig
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.pipeline import LegoPipeline
from lego_model.student import STUDENT, add_student, load_student, save_student
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@pytest.fixture
def inputs(tiny: LegoCheckpoint) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    unet = tiny.unet.config
    sample = torch.randn(2, unet.in_channels, unet.sample_size, unet.sample_size)
    return sample, torch.tensor([999.0, 250.0]), torch.randn(2, 6, unet.cross_attention_dim)


def changed(unet: nn.Module, rank: int = 3) -> nn.Module:
    student = add_student(unet, rank)
    torch.manual_seed(2)
    for name, parameter in student.named_parameters():
        if ".parametrizations.weight.0." in name:
            nn.init.normal_(parameter, std=0.1)
    return student.eval()


def test_a_new_student_is_its_teacher_and_shares_its_weights(tiny: LegoCheckpoint, inputs: tuple[Tensor, ...]) -> None:
    teacher = copy.deepcopy(tiny.unet)
    student = add_student(teacher, 3).eval()

    torch.testing.assert_close(student(*inputs).sample, teacher(*inputs).sample)
    own = {id(each) for each in student.parameters()} - {id(each) for each in teacher.parameters()}
    changes = {id(each) for name, each in student.named_parameters() if ".parametrizations.weight.0." in name}
    assert changes and own == changes
    assert all(each.requires_grad for each in teacher.parameters())


@torch.no_grad()
def test_a_saved_student_is_read_again(tiny: LegoCheckpoint, inputs: tuple[Tensor, ...], tmp_path: Path) -> None:
    teacher = copy.deepcopy(tiny.unet)
    student = changed(teacher)
    save_student(student, tmp_path, torch.float32)

    again = load_student(teacher, tmp_path)

    assert all(each.requires_grad for each in teacher.parameters())  # it can still be tuned
    torch.testing.assert_close(again(*inputs).sample, student(*inputs).sample)
    assert not torch.allclose(again(*inputs).sample, teacher(*inputs).sample, atol=1e-3)


@torch.no_grad()
def test_diffusers_reads_the_adapter_too(tiny: LegoCheckpoint, inputs: tuple[Tensor, ...], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    student = changed(copy.deepcopy(tiny.unet))
    save_student(student, tmp_path, torch.float32)
    theirs = copy.deepcopy(tiny.unet)

    theirs.load_lora_adapter(load_file(tmp_path / "pytorch_lora_weights.safetensors"), prefix=None)

    torch.testing.assert_close(theirs(*inputs).sample, student(*inputs).sample, atol=1e-5, rtol=1e-4)


def _drop_a_layer(state: dict[str, Tensor]) -> None:
    del state["conv_in.lora_A.weight"]


def _add_a_layer(state: dict[str, Tensor]) -> None:
    state["conv_up.lora_A.weight"] = torch.zeros(1)


def _change_a_shape(state: dict[str, Tensor]) -> None:
    state["conv_in.lora_A.weight"] = torch.zeros(3, 4, 3, 3)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop_a_layer, "is of another U-Net (conv_in.lora_A.weight is missing)"),
        (_add_a_layer, "is of another U-Net (conv_up.lora_A.weight is unknown)"),
        (_change_a_shape, "is of another U-Net (conv_in has a weight of another shape)"),
    ],
)
def test_an_adapter_of_another_unet_is_refused(tiny: LegoCheckpoint, tmp_path: Path, damage, told: str) -> None:
    save_student(changed(copy.deepcopy(tiny.unet)), tmp_path, torch.float16)
    state = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    damage(state)
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")

    with pytest.raises(LegoError) as error:
        load_student(tiny.unet, tmp_path)
    assert told in str(error.value)


def test_a_damaged_or_absent_adapter_is_refused(tiny: LegoCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="restore it, or distil again"):
        load_student(tiny.unet, tmp_path)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(LegoError, match="restore it, or distil again"):
        load_student(tiny.unet, tmp_path)


@pytest.fixture
def with_student(tiny: LegoCheckpoint, tmp_path: Path) -> Path:
    directory = tmp_path / "with student"
    tiny.save(directory)
    save_student(changed(copy.deepcopy(tiny.unet)), directory / STUDENT, torch.float16)
    guidance = tiny.config.guidance
    made = StudentConfig((999, 499), guidance.text_scale, guidance.image_scale)
    replace(tiny.config, student=made).save(directory)
    return directory


def test_the_student_belongs_to_the_checkpoints_fingerprint(with_student: Path) -> None:
    before = fingerprint(with_student)
    path = with_student / STUDENT / "pytorch_lora_weights.safetensors"
    save_file({key: value + 1 for key, value in load_file(path).items()}, path)
    assert fingerprint(with_student) != before


def test_the_pipeline_paints_with_the_student_in_its_own_steps(with_student: Path, frames: list[Image.Image]) -> None:
    pipe = LegoPipeline.from_pretrained(with_student)
    steps: list[tuple[int, int]] = []
    query = "How do I open the drawer?"

    painted = pipe(frames[0], query, sampler="distilled", on_step=lambda done, of: steps.append((done, of)))

    assert steps == [(1, 2), (2, 2)]
    guided = pipe(frames[0], query, sampler="euler", steps=2)
    assert painted.image.tobytes() != guided.image.tobytes()
    with pytest.raises(LegoError, match="steps is 5; this model's student was distilled for 2 alone"):
        pipe(frames[0], query, sampler="distilled", steps=5)


def test_a_model_without_a_student_says_so(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    with pytest.raises(LegoError, match="has no distilled student; choose one of euler_ancestral, euler"):
        pipe(frames[0], "open the drawer", sampler="distilled")


@pytest.mark.parametrize(
    ("timesteps", "told"),
    [((), "give at least one"), ((499, 999), "each below the one before"), ((0,), "timesteps is 0")],
)
def test_timesteps_of_a_student_fall(timesteps: tuple[int, ...], told: str) -> None:
    with pytest.raises(LegoError, match=told):
        StudentConfig(timesteps, 7.5, 1.5)


def test_a_student_is_asked_for_and_never_the_guided_models_own_sampler() -> None:
    lego = LegoConfig("model", student=StudentConfig((999, 499), 7.5, 1.5))
    assert LegoConfig.from_dict(lego.to_dict()) == lego
    assert lego.defaults("distilled").steps == 2
    with pytest.raises(LegoError, match="is that of the guided model; choose one of euler_ancestral, euler"):
        LegoConfig("model", guidance=GuidanceDefaults("distilled", 2, 7.5, 1.5), student=lego.student)
