"""How near a distilled student comes to its guided teacher, and what the teacher does with as few evaluations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from lego_core.branches import STUDENT_BRANCH, branch_weights
from lego_core.errors import LegoError
from lego_model.pipeline import LegoPipeline
from numpy.typing import NDArray
from rich.progress import Progress
from rich.table import Table

from lego_training.evaluation.toy import FIRST_SEED, answer, judge
from lego_training.toy_kitchen.pair import make_pair

mpl.use("Agg")
import matplotlib.pyplot as plt

_BATCH = 8
_COLUMNS = {
    "unet_evaluations": ("U-Net evaluations", "{:d}"),
    "action_success": ("action success", "{:.3f}"),
    "outside_psnr_db": ("outside PSNR, dB", "{:.1f}"),
    "teacher_psnr_db": ("PSNR to the longest teacher, dB", "{:.1f}"),
}


def compare(checkpoint: Path, scenes: int, teacher_steps: Sequence[int]) -> dict[str, Any]:
    """Paints unseen scenes with the student and with its teacher, from the same noise.

    Args:
        checkpoint: Directory.
        scenes: How many.
        teacher_steps: Of the teacher's DPM-Solver++(2M); the largest is what all are compared with.

    Returns:
        For each way of sampling: U-Net evaluations of a picture, action success, outside PSNR, and the mean PSNR of its
        pictures to those of the longest teacher.

    Raises:
        LegoError: The model has no student.
    """
    pipe = LegoPipeline.from_pretrained(checkpoint)
    lego = pipe.config
    if lego.student is None:
        raise LegoError(f"{checkpoint} has no student; make one with lego-train distil")
    guidance = lego.guidance
    branches = len(branch_weights(guidance.text_scale, guidance.image_scale))
    ways: dict[str, tuple[dict[str, Any], int]] = {
        # The sampler whose paths the student learnt: it adds no noise on the way.
        f"guided, {steps} steps": ({"steps": steps, "sampler": "dpm_solver_pp"}, branches * steps)
        for steps in sorted(teacher_steps, reverse=True)
    }
    longest = next(iter(ways))
    student_steps = len(lego.student.timesteps)
    ways[f"student, {student_steps} steps"] = ({"sampler": "distilled"}, len(STUDENT_BRANCH) * student_steps)
    judged: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in ways}
    with Progress() as progress:
        task = progress.add_task("comparing", total=scenes * len(ways))
        for first in range(0, scenes, _BATCH):
            pairs = [make_pair(FIRST_SEED + index, "val") for index in range(first, min(first + _BATCH, scenes))]
            reference: list[NDArray[np.uint8]] = []
            for name, (options, _) in ways.items():
                outputs, descriptions = answer(pipe, pairs, **options)
                if name == longest:
                    reference = outputs
                for pair, output, theirs, description in zip(pairs, outputs, reference, descriptions, strict=True):
                    result = judge(pair, output, description)
                    judged[name].append((result.success, result.outside_psnr_db, _psnr(output, theirs)))
                progress.update(task, advance=len(pairs))
    rows = {}
    for name, (_, evaluations) in ways.items():
        success, outside, near = (float(np.mean(column)) for column in zip(*judged[name], strict=True))
        rows[name] = {
            "unet_evaluations": evaluations, "action_success": success, "outside_psnr_db": outside,
            "teacher_psnr_db": None if name == longest else near,
        }  # fmt: skip
    return {"scenes": scenes, "compared_with": longest, "ways": rows}


def table(figures: dict[str, Any]) -> Table:
    """Returns the figures as a table for the screen."""
    shown = Table(title=f"{figures['scenes']} unseen scenes, the same noise for all")
    shown.add_column("sampling")
    for title, _ in _COLUMNS.values():
        shown.add_column(title, justify="right")
    for name, row in figures["ways"].items():
        cells = ("" if row[key] is None else shape.format(row[key]) for key, (_, shape) in _COLUMNS.items())
        shown.add_row(name, *cells)
    return shown


def write(figures: dict[str, Any], path: Path) -> None:
    """Writes the figures as JSON, and their plot beside it."""
    path.write_text(json.dumps(figures, indent=2) + "\n")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
    for axis, key in zip(axes, ("action_success", "teacher_psnr_db"), strict=True):
        for name, row in figures["ways"].items():
            if row[key] is not None:
                color = "C1" if name.startswith("student") else "C0"
                axis.plot(row["unet_evaluations"], row[key], "o", color=color)
                axis.annotate(name, (row["unet_evaluations"], row[key]), (5, 4), textcoords="offset points", fontsize=8)
        axis.set(xscale="log", xlabel="U-Net evaluations a picture", ylabel=_COLUMNS[key][0])
        axis.margins(0.25)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


def _psnr(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    error = np.square(found.astype(np.float64) - wanted).mean() / 255**2
    return float(-10 * np.log10(max(error, 1e-10)))
