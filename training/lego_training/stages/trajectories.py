"""The guided teacher's own paths from noise to picture, stored at the few noise levels where a student will stop.

Painted once, with every guidance branch, and read in each epoch of `distil`: the teacher is many times dearer than the
student.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.noise import gaussian_noise
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.pipeline import LegoPipeline
from lego_model.sampling import SigmaSchedule, dpm_solver_pp_2m
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from lego_training.processes import this_process
from lego_training.stages.embed import Embeddings

_BATCH = 8


def student_timesteps(steps: int, train_timesteps: int = 1000) -> list[int]:
    """Returns the timesteps at which a student is asked: evenly spaced, from the last one down."""
    return [train_timesteps - 1 - round(step * train_timesteps / steps) for step in range(steps)]


def windows(schedule: SigmaSchedule, steps: int, teacher_steps: int) -> list[list[float]]:
    """Returns the teacher's sigmas within each of the student's steps, both ends included; the last ends in 0."""
    stops = [*student_timesteps(steps), 0]
    inner = teacher_steps // steps
    sigmas = [schedule.sigmas_at(np.linspace(start, stop, inner + 1).tolist()) for start, stop in pairwise(stops[:-1])]
    return [*sigmas, [*schedule.sigmas_at(np.linspace(stops[-2], 0, inner).tolist()), 0.0]]


@torch.inference_mode()
def paint_trajectories(
    directory: Path, data: Embeddings, output: Path, steps: int, teacher_steps: int, samples: int
) -> NDArray[np.float16]:
    """Lets the teacher paint, and keeps its latents at the student's stops; goes on where an interrupted call stopped.

    Args:
        directory: The checkpoint; its own guidance scales are used.
        data: Embedded pairs.
        output: Where the latents go.
        steps: Of the student, K.
        teacher_steps: Of DPM-Solver++(2M), a multiple of K.
        samples: How many pictures, more than last time if need be; rows of `data` in an order of their own, each from
            its own noise.

    Returns:
        (samples, K + 1, 4, r, r): noise first, the clean latent last, scaled; all of unit variance or less
        (x / sqrt(sigma^2 + 1)).

    Raises:
        LegoError: `output` holds trajectories of another checkpoint or other settings.
    """
    device = this_process().device
    shape = data.frame_latents.shape[1:]
    key = _key(directory, data, steps, teacher_steps)
    done, latents = _open(output, key, (samples, steps + 1, *shape))
    if done < samples:
        pipeline = LegoPipeline(LegoCheckpoint.load(directory).to(device))
        pipeline.checkpoint.unet.to(memory_format=torch.channels_last)
        spans = windows(pipeline.schedule, steps, teacher_steps)
        for first in track(range(done, samples, _BATCH), "painting"):
            numbers = range(first, min(first + _BATCH, samples))
            rows = trajectory_rows(samples, len(data))[numbers.start : numbers.stop]
            frames, context = conditions(pipeline.checkpoint, data, rows)
            denoise = pipeline.guided_denoiser(frames, context)
            noise = np.stack([gaussian_noise(number, 0, shape) for number in numbers])
            latent = torch.from_numpy(noise).to(device) * spans[0][0]
            for stop, sigmas in enumerate(spans):
                latents[numbers.start : numbers.stop, stop] = (latent / (sigmas[0] ** 2 + 1) ** 0.5).cpu()
                latent = dpm_solver_pp_2m(denoise, latent, sigmas)
            latents[numbers.start : numbers.stop, steps] = latent.cpu()
            assert isinstance(latents, np.memmap)
            latents.flush()
            _mark(output, key, numbers.stop)
    return latents[:samples]


def trajectory_rows(samples: int, rows: int) -> NDArray[np.int64]:
    """Returns which row of the embeddings each trajectory is of: all in turn, in a mixed order."""
    order = np.random.default_rng(0).permutation(rows)
    return order[np.arange(samples) % rows]


def conditions(
    checkpoint: LegoCheckpoint, data: Embeddings, rows: Sequence[int] | NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Returns frame latents (B, 4, r, r) and cross-attention contexts (B, 2N + M, C) of embedded samples."""
    device = checkpoint.unet.device
    order = np.argsort(rows)  # memory-mapped files are read fastest in their own order
    back = torch.from_numpy(np.argsort(order))
    sorted_rows = np.asarray(rows)[order]
    frame, image, states = (
        torch.from_numpy(array[sorted_rows].astype(np.float32))[back].to(device)
        for array in (data.frame_latents, data.image_embeddings, data.text_states)
    )
    ids = torch.from_numpy(data.text_ids[sorted_rows].astype(np.int64))[back].to(device)
    hidden = checkpoint.text_encoder(ids).last_hidden_state
    return frame, checkpoint.conditioner(hidden, image, states)


def _key(checkpoint: Path, data: Embeddings, steps: int, teacher_steps: int) -> str:
    """Of all that a trajectory depends on; their number is none of it, so more can be painted later."""
    frozen = fingerprint(checkpoint, parts=("unet", "conditioner", "text_encoder"))[:16]
    guidance = LegoConfig.load(checkpoint).guidance
    texts = hashlib.sha256(np.ascontiguousarray(data.text_ids).tobytes()).hexdigest()[:16]
    return f"{frozen} {texts} {steps} of {teacher_steps} at {guidance.text_scale:g} {guidance.image_scale:g}"


def _open(output: Path, key: str, shape: tuple[int, ...]) -> tuple[int, NDArray[np.float16]]:
    """Returns how many are done, and the file's array of at least that shape."""
    output.mkdir(parents=True, exist_ok=True)
    path, marker = output / "trajectories.npy", output / "trajectories.txt"
    if not marker.is_file():
        return 0, np.lib.format.open_memmap(path, "w+", np.float16, shape)
    saved, done = marker.read_text().splitlines()
    array = np.lib.format.open_memmap(path, "r+")
    if saved != key or array.shape[1:] != shape[1:]:
        raise LegoError(f"{output} is of another teacher or of other settings; remove the folder to distil anew")
    if len(array) < shape[0]:  # more are wanted than there was room for
        larger = path.with_suffix(".partial")
        grown = np.lib.format.open_memmap(larger, "w+", np.float16, shape)
        grown[: int(done)] = array[: int(done)]
        grown.flush()
        larger.replace(path)
        array = grown
    return int(done), array


def _mark(output: Path, key: str, done: int) -> None:
    partial = output / "trajectories.partial.txt"
    partial.write_text(f"{key}\n{done}\n")
    partial.replace(output / "trajectories.txt")
