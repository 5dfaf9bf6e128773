"""Query to guidance frame: the server's engine beside the torch pipeline, on the same weights.

    python -m benchmarks.guidance --model models/lego-nano --json out/guidance.json

The two sides answer the same queries in turn (A B A B ...) in one process, so that whatever else the machine does
falls on both. Reported are medians, spreads and their ratio; a plot is written beside the JSON file. The engine's side
also encodes the frame as JPEG, as the server does; the pipeline's ends with the picture.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import torch
import typer
from lego_core.errors import LegoError
from lego_export.verify import answer_with_engine
from lego_model.pipeline import LegoPipeline
from lego_server.engines import load_engine
from lego_server.options import SamplingOptions
from lego_training.toy_kitchen.language import question
from lego_training.toy_kitchen.pair import make_pair
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

PIPELINE, ENGINE = "torch pipeline", "lego-server engine"


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint with its engines built in place.")] = Path("models/lego-nano"),
    queries: Annotated[int, typer.Option(min=1, help="Queries, each on a scene of its own.")] = 10,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of either side.")] = 2,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/guidance.json"),
) -> None:
    """Measure both sides and write figures and plot."""
    torch.set_num_threads(threads)
    try:
        pipeline = LegoPipeline.from_pretrained(model)
        engine = load_engine(model, "cpu", threads)
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    defaults = engine.manifest.lego.guidance

    def ask_pipeline(frame: Image.Image, query: str) -> None:
        pipeline(frame, query, seed=0)

    def ask_engine(frame: Image.Image, query: str) -> None:
        answer_with_engine(engine, frame, query, SamplingOptions(seed=0, **asdict(defaults)))

    sides: dict[str, Callable[[Image.Image, str], None]] = {PIPELINE: ask_pipeline, ENGINE: ask_engine}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    pairs = [make_pair(2_000_000 + index, "val") for index in range(queries)]
    for ask in sides.values():  # the first call of either side pays for its warm-up
        ask(Image.fromarray(pairs[0].input_frame), question(pairs[0].action))
    for pair in track(pairs, "measuring"):
        for name, ask in sides.items():
            begin = time.perf_counter()
            ask(Image.fromarray(pair.input_frame), question(pair.action))
            seconds[name].append(time.perf_counter() - begin)
    report(seconds, str(model), defaults.steps, threads, json_file)


def report(seconds: dict[str, list[float]], model: str, steps: int, threads: int, path: Path) -> None:
    """Prints a table, writes the JSON file and draws the plot."""
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    figures = {
        "model": model, "steps": steps, "threads": threads, "machine": platform.processor() or platform.machine(),
        "seconds": seconds, "median_seconds": medians, "ratio": medians[PIPELINE] / medians[ENGINE],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("side", "median", "10 % to 90 %", title=f"Query to guidance frame, {steps} steps, {threads} threads")
    for name, values in seconds.items():
        low, high = np.percentile(values, (10, 90))
        table.add_row(name, f"{medians[name]:.3f} s", f"{low:.3f} to {high:.3f} s")
    Console().print(table, f"The engine answers {figures['ratio']:.2f} times as fast; figures in {path}")
    figure, axis = plt.subplots(figsize=(7, 2.6))
    axis.boxplot(list(seconds.values()), orientation="horizontal", tick_labels=list(seconds))
    axis.set(xlabel="seconds from query to guidance frame", xlim=(0, None))
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
