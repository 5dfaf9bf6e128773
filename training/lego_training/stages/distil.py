"""Distillation: a student that paints in one to eight steps, both guidance scales folded in.

The teacher's guided path from noise to picture is deterministic, so each of the student's steps has one right answer:
where the teacher stands at the next stop. The student learns that jump by regression, one U-Net evaluation for what
costs the teacher three branches of several steps: Luhman and Luhman 2021 (arXiv:2101.02388) for the regression on
stored paths, Meng et al. 2023 (arXiv:2210.03142) for folding guidance into a student, Yan et al. 2024
(arXiv:2405.07510) for cutting the path into windows. Only a low-rank change of the U-Net is trained, as in LCM-LoRA
(arXiv:2311.05556): a student of Stable Diffusion's size takes 135 MB beside its teacher at rank 64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lego_core.config import LegoConfig, StudentConfig, number_in_range, whole_number_in_range
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint
from lego_model.sampling import SigmaSchedule
from lego_model.student import STUDENT, add_student, save_student
from torch import Tensor

from lego_training.batch import Batch
from lego_training.conditions import conditions
from lego_training.loop import LoopConfig, train
from lego_training.processes import this_process
from lego_training.stages.diffusion import change
from lego_training.stages.embed import Embeddings
from lego_training.stages.trajectories import paint_trajectories, student_timesteps, trajectory_rows


@dataclass(frozen=True)
class DistillationConfig:
    """What the student is to be.

    Attributes:
        steps: U-Net evaluations of a picture, 1 to 8.
        teacher_steps: Of the teacher's sampler; a multiple of `steps`.
        samples: Pictures the teacher paints to learn from.
        rank: Of the change of each weight.
        change_weight: As in `DiffusionConfig`.
    """

    steps: int = 4
    teacher_steps: int = 12
    samples: int = 20000
    rank: int = 64
    change_weight: float = 0.0

    def __post_init__(self) -> None:
        whole_number_in_range("steps", self.steps, 1, 8)
        whole_number_in_range("teacher_steps", self.teacher_steps, self.steps, 1000)
        if self.teacher_steps % self.steps:
            raise LegoError(f"teacher_steps is {self.teacher_steps}; it must be a multiple of steps ({self.steps})")
        whole_number_in_range("samples", self.samples, 1, 10**8)
        whole_number_in_range("rank", self.rank, 1, 4096)
        number_in_range("change_weight", self.change_weight, 0, 1e3)


def distil(
    directory: Path, data: Embeddings, config: LoopConfig, distillation: DistillationConfig, run: Path,
    with_mirror_images: bool = True,
) -> None:  # fmt: skip
    """Paints the teacher's trajectories, trains the student on them, and adds it to the checkpoint.

    Args:
        directory: The checkpoint.
        data: Embedded samples.
        config: How the student is trained.
        distillation: What it is to be.
        run: A folder of its own for trajectories, state and losses.
        with_mirror_images: Whether the teacher was tuned on mirror images too.

    Raises:
        LegoError: `run` is of another teacher or of other settings.
    """
    steps, samples = distillation.steps, distillation.samples
    rows = trajectory_rows(samples, data, with_mirror_images)
    with this_process().main_process_first():  # the others find them done
        paths = paint_trajectories(directory, data, run, steps, distillation.teacher_steps, rows)
    checkpoint = LegoCheckpoint.load(directory, without=("vllm", "student"))
    for part in (checkpoint.unet, checkpoint.conditioner, checkpoint.text_encoder):
        part.requires_grad_(False).to(this_process().device)
    torch.manual_seed(config.seed)
    student = add_student(checkpoint.unet, distillation.rank).to(memory_format=torch.channels_last)
    checkpoint.unet = student
    jumps = Jumps(SigmaSchedule(checkpoint.scheduler), steps, checkpoint.scheduler.config.prediction_type)
    scale = checkpoint.vae.config.scaling_factor

    def loss_of(batch: Batch) -> tuple[Tensor, Tensor]:
        numbers, stops = np.divmod(batch.indices(samples * steps), steps)
        device = student.device
        noisy, wanted, clean = (
            torch.from_numpy(paths[numbers, columns].astype(np.float32)).to(device)
            for columns in (stops, stops + 1, np.full_like(stops, steps))
        )
        with torch.no_grad():
            frame, context = conditions(checkpoint, data, rows[numbers])
        timesteps = torch.tensor([jumps.timesteps[stop] for stop in stops], device=device)
        inputs = torch.cat([noisy, frame], dim=1).contiguous(memory_format=torch.channels_last)
        prediction = student(inputs, timesteps, context).sample.float()
        error = jumps.error(prediction, noisy, wanted, stops).square()
        weight = 1 + distillation.change_weight * change(frame, clean / scale, scale)
        return (weight * error).mean(dim=(1, 2, 3)).sum(), weight.mean(dim=(1, 2, 3)).sum()

    def name_of(batch: Batch) -> list[str]:
        return [data.names[rows[number]] for number in batch.indices(samples * steps) // steps]

    def save_result() -> None:
        save_student(student, directory / STUDENT, torch.float16)
        lego = LegoConfig.load(directory)
        guidance = lego.guidance
        made = StudentConfig(tuple(jumps.timesteps), guidance.text_scale, guidance.image_scale)
        replace(lego, student=made).save(directory)

    train("distil", {"student": student}, loss_of, config, run, save_result, name_of)


class Jumps:
    """The student's steps: what its prediction says about the next stop, and how far that is from the teacher's.

    Args:
        schedule: The noise levels of the model.
        steps: K.
        prediction_type: What the U-Net predicts, "epsilon" or "v_prediction".
    """

    def __init__(self, schedule: SigmaSchedule, steps: int, prediction_type: str) -> None:
        self.timesteps = student_timesteps(schedule, steps)
        self._sigmas = [*schedule.sigmas_at(self.timesteps), 0.0]
        self._predicts_velocity = prediction_type == "v_prediction"

    def error(self, prediction: Tensor, noisy: Tensor, wanted: Tensor, stops: np.ndarray) -> Tensor:
        """Compares a jump with the teacher's.

        Args:
            prediction: Of the student, (B, 4, r, r).
            noisy: Where it starts, of unit variance.
            wanted: Where the teacher stands at the next stop, of unit variance.
            stops: Which stop each starts from, (B,).

        Returns:
            The error in units of the velocity, which weighs every jump alike, (B, 4, r, r).
        """
        signal, noise, next_signal, next_noise = (
            torch.tensor(column, dtype=torch.float32, device=noisy.device)[:, None, None, None]
            for column in zip(*(self._levels(stop) for stop in stops), strict=True)
        )
        if self._predicts_velocity:
            clean, unit_noise = signal * noisy - noise * prediction, noise * noisy + signal * prediction
        else:
            clean, unit_noise = (noisy - noise * prediction) / signal, prediction
        # The sine of the angle that the jump turns by (v is the derivative by that angle).
        turn = noise * next_signal - signal * next_noise
        return (next_signal * clean + next_noise * unit_noise - wanted) / turn

    def _levels(self, stop: int) -> tuple[float, float, float, float]:
        sigma, next_sigma = self._sigmas[stop : stop + 2]
        signal, next_signal = (sigma**2 + 1) ** -0.5, (next_sigma**2 + 1) ** -0.5
        return signal, sigma * signal, next_signal, next_sigma * next_signal
