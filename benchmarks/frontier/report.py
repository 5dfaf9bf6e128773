"""Figures as a Markdown table and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from lego_training.evaluation.metrics.scores import wilson

from benchmarks.frontier.measure import Figures
from benchmarks.frontier.sides import STAGES, TITLES, TORCH_SIDES

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_COLUMNS = (
    "side", "sampling", "description", "guidance frame", "whole query", "times as fast", "PSNR to the first row",
    "PSNR to other sides", "same words", "action success (95 %)", "description slots", "PSNR inside", "PSNR outside",
)  # fmt: skip
_MEANS = {"slots": ".1%", "inside_psnr_db": ".1f", "outside_psnr_db": ".1f"}


def summarise(figures: Figures) -> list[dict[str, Any]]:
    """Returns a row for each side and sampling.

    Of the stages and of `times_as_fast` (the first side's first sampling over this, query by query) there are median
    and quartiles. `psnr_db` and `parity_db` are the least of the rounds, null if all pictures are equal. `success`
    comes with its 95 % interval, the means of `_MEANS` and `judged_on`, where scenes were judged.
    """
    settings, rows = figures.settings, []
    first = [next(iter(settings["sides"])), next(iter(settings["samplings"]))]
    for side in settings["sides"]:
        for sampling in settings["samplings"]:
            answers = [each["answers"][side].get(sampling) for each in figures.rounds]
            if None in answers or not answers:
                continue
            base = [each["answers"][first[0]][first[1]]["whole"] for each in figures.rounds]
            seconds = {stage: [each[stage] for each in answers] for stage in STAGES}
            rows.append({
                "side": side, "sampling": sampling,
                **{stage: _quartiles(values) for stage, values in seconds.items()},
                "times_as_fast": _quartiles(np.divide(base, seconds["whole"])),
                **{key: _least([each[key] for each in answers]) for key in ("psnr_db", "parity_db")},
                "same_words": float(np.mean([each["same_words"] for each in answers])),
                **_quality(figures, side, sampling),
            })  # fmt: skip
    return rows


def pareto(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the judged rows that none is both as fast and as good as, from the fastest on."""
    best: list[dict[str, Any]] = []
    for row in sorted((each for each in rows if "success" in each), key=lambda r: (r["whole"][1], -r["success"])):
        if not best or row["success"] > best[-1]["success"]:
            best.append(row)
    return best


def markdown(figures: Figures, rows: list[dict[str, Any]]) -> str:
    """Returns the table."""
    frontier, compared = pareto(rows), set[tuple[bool, str]]()
    lines = [
        f"| {' | '.join(_COLUMNS)} |",
        "| --- " * len(_COLUMNS) + "|",
    ]
    for row in rows:
        stages = [f"{row[stage][1]:.3f} s" for stage in STAGES[:2]]
        whole, fast = (f"{row[key][1]:{form}} ({row[key][0]:{form}} to {row[key][2]:{form}})" for key, form in _SPREAD)
        near = ["equal" if row[key] is None else f"{row[key]:.1f} dB" for key in ("psnr_db", "parity_db")]
        if (twins := _twins(figures, row)) not in compared:
            compared.add(twins)
            near[1] = "reference"
        quality = [""] * 4
        if "success" in row:
            low, high = row["success_interval"]
            quality = [
                f"{row['success']:.1%} ({low:.1%} to {high:.1%})",
                *(f"{row[key]:{form}}" for key, form in _MEANS.items()),
            ]
        name = f"**{row['sampling']}**" if row in frontier else row["sampling"]
        cells = [TITLES[row["side"]], name, *stages, whole, fast, *near, f"{row['same_words']:.0%}", *quality]
        lines.append(f"| {' | '.join(cells)} |")
    settings, others = figures.settings, max((each["others"] for each in figures.rounds), default=0)
    judges = " and ".join(TITLES[each] for each in figures.judges) or "nothing yet"
    lines += [
        "",
        f"{Path(settings['model']).name}, {settings['threads']} threads; medians and quartiles of "
        f"{len(figures.rounds)} queries, in seconds; {len(figures.scenes)} scenes judged, on {judges}. In bold: no "
        f"other row is both faster and better. Other processes took {others:.0%} of the processor at the most.",
    ]
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws action success over the seconds of a query, a colour for each side, and the Pareto line."""
    figure, axis = plt.subplots(figsize=(9, 5))
    judged = [row for row in rows if "success" in row]
    for number, side in enumerate(dict.fromkeys(row["side"] for row in judged)):
        mine = [row for row in judged if row["side"] == side]
        seconds, success = ([row[key] for row in mine] for key in ("whole", "success"))
        axis.errorbar(
            [each[1] for each in seconds], success,
            xerr=np.transpose([(each[1] - each[0], each[2] - each[1]) for each in seconds]),
            fmt="s" if side in TORCH_SIDES else "o", markersize=5, elinewidth=0.8, color=f"C{number}",
            label=TITLES[side],
        )  # fmt: skip
    frontier = pareto(rows)
    axis.plot([row["whole"][1] for row in frontier], [row["success"] for row in frontier], color="grey", zorder=0)
    _name_samplings(axis, judged)
    if judged:
        low = min(row["success_interval"][0] for row in judged)
        axis.set(xscale="log", ylim=(max(0.0, low - 0.25), 1.02))
        for each in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            each(lambda seconds, _: f"{seconds:g}" if f"{seconds:g}".strip("0.")[:1] in ("1", "2", "5") else "")
        axis.legend(fontsize=7, loc="lower left")
    axis.set(xlabel="seconds from frame and question to guidance frame, median and quartiles", ylabel="action success")
    axis.margins(x=0.15)
    axis.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _name_samplings(axis: Axes, rows: list[dict[str, Any]]) -> None:
    """Names each sampling where it is fastest; names that would lie on each other are moved to the right."""
    if not rows:
        return
    named: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["whole"][1]):
        named.setdefault(row["sampling"], row)
    gap = (max(each["whole"][1] for each in rows) / min(each["whole"][1] for each in rows)) ** 0.03
    place = 0.0
    for name, row in named.items():
        seconds = row["whole"][1]
        place = max(seconds, place * gap)
        axis.annotate(
            name, (seconds, row["success"]), (place, row["success"] - _BELOW), fontsize=7, rotation=-50,
            ha="left", va="top", rotation_mode="anchor",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "grey", "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


_BELOW = 0.02  # of action success
_SPREAD = (("whole", ".3f"), ("times_as_fast", ".2f"))


def _twins(figures: Figures, row: dict[str, Any]) -> tuple[bool, str]:
    """Returns a key that rows share if their pictures are compared with each other, as `run_rounds` does."""
    return row["side"] in TORCH_SIDES or row["sampling"] == next(iter(figures.settings["samplings"])), row["sampling"]


def _quality(figures: Figures, side: str, sampling: str) -> dict[str, Any]:
    """What pictures by a sampling are worth: as judged on a side of the same kind, or on the one there is."""
    alike = [each for each in figures.judges if (each in TORCH_SIDES) == (side in TORCH_SIDES)]
    for judge in (*alike, *figures.judges):
        found = [each["judged"][judge][sampling] for each in figures.scenes if sampling in each["judged"][judge]]
        if not found:
            continue
        right = sum(each["success"] for each in found)
        return {
            "success": right / len(found), "success_interval": wilson(right, len(found)),
            **{key: float(np.mean([each[key] for each in found])) for key in _MEANS}, "judged_on": judge,
        }  # fmt: skip
    return {}


def _quartiles(values: Any) -> list[float]:
    return [round(float(each), 4) for each in np.percentile(values, (25, 50, 75))]


def _least(decibels: list[float | None]) -> float | None:
    return min((each for each in decibels if each is not None), default=None)
