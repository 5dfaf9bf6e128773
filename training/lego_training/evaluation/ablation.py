"""The paper's ablation (tables 3 and 4) on the toy kitchen: what each block of the context and a tuned VLLM is worth.

Every cell of the table is a model of its own: the same frozen autoencoder and VLLM, a new U-Net with its conditioner
and text encoder, the same number of steps on the same pairs. A finished cell is kept, so a stopped ablation goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from lego_core.config import Conditioning
from lego_core.errors import LegoError
from lego_model.checkpoint import fingerprint

from lego_training.baselines import new_diffusion_model
from lego_training.config import RunConfig
from lego_training.dataset import Record
from lego_training.evaluation import report
from lego_training.evaluation.toy import evaluate_scenes
from lego_training.files import check_settings, read_json, write_json
from lego_training.stages.diffusion import tune_diffusion
from lego_training.stages.embed import embed

mpl.use("Agg")
import matplotlib.pyplot as plt

FIGURES = {
    "action_success": "action success",
    "inside_target_psnr_db": "inside PSNR, dB",
    "outside_psnr_db": "outside PSNR, dB",
}


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        title: As in the paper.
        conditioning: What the U-Net reads.
        tuned: Whether the VLLM is the tuned one.
    """

    title: str
    conditioning: Conditioning
    tuned: bool = True


ROWS = (
    Row("action label", "label"),
    Row("description", "description"),
    Row("description + image embeddings", "description_image"),
    Row("description + text embeddings", "description_text"),
    Row("joint, VLLM not tuned", "joint", tuned=False),
    Row("joint (LEGO)", "joint"),
)


def ablate(
    tuned: Path, untuned: Path, records: list[Record], run_config: RunConfig, output: Path, seeds: int, scenes: int
) -> dict[str, Any]:
    """Trains and judges every row with every seed, and writes `ablation.json`, `.md` and `.png`.

    Args:
        tuned: A checkpoint with the tuned VLLM.
        untuned: One with the VLLM before tuning, and the same autoencoder.
        records: Training pairs with descriptions.
        run_config: Its architecture says how large the new U-Nets are, `tune_diffusion` how they are trained.
        output: Where everything is kept.
        seeds: Models of each row.
        scenes: Unseen scenes each is judged on.

    Returns:
        What was written.

    Raises:
        LegoError: `output` holds cells of other settings, or the two checkpoints are of different models.
    """
    if fingerprint(tuned, ("vae", "tokenizer")) != fingerprint(untuned, ("vae", "tokenizer")):
        raise LegoError(f"{tuned} and {untuned} differ in more than their VLLM; give the same model before and after")
    settings = {
        "tuned": fingerprint(tuned, ("vae", "vllm", "tokenizer"))[:16], "untuned": fingerprint(untuned, ("vllm",))[:16],
        "architecture": run_config.architecture, "loop": asdict(run_config.tune_diffusion),
        "diffusion": asdict(run_config.diffusion), "pairs": len(records), "scenes": scenes,
    }  # fmt: skip
    check_settings(output / "settings.json", settings, "an ablation")
    cells: dict[str, list[dict[str, float]]] = {row.title: [] for row in ROWS}
    for seed in range(seeds):  # a whole table early, then more seeds
        for row in ROWS:
            base = tuned if row.tuned else untuned
            name = f"{row.conditioning}{'' if row.tuned else '-untuned'}-{seed}"
            embeddings = output / f"embeddings-{'tuned' if row.tuned else 'untuned'}"
            cells[row.title].append(_cell(row, seed, base, records, run_config, output / name, embeddings, scenes))
    figures = {**settings, "seeds": seeds, "rows": dict(_summaries(cells))}
    write(figures, output / "ablation.json")
    return figures


def _cell(
    row: Row, seed: int, base: Path, records: list[Record], run_config: RunConfig, folder: Path, embeddings: Path,
    scenes: int,
) -> dict[str, float]:  # fmt: skip
    result = folder / "figures.json"
    if result.is_file():
        found: dict[str, float] = read_json(result)
        return found
    checkpoint = folder / "checkpoint"
    if not (checkpoint / "lego.json").is_file():
        new_diffusion_model(base, run_config.architecture, seed).save(checkpoint)
    data = embed(checkpoint, records, embeddings, None, run_config.diffusion.flip)
    diffusion = replace(run_config.diffusion, conditioning=row.conditioning)
    tune_diffusion(checkpoint, data, replace(run_config.tune_diffusion, seed=seed), diffusion, folder / "run")
    judged = report.summary(evaluate_scenes(checkpoint, scenes, folder / "scenes.jsonl"))
    figures = {name: float(judged[name]) for name in (*FIGURES, "description_slots")}
    write_json(result, figures)
    return figures


def _summaries(cells: dict[str, list[dict[str, float]]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for title, runs in cells.items():
        yield (
            title,
            {
                name: {"mean": float(np.mean(values)), "std": float(np.std(values)), "seeds": values}
                for name in (*FIGURES, "description_slots")
                for values in [[run[name] for run in runs]]
            },
        )


def write(figures: dict[str, Any], path: Path) -> None:
    """Writes the table as JSON and Markdown, and its plot."""
    write_json(path, figures)
    path.with_suffix(".md").write_text(table(figures))
    _plot(figures, path.with_suffix(".png"))


def table(figures: dict[str, Any]) -> str:
    """Returns the table in Markdown: mean and standard deviation over the seeds."""
    lines = [f"| conditioning | {' | '.join(FIGURES.values())} |", f"| --- |{' ---: |' * len(FIGURES)}"]
    for title, row in figures["rows"].items():
        values = [
            f"{row[name]['mean']:.3f} ± {row[name]['std']:.3f}" if name == "action_success"
            else f"{row[name]['mean']:.1f} ± {row[name]['std']:.1f}" for name in FIGURES
        ]  # fmt: skip
        lines.append(f"| {title} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def _plot(figures: dict[str, Any], path: Path) -> None:
    titles = list(figures["rows"])
    figure, axes = plt.subplots(1, len(FIGURES), figsize=(11, 3.2), sharey=True)
    for axis, (name, label) in zip(axes, FIGURES.items(), strict=True):
        for place, title in enumerate(titles):
            row = figures["rows"][title][name]
            axis.errorbar(row["mean"], place, xerr=row["std"], fmt="o", color="C0", capsize=3)
            axis.plot(row["seeds"], [place] * len(row["seeds"]), ".", color="grey", markersize=4)
        axis.set(xlabel=label, yticks=range(len(titles)))
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticklabels(titles)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
