"""What building engines of a large model takes: memory, time and the distance from torch, with random weights.

    python -m benchmarks.export_memory --layers 1,4,8 --work /tmp/export --json out/export_memory.json

Writes checkpoints of `--architecture` in half precision with the language model at several depths, and runs
`lego-export build` on each in a process of its own. What is taken is the peak of its anonymous memory: pages of mapped
files are counted by the system too, but given back when others need them. A line is fitted to the peaks, and says what
the whole depth takes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import typer
from lego_core.errors import LegoError
from lego_model.create import read_shape
from lego_model.skeleton import find_architecture
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt


def main(
    architecture: Annotated[str, typer.Option(help="An architecture's name or file.")] = "lego-sd15-llava7b",
    layers: Annotated[str, typer.Option(help="Depths of the language model, with commas between them.")] = "1,4,8",
    options: Annotated[str, typer.Option(help="Of lego-export build, such as '--precision fp16'.")] = "",
    work: Annotated[Path, typer.Option(help="Folder for checkpoints and engines, removed after use.")] = Path("out/x"),
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/export_memory.json"),
) -> None:
    """Measure builds and write figures and plot."""
    try:
        whole = read_shape(find_architecture(Path(architecture)))["vllm"]["language"]["layers"]
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    runs = []
    for depth in map(int, layers.split(",")):
        checkpoint, engines = work / f"{Path(architecture).stem}-{depth}", work / f"engines-{depth}"
        command = [sys.executable, "-m", "benchmarks.random_checkpoint", architecture, str(checkpoint)]
        subprocess.run([*command, "--layers", str(depth)], check=True)
        runs.append({"layers": depth, **_build(checkpoint, engines, options.split())})
        for made in (checkpoint, engines):  # and nothing else that may be in the folder
            shutil.rmtree(made)
    depths, peaks = [run["layers"] for run in runs], [run["peak_bytes"] for run in runs]
    slope, start = np.polyfit(depths, peaks, 1) if len(runs) > 1 else (float("nan"), float("nan"))
    figures = {
        "architecture": architecture, "options": options, "runs": runs, "bytes_per_layer": float(slope),
        "whole_depth": whole, "whole_depth_bytes": float(start + slope * whole),
    }  # fmt: skip
    report(figures, json_file)


def _build(checkpoint: Path, engines: Path, options: list[str]) -> dict[str, Any]:
    """Builds engines in a process of its own and watches its memory."""
    begin, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "lego_export", "build", str(checkpoint), str(engines), "--link", *options]
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    seconds = time.perf_counter() - begin
    manifest = json.loads((engines / "manifest.json").read_text())
    return {"seconds": seconds, "peak_bytes": peak, "parity": manifest["parity"]}


def anonymous_bytes(process: int) -> int:
    """Returns a process's memory without pages of mapped files, which are given back when others need them."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    except OSError:  # it has just ended
        return 0
    return int(found[1]) * 1024 if found else 0


def report(figures: dict[str, Any], path: Path) -> None:
    """Prints a table, writes the JSON file and draws the plot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table(
        "layers", "peak", "time", "largest relative error", title=f"{figures['architecture']}: building engines"
    )
    for run in figures["runs"]:
        relative = {name: each["max_abs_error"] / each["max_abs_value"] for name, each in run["parity"].items()}
        worst = max(relative, key=lambda name: relative[name])
        table.add_row(
            str(run["layers"]), f"{run['peak_bytes'] / 2**30:.2f} GiB", f"{run['seconds']:.0f} s",
            f"{relative[worst]:.1e} ({worst})",
        )  # fmt: skip
    if len(figures["runs"]) == 1:
        Console().print(table, f"figures in {path}")
        return
    Console().print(
        table,
        f"{figures['bytes_per_layer'] / 2**30:.3f} GiB more for each layer; all {figures['whole_depth']}: "
        f"{figures['whole_depth_bytes'] / 2**30:.2f} GiB. Figures in {path}",
    )  # fmt: skip
    figure, axis = plt.subplots(figsize=(6, 3))
    axis.plot(
        [run["layers"] for run in figures["runs"]], [run["peak_bytes"] / 2**30 for run in figures["runs"]], "o",
        label="measured",
    )  # fmt: skip
    ends = np.array([0, figures["whole_depth"]])
    axis.plot(
        ends, (figures["whole_depth_bytes"] + figures["bytes_per_layer"] * (ends - ends[1])) / 2**30, "--", label="fit"
    )  # fmt: skip
    axis.set(xlabel="layers of the language model", ylabel="peak memory, GiB", ylim=(0, None))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
