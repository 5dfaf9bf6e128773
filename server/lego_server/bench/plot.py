"""The latencies of a measurement as a picture; the only module here that needs matplotlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lego_core.errors import LegoError

from lego_server.bench.load import Measurement
from lego_server.bench.report import latencies

_LINES = {"first token": "tab:green", "first preview": "tab:orange", "result": "tab:blue"}


def require_matplotlib() -> None:
    """Checks that plots can be drawn, before a load has run for nothing.

    Raises:
        LegoError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise LegoError(
            "the latency plot needs matplotlib: pip install 'lego-ar[bench]', or leave it out with --no-plot"
        ) from error


def plot_latencies(measurement: Measurement, path: Path) -> None:
    """Draws how latencies are distributed (left) and how they went over time (right).

    Args:
        measurement: What was measured.
        path: A PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    shares, timeline = figure.subplots(1, 2)
    for name, colour in _LINES.items():
        values = np.sort(latencies(measurement.samples, name))
        if values.size:
            shares.step(values, np.arange(1, values.size + 1) / values.size, where="post", label=name, color=colour)
    shares.set(xlabel="seconds since the query was due", ylabel="share of queries", xlim=(0, None), ylim=(0, 1))
    answered = [sample for sample in measurement.samples if sample.outcome == "answered"]
    others = [sample for sample in measurement.samples if sample.outcome != "answered"]
    timeline.scatter(
        [sample.intended for sample in answered], latencies(answered, "result"), s=8, color="tab:blue", label="answered"
    )
    if others:
        timeline.scatter(
            [sample.intended for sample in others], [0.0] * len(others), s=14, marker="x", color="tab:red",
            label="not answered", clip_on=False,
        )  # fmt: skip
    timeline.set(xlabel="due, seconds since the start", ylabel="seconds to the result", ylim=(0, None))
    for axes in (shares, timeline):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
