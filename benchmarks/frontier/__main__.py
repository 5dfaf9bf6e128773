"""Latency against quality of one query, on every engine and by every sampling, beside the diffusers pipeline.

    python -m benchmarks.frontier --json docs/results/frontier.json

In every round each side answers the same query by each sampling, in turns in one process. The machine must be quiet:
on a busy one torch's threads wait for each other many times as long. The table says how busy others kept it. Then
pictures of unseen scenes are judged. An interrupted run goes on where it stopped; JSON, plot and Markdown table are
written whenever it ends. `--full-size` times a U-Net step of the released size instead.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from rich.console import Console
from rich.progress import track

from benchmarks.frontier.measure import Figures, run_rounds, run_scenes, settings_of, warm_up
from benchmarks.frontier.report import markdown, plot, summarise
from benchmarks.frontier.samplings import default_samplings, parse_samplings
from benchmarks.frontier.sides import SIDES, open_side
from benchmarks.frontier.unet_step import ARCHITECTURE, STEP_SIDES, time_steps


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint with its engines built in place.")] = Path("models/lego-nano"),
    sides: Annotated[str, typer.Option(help=f"Of {', '.join(SIDES)}, with commas between them.")] = "",
    samplings: Annotated[str, typer.Option(help="SAMPLER:STEPS,...; all are compared with the first.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Queries that are timed.")] = 5,
    scenes: Annotated[int, typer.Option(min=0, help="Unseen scenes whose pictures are judged.")] = 60,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of every side; 0 takes all cores.")] = 0,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/frontier.json"),
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Where the plot goes; beside the figures.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Only report what the JSON file holds.")] = False,
    full_size: Annotated[bool, typer.Option("--full-size", help="Time a U-Net step of the released size.")] = False,
) -> None:
    """Measure, judge, and write figures, plot and table."""
    threads = threads or len(os.sched_getaffinity(0))
    try:
        if table:
            report(Figures.read(json_file), plot_file)
            return
        if full_size:
            typer.echo(time_steps(ARCHITECTURE, sides.split(",") if sides else STEP_SIDES, rounds, threads, json_file))
            return
        lego, names = LegoConfig.load(model), sides.split(",") if sides else SIDES
        rows = parse_samplings(lego, samplings) if samplings else default_samplings(lego)
        figures = Figures.resume(json_file, settings_of(model, lego, names, rows, threads))
        opened = {name: open_side(name, model, threads) for name in track(names, "loading")}
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    try:
        warm_up(opened, rows)
        run_rounds(figures, opened, rows, lego, rounds)
        run_scenes(figures, opened, rows, lego, scenes)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)
    finally:
        report(figures, plot_file)


def report(figures: Figures, plot_file: Path | None) -> None:
    """Writes JSON, plot and table, and shows the table."""
    rows = summarise(figures)
    figures.save(rows=rows)
    plot(rows, plot_file or figures.path.with_suffix(".png"))
    told = markdown(figures, rows)
    figures.path.with_suffix(".md").write_text(told)
    Console().print(told, f"figures in {figures.path}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    typer.run(main)
