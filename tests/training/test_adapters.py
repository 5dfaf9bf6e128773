"""LoRA: few weights learn, the merged model is what learnt, and a resumed run does not merge twice."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_training import loop
from lego_training.adapters import AdaptedVllm
from lego_training.loop import LoopConfig
from lego_training.stages.vllm import TuningConfig, answer_loss, encode_example, tune_vllm

from tests.training.conftest import Workshop

LORA = TuningConfig(mode="lora", rank=4, alpha=8)


def settings(steps: int, **values: object) -> LoopConfig:
    return LoopConfig(
        steps=steps, batch_size=4, learning_rate=1e-2, threads=1, precision="fp32", weight_decay=0, schedule="constant",
        **values,  # type: ignore[arg-type]
    )  # fmt: skip


@torch.no_grad()
def loss_of(checkpoint: Path, workshop: Workshop) -> float:
    """Of the dataset's first description under the checkpoint's VLLM."""
    parts = LegoCheckpoint.load(checkpoint)
    example = encode_example(parts.config, parts.vllm_tokenizer, parts.vllm, "How?", workshop.records[0].description)
    return float(answer_loss(parts.vllm, torch.zeros(1, 3, 32, 32), [example]))


def test_adapters_learn_and_are_merged_into_the_checkpoint(
    checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    before, others = LegoCheckpoint.load(checkpoint).vllm.state_dict(), fingerprint(checkpoint, ("unet", "vae"))
    loss = loss_of(checkpoint, workshop)

    tune_vllm(checkpoint, workshop.records, settings(20), LORA, tmp_path / "run")

    after = LegoCheckpoint.load(checkpoint).vllm.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert before.keys() == after.keys()
    assert all("_proj.weight" in name or "multi_modal_projector" in name for name in changed)
    assert any("q_proj" in name for name in changed) and any("projector" in name for name in changed)
    # The merged weights differ by what a matrix of the adapters' rank can.
    name = next(name for name in changed if "q_proj" in name)
    singular = torch.linalg.svdvals(after[name].float() - before[name].float())
    assert singular[4:].max() < 0.05 * singular[0]
    assert loss_of(checkpoint, workshop) < loss - 0.1
    assert fingerprint(checkpoint, ("unet", "vae")) == others
    assert {each.name for each in (tmp_path / "run" / "tune_vllm_adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip


def test_a_stopped_run_goes_on_and_merges_once(
    checkpoint: Path, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for path in checkpoint.rglob("*"):
        if path.is_file():
            (whole / path.relative_to(checkpoint)).parent.mkdir(parents=True, exist_ok=True)
            (whole / path.relative_to(checkpoint)).write_bytes(path.read_bytes())
    tune_vllm(whole, workshop.records, settings(4), LORA, tmp_path / "whole_run")

    split_step = loop.split_step

    def stopped(step: int, *arguments: int) -> list[loop.Batch]:
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
        return split_step(step, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "split_step", stopped)
        with pytest.raises(KeyboardInterrupt, match="stopped at step 2"):
            tune_vllm(checkpoint, workshop.records, settings(4), LORA, tmp_path / "run")
    # By now the checkpoint has been merged into.
    for _ in range(2):
        tune_vllm(checkpoint, workshop.records, settings(4), LORA, tmp_path / "run")

    expected, ours = (LegoCheckpoint.load(each).vllm.state_dict() for each in (whole, checkpoint))
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_a_state_has_the_adapters_alone(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> None:
    tune_vllm(checkpoint, workshop.records, settings(1), LORA, tmp_path)

    names = torch.load(tmp_path / "tune_vllm.pt", weights_only=True)["modules"]
    assert all(name.startswith(("adapters.", "projector.")) for name in names)


def test_four_bits_are_refused_without_their_hardware(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the hardware")

    with pytest.raises(LegoError, match="which needs an NVIDIA GPU; on this device, cpu, choose lora or full"):
        tune_vllm(checkpoint, workshop.records, settings(1), TuningConfig(mode="qlora"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_answer_too_long_loses_its_end_and_a_prompt_too_long_is_refused(workshop: Workshop) -> None:
    parts = LegoCheckpoint.load(workshop.checkpoint)

    def encode(length: int) -> list[int]:
        return encode_example(parts.config, parts.vllm_tokenizer, parts.vllm, "How?", "The left hand.", length).answer

    whole = encode(2048)
    taken = next(length for length in range(6, 100) if _fits(encode, length))
    assert encode(taken + 1) == whole[:2]
    with pytest.raises(LegoError, match=f"leaves no room for an answer in max_length = {taken - 1}"):
        encode(taken - 1)


def _fits(encode: object, length: int) -> bool:
    try:
        return bool(encode(length))  # type: ignore[operator]
    except LegoError:
        return False


def test_weights_below_the_adapters_are_held_once_and_in_half_the_size(checkpoint: Path, tmp_path: Path) -> None:
    adapted = AdaptedVllm(checkpoint / "vllm", tmp_path, 4, 8, four_bit=False, dtype=torch.bfloat16)

    held = {name: value.dtype for name, value in adapted.vllm.named_parameters()}
    assert {dtype for name, dtype in held.items() if "lora_" not in name and "projector" not in name} == {
        torch.bfloat16
    }
    trained = {name for name, value in adapted.vllm.named_parameters() if value.requires_grad}
    assert {held[name] for name in trained} == {torch.float32}
    assert all("lora_" in name or "multi_modal_projector" in name for name in trained)
