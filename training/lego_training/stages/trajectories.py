"""The guided teacher's own paths from noise to picture, stored at the few noise levels where a student will stop.

Painted once, with every guidance branch, and read in each epoch of `distil`: the teacher is many times dearer than the
student.
"""

from __future__ import annotations

import hashlib
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

from lego_training.conditions import conditions
from lego_training.files import read_progress, write_progress
from lego_training.processes import this_process
from lego_training.stages.embed import Embeddings

_BATCH = 8


def student_timesteps(schedule: SigmaSchedule, steps: int) -> list[int]:
    """Returns the timesteps at which a student is asked: evenly spaced, from the last trained one down."""
    train_timesteps = len(schedule)
    return [train_timesteps - 1 - round(step * train_timesteps / steps) for step in range(steps)]


def windows(schedule: SigmaSchedule, steps: int, teacher_steps: int) -> list[list[float]]:
    """Returns the teacher's sigmas within each of the student's steps, both ends included; the last ends in 0.

    The solver starts afresh in each, its first step of first order, so that no step depends on one before the stop.
    """
    stops = [*student_timesteps(schedule, steps), 0]
    inner = teacher_steps // steps
    sigmas = [schedule.sigmas_at(np.linspace(start, stop, inner + 1).tolist()) for start, stop in pairwise(stops[:-1])]
    return [*sigmas, [*schedule.sigmas_at(np.linspace(stops[-2], 0, inner).tolist()), 0.0]]


@torch.inference_mode()
def paint_trajectories(
    directory: Path, data: Embeddings, output: Path, steps: int, teacher_steps: int, rows: NDArray[np.int64]
) -> NDArray[np.float16]:
    """Lets the teacher paint, and keeps its latents at the student's stops; goes on where an interrupted call stopped.

    Args:
        directory: The checkpoint; its own guidance scales are used.
        data: Embedded pairs.
        output: Where the latents go.
        steps: Of the student, K.
        teacher_steps: Of DPM-Solver++(2M), a multiple of K.
        rows: Which samples of `data` are painted, each from its own noise; may be more than last time.

    Returns:
        (samples, K + 1, 4, r, r): noise first, the clean latent last, scaled; all of unit variance or less
        (x / sqrt(sigma^2 + 1)).

    Raises:
        LegoError: `output` is of another teacher, other embeddings or other settings, or is damaged.
    """
    device = this_process().device
    shape = data.frame_latents.shape[1:]
    samples, key = len(rows), _key(directory, data, steps, teacher_steps)
    done, latents = _open(output, key, (samples, steps + 1, *shape))
    if done < samples:
        pipeline = LegoPipeline(LegoCheckpoint.load(directory, without=("vllm", "student")).to(device))
        pipeline.checkpoint.unet.to(memory_format=torch.channels_last)
        spans = windows(pipeline.schedule, steps, teacher_steps)
        for first in track(range(done, samples, _BATCH), "painting"):
            numbers = range(first, min(first + _BATCH, samples))
            frames, context = conditions(pipeline.checkpoint, data, rows[numbers.start : numbers.stop])
            denoise = pipeline.guided_denoiser(frames, context)
            noise = np.stack([gaussian_noise(number, 0, shape) for number in numbers])
            latent = torch.from_numpy(noise).to(device) * spans[0][0]
            for stop, sigmas in enumerate(spans):
                latents[numbers.start : numbers.stop, stop] = (latent / (sigmas[0] ** 2 + 1) ** 0.5).cpu()
                latent = dpm_solver_pp_2m(denoise, latent, sigmas)
            latents[numbers.start : numbers.stop, steps] = latent.cpu()
            assert isinstance(latents, np.memmap)
            latents.flush()
            write_progress(output / "trajectories.txt", key, numbers.stop)
    return latents[:samples]


def trajectory_rows(samples: int, data: Embeddings, with_mirror_images: bool) -> NDArray[np.int64]:
    """Returns which sample each trajectory is of, (samples,): all in turn, in a mixed order; a longer list goes on."""
    rows = np.arange(len(data)) if with_mirror_images else np.arange(0, len(data), 2)  # odd ones are mirror images
    order = np.random.default_rng(0).permutation(rows)
    return order[np.arange(samples) % len(order)]


def _key(directory: Path, data: Embeddings, steps: int, teacher_steps: int) -> str:
    """Of all that a trajectory depends on; their number is none of it, so more can be painted later."""
    frozen = fingerprint(directory, parts=("unet", "conditioner", "text_encoder"))[:16]
    guidance = LegoConfig.load(directory).guidance
    seen = hashlib.sha256(np.ascontiguousarray(data.text_ids).tobytes())
    some = np.unique(np.linspace(0, len(data) - 1, 16).astype(int))  # all would be gigabytes
    for array in (data.frame_latents, data.image_embeddings, data.text_states):
        seen.update(np.ascontiguousarray(array[some]).tobytes())
    scales = f"{guidance.text_scale:g} {guidance.image_scale:g}"
    return f"{frozen} {seen.hexdigest()[:16]} {steps} of {teacher_steps} at {scales}"


def _open(output: Path, key: str, shape: tuple[int, ...]) -> tuple[int, NDArray[np.float16]]:
    """Returns how many are done, and the file's array of at least that shape."""
    output.mkdir(parents=True, exist_ok=True)
    path, marker = output / "trajectories.npy", output / "trajectories.txt"
    if not marker.is_file():
        return 0, np.lib.format.open_memmap(path, "w+", np.float16, shape)
    saved, done = read_progress(marker)
    try:
        np.load(path, mmap_mode="r")  # unlike the next line, it does not fill a cut file up with zeros
        array = np.lib.format.open_memmap(path, "r+")
    except (OSError, ValueError) as error:
        raise LegoError(f"{path} is damaged ({error}); remove {output} to distil anew") from error
    if saved != key or array.shape[1:] != shape[1:]:
        raise LegoError(f"{output} is of another teacher, other embeddings or other settings; remove it to distil anew")
    if len(array) < shape[0]:  # more are wanted than there was room for
        larger = path.with_suffix(".partial")
        grown = np.lib.format.open_memmap(larger, "w+", np.float16, shape)
        grown[:done] = array[:done]
        grown.flush()
        larger.replace(path)
        array = grown
    return done, array
