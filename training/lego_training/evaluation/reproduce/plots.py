"""A comparison as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib as mpl
import numpy as np

from lego_training.evaluation.metrics.measure import METRICS
from lego_training.evaluation.metrics.metric import MODES
from lego_training.evaluation.reproduce.comparisons import METHODS, paper_value
from lego_training.evaluation.reproduce.run import MethodFigures, Reproduction

mpl.use("Agg")
import matplotlib.pyplot as plt


def plot_methods(found: Reproduction, path: Path) -> bool:
    """Draws each metric of each method in both modes with its interval, beside the paper's number.

    Returns:
        Whether there was anything to draw.
    """
    # The target is as good as can be, and would leave no room for the others; where the paper has it, it counts.
    methods = [
        each for each in found.methods
        if each.figures is not None and (each.name != "target" or found.table == "table6")
    ]  # fmt: skip
    names = [name for name in found.metrics if any(_has_value(method, name) for method in methods)]
    if not names:
        return False
    figure, axes = _panels(len(names), [METHODS[each.name].title for each in methods])
    for axis, name in zip(axes, names, strict=True):
        for place, method in enumerate(methods):
            assert method.figures is not None
            for shift, mode, colour in ((-0.12, MODES[0], "C0"), (0.12, MODES[1], "C1")):
                result = method.figures.find(name, mode)
                if result is None or result.value is None or not np.isfinite(result.value):
                    continue
                error = None
                if result.low is not None and result.high is not None:
                    error = [[max(0.0, result.value - result.low)], [max(0.0, result.high - result.value)]]
                axis.errorbar(result.value, place + shift, xerr=error, fmt="o", color=colour, markersize=4, capsize=2)
            paper = paper_value(found.dataset, method.name, name)
            if paper is not None:
                axis.plot(paper, place, "x", color="black")
        metric = METRICS[name]
        better = "higher is better" if metric.better == "higher" else "lower is better"
        axis.set(title=metric.title, xlabel=f"{metric.unit} ({better})".strip())
    marks = [plt.Line2D([], [], marker=mark, color=colour, linestyle="") for mark, colour in
             (("o", "C0"), ("o", "C1"), ("x", "black"))]  # fmt: skip
    figure.legend(marks, ["as published", "corrected", "paper"], loc="lower right", ncols=3)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    _save(figure, path)
    return True


def plot_truth(found: Reproduction, titles: Mapping[str, str], path: Path) -> None:
    """Draws what the renderer says of each method, with intervals.

    Args:
        found: The comparison.
        titles: Of the figures that are drawn.
        path: The picture's file.
    """
    methods = [(each, each.truth) for each in found.methods if each.truth is not None]
    figure, axes = _panels(len(titles), [METHODS[each.name].title for each, _ in methods])
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.set_title(fill(title, 28))
        for place, (method, truth) in enumerate(methods):
            value, ends = truth.figures.get(name), truth.intervals.get(name)
            # The target is outside what there is to compare: it would leave no room for the others' decibels.
            if value is None or (method.name == "target" and name.endswith("_db")):
                continue
            error = None if ends is None else [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]
            axis.errorbar(value, place, xerr=error, fmt="o", color="C0", markersize=4, capsize=2)
    figure.tight_layout()
    _save(figure, path)


def _panels(count: int, names: Sequence[str]) -> tuple[plt.Figure, list[plt.Axes]]:
    """Returns a figure with so many panels, each with a line for every name."""
    columns = min(4 if count > 6 else 3, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.6 + 3.2 * columns, 0.9 + rows * (0.8 + 0.35 * len(names))), squeeze=False, sharey=True
    )  # fmt: skip
    for axis in axes.flat[count:]:
        axis.axis("off")
    for axis in axes.flat[:count]:
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    axes[0, 0].set_yticklabels(names)
    return figure, list(axes.flat[:count])


def _has_value(method: MethodFigures, metric: str) -> bool:
    results = [] if method.figures is None else [method.figures.find(metric, mode) for mode in MODES]
    return any(each is not None and each.value is not None and np.isfinite(each.value) for each in results)


def plot_bins(found: Reproduction, path: Path) -> None:
    """Draws each metric over the time bins, a line for each method, as figure 10 of the paper."""
    methods = [each for each in found.methods if each.bins]
    columns = min(3, len(found.metrics))
    rows = -(-len(found.metrics) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(found.metrics) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, found.metrics, strict=False):
        for number, method in enumerate(methods):
            values = [
                next((each.value for each in results if (each.metric, each.mode) == (name, MODES[0])), None)
                for _, results in method.bins
            ]
            shown = [np.nan if value is None or not np.isfinite(value) else value for value in values]
            axis.plot(range(len(shown)), shown, "o-", color=f"C{number}", label=METHODS[method.name].title)
        titles = [each.title for each, _ in methods[0].bins]
        axis.set(title=f"{METRICS[name].title}, as published", xticks=range(len(titles)), ylabel=METRICS[name].unit)
        axis.set_xticklabels(titles, rotation=20, fontsize=8)
        axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize=8)
    figure.tight_layout()
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
