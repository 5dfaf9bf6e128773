"""Distillation: the student learns where its guided teacher stands at each stop, and paints without guidance."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.config import Conditioning, LegoConfig
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.pipeline import LegoPipeline
from lego_model.sampling import SigmaSchedule
from lego_training.conditions import conditions
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig, tune_diffusion
from lego_training.stages.distil import DistillationConfig, Jumps, distil
from lego_training.stages.embed import Embeddings, embed
from lego_training.stages.trajectories import (
    paint_trajectories,
    student_timesteps,
    trajectory_rows,
    windows,
)
from numpy.typing import NDArray

from tests.training.conftest import Workshop

STEPS, TEACHER_STEPS, SAMPLES = 2, 4, 12


@pytest.fixture
def data(checkpoint: Path, workshop: Workshop, tmp_path: Path) -> Embeddings:
    return embed(checkpoint, workshop.records, tmp_path / "embeddings")


def loop(steps: int = 60) -> LoopConfig:
    return LoopConfig(steps=steps, batch_size=8, learning_rate=5e-3, threads=1, precision="fp32")


def paint(
    checkpoint: Path, data: Embeddings, out: Path, samples: int, steps: int = STEPS, teacher_steps: int = TEACHER_STEPS
) -> NDArray[np.float16]:
    return paint_trajectories(checkpoint, data, out, steps, teacher_steps, trajectory_rows(samples, data, True))


def test_the_teachers_way_is_cut_at_the_students_stops(checkpoint: Path) -> None:
    schedule = SigmaSchedule(LegoCheckpoint.load(checkpoint).scheduler)

    spans = windows(schedule, 4, 12)

    assert student_timesteps(schedule, 4) == [999, 749, 499, 249]
    assert [len(span) - 1 for span in spans] == [3, 3, 3, 3]
    assert [span[0] for span in spans] == pytest.approx(schedule.sigmas_at([999, 749, 499, 249]))
    assert [first[-1] for first in spans[:-1]] == pytest.approx([later[0] for later in spans[1:]])
    assert spans[-1][-1] == 0
    every = [sigma for span in spans for sigma in span[:-1]]
    assert every == sorted(every, reverse=True)


def test_trajectories_begin_in_noise_and_end_where_the_pipeline_ends(
    checkpoint: Path, data: Embeddings, tmp_path: Path
) -> None:
    paths = paint(checkpoint, data, tmp_path / "paths", SAMPLES, steps=1, teacher_steps=3).astype(np.float32)

    assert paths.shape == (SAMPLES, 2, *data.frame_latents.shape[1:])
    assert paths[:, 0].std() == pytest.approx(1, abs=0.05)
    # One window: the teacher goes its own way without a stop, as a plain guided sampler does.
    pipe = LegoPipeline(LegoCheckpoint.load(checkpoint))
    frames, context = conditions(pipe.checkpoint, data, trajectory_rows(SAMPLES, data, True)[:3])
    pixels = pipe.paint(frames, context, [0, 1, 2], steps=3, sampler="dpm_solver_pp")
    scale = pipe.checkpoint.vae.config.scaling_factor
    with torch.inference_mode():
        ours = pipe.checkpoint.vae.decode(torch.from_numpy(paths[:3, 1]) / scale).sample
    torch.testing.assert_close(ours, pixels, atol=5e-3, rtol=0)


def test_painting_goes_on_where_it_was_stopped(checkpoint: Path, data: Embeddings, tmp_path: Path) -> None:
    whole = np.array(paint(checkpoint, data, tmp_path / "whole", SAMPLES))
    part = tmp_path / "part"
    paint(checkpoint, data, part, 8)
    before = (part / "trajectories.txt").read_text()

    again = paint(checkpoint, data, part, SAMPLES)

    assert before.splitlines()[1] == "8"
    np.testing.assert_array_equal(again, whole)
    fewer = paint(checkpoint, data, part, 5)
    np.testing.assert_array_equal(fewer, whole[:5])


def test_trajectories_of_another_teacher_are_refused(checkpoint: Path, data: Embeddings, tmp_path: Path) -> None:
    paint(checkpoint, data, tmp_path / "paths", 4)

    with pytest.raises(LegoError, match="or other settings; remove"):
        paint_trajectories(
            checkpoint, data, tmp_path / "paths", STEPS, 2 * TEACHER_STEPS, trajectory_rows(4, data, True)
        )


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_a_jump_with_the_right_prediction_has_no_error(checkpoint: Path, prediction_type: str) -> None:
    schedule = SigmaSchedule(LegoCheckpoint.load(checkpoint).scheduler)
    jumps = Jumps(schedule, 4, prediction_type)
    sigmas = [*schedule.sigmas_at(student_timesteps(schedule, 4)), 0.0]
    torch.manual_seed(0)
    clean, noise = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    stops = np.arange(4)
    # On a straight way every stop is a mixture of the same picture and the same noise.
    at = [(sigma**2 + 1) ** -0.5 for sigma in sigmas]
    noisy = torch.stack([at[i] * (clean[i] + sigmas[i] * noise[i]) for i in stops])
    wanted = torch.stack([at[i + 1] * (clean[i] + sigmas[i + 1] * noise[i]) for i in stops])
    velocity = torch.stack([at[i] * (noise[i] - sigmas[i] * clean[i]) for i in stops])
    prediction = velocity if prediction_type == "v_prediction" else noise

    assert float(jumps.error(prediction, noisy, wanted, stops).abs().max()) < 1e-4
    off = jumps.error(prediction + 0.1, noisy, wanted, stops).abs()
    if prediction_type == "v_prediction":  # its error is the velocity's own, whatever the stop
        torch.testing.assert_close(off, torch.full_like(off, 0.1), atol=1e-4, rtol=0)


def test_the_student_comes_nearer_to_its_teacher_and_asks_the_network_once_a_step(
    checkpoint: Path, data: Embeddings, tmp_path: Path
) -> None:
    others = fingerprint(checkpoint, parts=("unet", "vae", "vllm", "text_encoder", "conditioner"))

    distil(checkpoint, data, loop(), DistillationConfig(STEPS, TEACHER_STEPS, SAMPLES, rank=8), tmp_path)

    assert fingerprint(checkpoint, parts=("unet", "vae", "vllm", "text_encoder", "conditioner")) == others
    lego = LegoConfig.load(checkpoint)
    assert lego.student is not None
    assert lego.student.timesteps == (999, 499)
    assert lego.defaults("distilled").text_scale == lego.guidance.text_scale

    pipe = LegoPipeline.from_pretrained(checkpoint)
    paths = np.load(tmp_path / "trajectories.npy").astype(np.float32)
    frames, context = conditions(pipe.checkpoint, data, trajectory_rows(SAMPLES, data, True))
    scale = pipe.checkpoint.vae.config.scaling_factor
    with torch.inference_mode():
        wanted = pipe.checkpoint.vae.decode(torch.from_numpy(paths[:, -1]) / scale).sample
    calls: list[int] = []
    student = pipe.checkpoint.student
    assert student is not None
    student.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    painted = pipe.paint(frames, context, range(SAMPLES), sampler="distilled")
    assert calls == [SAMPLES] * STEPS
    guided = pipe.paint(frames, context, range(SAMPLES), steps=STEPS, sampler="euler")
    assert float((painted - wanted).square().mean()) < 0.5 * float((guided - wanted).square().mean())


def test_the_same_settings_make_the_same_student(checkpoint: Path, data: Embeddings, tmp_path: Path) -> None:
    config = DistillationConfig(STEPS, TEACHER_STEPS, SAMPLES, rank=2)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    distil(checkpoint, data, loop(8), config, tmp_path / "run")
    distil(other, data, loop(8), config, tmp_path / "other-run")
    first, second = (
        [row["loss"] for row in csv.DictReader((tmp_path / run / "distil.csv").read_text().splitlines())]
        for run in ("run", "other-run")
    )

    assert len(first) == 8 and first == second
    assert fingerprint(checkpoint, ("student",)) == fingerprint(other, ("student",))
    state = json.loads((checkpoint / "lego.json").read_text())
    assert state["student"]["timesteps"] == [999, 499]


def test_tuning_the_teacher_again_drops_its_student(checkpoint: Path, data: Embeddings, tmp_path: Path) -> None:
    distil(checkpoint, data, loop(1), DistillationConfig(STEPS, TEACHER_STEPS, 2, rank=2), tmp_path / "run")
    assert LegoPipeline.from_pretrained(checkpoint).checkpoint.student is not None

    before = fingerprint(checkpoint, ("unet",))
    tune_diffusion(checkpoint, data, loop(1), DiffusionConfig(), tmp_path / "again")

    assert fingerprint(checkpoint, ("unet",)) != before
    assert LegoConfig.load(checkpoint).student is None
    assert not (checkpoint / "student").exists()


def test_a_damaged_student_does_not_keep_a_new_one_from_being_made(
    checkpoint: Path, data: Embeddings, tmp_path: Path
) -> None:
    config = DistillationConfig(STEPS, TEACHER_STEPS, 2, rank=2)
    distil(checkpoint, data, loop(1), config, tmp_path / "run")
    (checkpoint / "student" / "pytorch_lora_weights.safetensors").write_bytes(b"damaged")

    distil(checkpoint, data, loop(2), config, tmp_path / "run")

    assert LegoPipeline.from_pretrained(checkpoint).checkpoint.student is not None


@pytest.mark.parametrize("conditioning", ["label", "description_text"])
def test_a_model_with_fewer_blocks_of_context_is_distilled_too(
    checkpoint: Path, data: Embeddings, tmp_path: Path, conditioning: Conditioning
) -> None:
    replace(LegoConfig.load(checkpoint), conditioning=conditioning).save(checkpoint)

    distil(checkpoint, data, loop(1), DistillationConfig(STEPS, TEACHER_STEPS, 2, rank=2), tmp_path)

    loaded = LegoCheckpoint.load(checkpoint)
    _, context = conditions(loaded, data, np.array([0, 1]))
    assert context.shape[1] == loaded.config.text_tokens + loaded.config.projected_tokens


def test_mirror_images_are_left_out_where_the_teacher_saw_none(data: Embeddings) -> None:
    assert set(trajectory_rows(100, data, with_mirror_images=True)) == set(range(len(data)))
    assert set(trajectory_rows(100, data, with_mirror_images=False)) == set(range(0, len(data), 2))
    np.testing.assert_array_equal(trajectory_rows(100, data, True)[:30], trajectory_rows(30, data, True))


@pytest.mark.parametrize(
    ("file", "content"), [("trajectories.txt", b""), ("trajectories.txt", b"key"), ("trajectories.npy", None)]
)
def test_damaged_trajectories_are_named(
    checkpoint: Path, data: Embeddings, tmp_path: Path, file: str, content: bytes | None
) -> None:
    paint(checkpoint, data, tmp_path, 8)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) // 2] if content is None else content)

    with pytest.raises(LegoError, match=rf"{file} is damaged .*; remove"):
        paint(checkpoint, data, tmp_path, 8)


def test_trajectories_of_other_embeddings_are_refused(checkpoint: Path, data: Embeddings, tmp_path: Path) -> None:
    paint(checkpoint, data, tmp_path, 4)
    other = replace(data, image_embeddings=np.array(data.image_embeddings) + np.float16(1))

    with pytest.raises(LegoError, match="other embeddings or other settings"):
        paint(checkpoint, other, tmp_path, 4)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"steps": 4, "teacher_steps": 10}, "teacher_steps is 10; it must be a multiple of steps"),
        ({"steps": 9}, "steps is 9"),
        ({"rank": 0}, "rank is 0"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_settings_that_make_no_student_are_refused(values: dict[str, int], told: str) -> None:
    with pytest.raises(LegoError, match=told):
        DistillationConfig(**values)
