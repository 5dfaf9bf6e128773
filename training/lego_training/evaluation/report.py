"""A toy-kitchen evaluation as numbers, a table and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from lego_training.evaluation.metrics.scores import MeanScore, wilson
from lego_training.evaluation.toy import SceneResult
from lego_training.toy_kitchen.language import ACTIONS, SIDES, VEGETABLES

# Before pyplot is imported: an evaluation machine has no screen.
mpl.use("Agg")
import matplotlib.pyplot as plt


def summary(results: list[SceneResult]) -> dict[str, Any]:
    """Returns the figures of all scenes and of each action; fractions in 0 to 1, PSNR in decibels.

    Each is over `scenes`, but for wrong_object_rate, which is over `scenes_with_another`: those that have another
    object to act on by mistake.
    """
    names = [action_name(result.action) for result in results]
    return {
        **_figures(results),
        "per_action": {
            action.name: _figures(_of_action(results, action.name)) for action in ACTIONS if action.name in names
        },
    }


def _of_action(results: list[SceneResult], name: str) -> list[SceneResult]:
    return [result for result in results if action_name(result.action) == name]


def _figures(results: list[SceneResult]) -> dict[str, float | None]:
    return {
        "scenes": len(results),
        "scenes_with_another": sum(result.other_objects for result in results),
        **{
            name: _in_unit(name, float(np.mean(values))) if len(values) else None
            for name, values in _columns(results).items()
        },
    }


def intervals(results: list[SceneResult], resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Returns the 95 % interval of each figure of `summary`, in the figure's unit.

    Those of shares are Wilson's; those of decibels are by bootstrap over scenes, for which one scene is too few.
    """
    found = {}
    for name, values in _columns(results).items():
        if not name.endswith("_db"):
            if len(values):
                found[name] = wilson(int(values.sum()), len(values))
        elif len(values) > 1:
            ends = MeanScore(("",) * len(values), values).interval(resamples, seed)
            low, high = sorted(_in_unit(name, each) for each in ends)  # few errors are many decibels
            found[name] = low, high
    return found


def _columns(results: list[SceneResult]) -> dict[str, NDArray[np.float64]]:
    """The scenes' own values, whose means the figures are."""
    columns = {
        name: [getattr(result, attribute) for result in results]
        for name, attribute in (
            ("description_slots", "slots"), ("hand", "hand"), ("verb", "verb"), ("object", "object"),
            ("side", "side"), ("action_success", "success"), ("outside_psnr_db", "outside_psnr_db"),
            ("inside_target_psnr_db", "inside_target_mse"),
        )
    }  # fmt: skip
    for outcome in ("right", "nothing", "wrong hand"):
        columns[f"{outcome.replace(' ', '_')}_rate"] = [result.outcome == outcome for result in results]
    # Where there is no other thing to act on, none can be acted on by mistake.
    columns["wrong_object_rate"] = [result.outcome == "wrong object" for result in results if result.other_objects]
    return {name: np.array(values, np.float64) for name, values in columns.items()}


def _in_unit(name: str, mean: float) -> float:
    return float(-10 * np.log10(max(mean, 1e-10))) if name == "inside_target_psnr_db" else mean


def action_name(label: str) -> str:
    """The action of a label, whatever its side or vegetable: "cut left carrot" gives "cut vegetable"."""
    words = (word for word in label.split() if word not in SIDES)
    return " ".join("vegetable" if word in VEGETABLES else word for word in words)


def table(figures: dict[str, Any]) -> Table:
    """Returns the figures as a table for the screen."""
    shown = Table(title=f"Toy kitchen, {figures['scenes']} unseen scenes")
    for column in (
        "action", "scenes", "slots", "hand", "side", "success", "wrong hand", "wrong object, of",
        "outside PSNR", "inside PSNR",
    ):  # fmt: skip
        shown.add_column(column, justify="left" if column == "action" else "right")
    for name, row in [*figures["per_action"].items(), ("all", figures)]:
        shown.add_row(
            name, str(row["scenes"]),
            *(f"{row[key]:.2f}" for key in ("description_slots", "hand", "side", "action_success", "wrong_hand_rate")),
            "" if row["wrong_object_rate"] is None
            else f"{row['wrong_object_rate']:.2f}, {row['scenes_with_another']}",
            *(f"{row[key]:.1f} dB" for key in ("outside_psnr_db", "inside_target_psnr_db")),
            style="bold" if name == "all" else None,
        )  # fmt: skip
    return shown


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draws description slots and action success of each action."""
    names = list(figures["per_action"])
    rows = [figures["per_action"][name] for name in names]
    position = np.arange(len(names))
    figure, axis = plt.subplots(figsize=(10, 4))
    axis.bar(position - 0.2, [row["description_slots"] for row in rows], 0.4, label="description slots")
    axis.bar(position + 0.2, [row["action_success"] for row in rows], 0.4, label="action success")
    axis.axhline(figures["description_slots"], color="C0", linestyle=":", linewidth=1)
    axis.axhline(figures["action_success"], color="C1", linestyle=":", linewidth=1)
    axis.set(ylim=(0, 1.05), ylabel="share of scenes", xticks=position)
    axis.set_xticklabels(names, rotation=40, ha="right")
    axis.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(figures: dict[str, Any], path: Path) -> None:
    """Writes the figures as JSON and their plot beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    plot(figures, path.with_suffix(".png"))
