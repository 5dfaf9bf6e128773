"""Many wearers at once: the server with two lanes, the server with one query at a time, the torch pipeline likewise.

    python -m benchmarks.wearers --wearers 16 --json docs/results/wearers.json

Each server is loaded by `lego-server bench`, over gRPC, in a process of its own; the pipeline is called one query after
the other, without network, sessions or anything else that a server does, and is so shown in the best light. The sides
take turns (A B C A B C ...), so that whatever else the machine does falls on all. Pictures and words are the same.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import torch
import typer
from lego_model.pipeline import LegoPipeline
from lego_server.bench.questions import Questions
from PIL import Image
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

LANES, SERIAL, PIPELINE = "lego-server, two lanes", "lego-server, one query at a time", "torch pipeline, one at a time"


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint with its engines built in place.")] = Path("models/lego-nano"),
    wearers: Annotated[int, typer.Option(min=1, help="Wearers at a time.")] = 16,
    seconds: Annotated[float, typer.Option(min=1, help="How long each side asks, each round.")] = 30.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side.")] = 3,
    device: Annotated[str, typer.Option(help="What runs the server's graphs, on both its sides.")] = "cpu",
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/wearers.json"),
) -> None:
    """Measure all sides and write figures and plot."""
    threads = len(os.sched_getaffinity(0))  # as many as a server takes, whatever OMP_NUM_THREADS says
    torch.set_num_threads(threads)
    pipeline = LegoPipeline.from_pretrained(model)
    options = {
        LANES: ["--device", device, "--lanes", "2", "--max-active", str(wearers), "--max-waiting", "16"],
        SERIAL: ["--device", device, "--serial"],
    }
    runs: dict[str, list[dict[str, Any]]] = {LANES: [], SERIAL: [], PIPELINE: []}
    for number in range(rounds):
        for name, given in options.items():
            runs[name].append(_load(model, wearers, seconds, given))
            print(f"round {number + 1}, {name}: {runs[name][-1]['throughput']:.2f} a second", flush=True)
        runs[PIPELINE].append(_call(pipeline, seconds))
        print(f"round {number + 1}, {PIPELINE}: {runs[PIPELINE][-1]['throughput']:.2f} a second", flush=True)
    _report(runs, wearers, threads, json_file)


def _load(model: Path, wearers: int, seconds: float, options: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "lego_server", "bench", "--engines", str(model), "--wearers", str(wearers)]
        command += ["--seconds", str(seconds), "--distinct-frames", "--no-plot", "--json", str(figures), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        summary: dict[str, Any] = json.loads(figures.read_text())["summary"]
        return summary


def _call(pipeline: LegoPipeline, seconds: float) -> dict[str, Any]:
    questions = Questions(distinct=True, folder=None, seed=0)

    def ask() -> None:
        frame, query = questions.next()
        pipeline(Image.open(io.BytesIO(frame)), query, seed=0)

    ask()  # pays for the warm-up
    began, answered = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        ask()
        answered += 1
    return {"throughput": answered / (time.perf_counter() - began)}


def _report(runs: dict[str, list[dict[str, Any]]], wearers: int, threads: int, path: Path) -> None:
    rates = {name: [run["throughput"] for run in each] for name, each in runs.items()}
    ratios = {
        name: np.divide(rates[LANES], rates[name]).tolist() for name in (SERIAL, PIPELINE)
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {"wearers": wearers, "threads": threads, "runs": runs, "times_as_many": ratios}
    path.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("", "queries a second", "first token, p50", "result, p50", "result, p95", title=f"{wearers} wearers")
    for name, each in runs.items():
        cells = [f"{np.median(rates[name]):.2f} ({min(rates[name]):.2f} to {max(rates[name]):.2f})"]
        if "latency" in each[0]:
            for what, which in (("first token", "p50"), ("result", "p50"), ("result", "p95")):
                cells.append(f"{np.median([run['latency'][what][which] for run in each]):.2f} s")
        table.add_row(name, *cells)
    told = [f"{np.median(each):.2f} times as many as {name}" for name, each in ratios.items()]
    Console().print(table, f"{LANES}: {', '.join(told)}. Figures in {path}")
    figure, axis = plt.subplots(figsize=(7, 2.4))
    axis.barh(list(rates), [float(np.median(each)) for each in rates.values()], color="#4878a8")
    for row, each in enumerate(rates.values()):
        axis.plot(each, [row] * len(each), "k.", markersize=4)
    axis.set(xlabel="queries answered a second", xlim=(0, None))
    axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
