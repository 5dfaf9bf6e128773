"""What a measurement comes to: figures, a table, and the JSON that keeps every sample."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from lego_server.bench.load import Measurement
from lego_server.bench.sample import Load, Sample

QUANTILES = (50, 95, 99)
LATENCIES: dict[str, Callable[[Sample], float | None]] = {
    "first token": lambda sample: sample.first_token,
    "first preview": lambda sample: sample.first_preview,
    "result": lambda sample: sample.done if sample.outcome == "answered" else None,
    "send delay": lambda sample: sample.sent,
}


def latencies(samples: list[Sample], name: str) -> list[float]:
    """Returns seconds from each query's intended time to a moment, of those that have it."""
    moments = ((sample, LATENCIES[name](sample)) for sample in samples)
    return [moment - sample.intended for sample, moment in moments if moment is not None]


def summarise(measurement: Measurement) -> dict[str, Any]:
    """Returns the figures: latencies in seconds, throughput in answers a second."""
    samples = measurement.samples
    outcomes = Counter(sample.outcome for sample in samples)
    delays = [delay for sample in samples for delay in sample.retry_delays]
    return {
        "queries": len(samples),
        "answered": outcomes["answered"],
        "seconds": measurement.seconds,
        "stopped": measurement.stopped,
        "throughput": outcomes["answered"] / measurement.seconds if measurement.seconds else 0.0,
        "latency": {name: _figures(latencies(samples, name)) for name in LATENCIES},
        "not_answered": {name: count for name, count in sorted(outcomes.items()) if name != "answered"},
        "retries": {"seconds": float(np.sum(delays)), **_figures(delays)},
    }


def record(measurement: Measurement, load: Load, setting: dict[str, Any]) -> dict[str, Any]:
    """Returns everything, for a file: what was run on what, the figures, and each query."""
    return {
        "load": asdict(load),
        "setting": setting,
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine(),
                    "python": platform.python_version()},
        "server": measurement.server,
        "summary": summarise(measurement),
        "samples": [asdict(sample) for sample in measurement.samples],
    }  # fmt: skip


def summary_table(summary: dict[str, Any]) -> Table:
    """Returns the figures as a table for a terminal."""
    stopped = ", stopped early" if summary["stopped"] else ""
    table = Table(
        "", *(f"p{each}" for each in QUANTILES), "n",
        title=f"{summary['answered']} of {summary['queries']} queries answered in {summary['seconds']:.1f} s: "
              f"{summary['throughput']:.2f} a second{stopped}",
        title_justify="left",
    )  # fmt: skip
    for name, figures in summary["latency"].items():
        if figures["n"]:
            table.add_row(name, *(f"{figures[f'p{each}']:.3f} s" for each in QUANTILES), str(figures["n"]))
    for name, count in summary["not_answered"].items():
        table.add_row(name.replace("_", " "), *("" for _ in QUANTILES), str(count))
    retries = summary["retries"]
    if retries["n"]:
        figures = (f"{retries[f'p{each}']:.3f} s" for each in QUANTILES)
        table.add_row("delay before a retry", *figures, str(retries["n"]))
    return table


def _figures(values: list[float]) -> dict[str, float]:
    if not values:
        return {"n": 0}
    figures = {f"p{each}": float(np.percentile(values, each)) for each in QUANTILES}
    return {"n": len(values), "mean": float(np.mean(values)), **figures}
