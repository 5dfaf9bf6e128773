"""`lego-server bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from lego_core.errors import LegoError

_MANY_WEARERS = 32  # half of what a server takes by default


def bench(
    server: Annotated[str | None, typer.Option(help="HOST:PORT of a running server; default: start one.")] = None,
    engines: Annotated[Path | None, typer.Option(help="Engine directory of the server to start.")] = None,
    config: Annotated[Path | None, typer.Option(help="Config file of the server to start.")] = None,
    device: Annotated[str | None, typer.Option(help="Device of the server to start.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the server to start.")] = None,
    max_active: Annotated[int | None, typer.Option(help="Queries it serves in turns.")] = None,
    max_waiting: Annotated[int | None, typer.Option(help="Queries that may wait behind them.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Queries per engine call.")] = None,
    lanes: Annotated[int | None, typer.Option(help="Engine calls at the same time.")] = None,
    serial: Annotated[
        bool, typer.Option("--serial", help="Start a server that takes one query at a time, to compare with.")
    ] = False,
    wearers: Annotated[int, typer.Option(help="Sessions at a time.")] = 4,
    rate: Annotated[
        float | None,
        typer.Option(help="Open loop: queries a second, at random. Default: closed loop, each asks when answered."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long queries are asked.")] = 30.0,
    count: Annotated[int | None, typer.Option(help="Ask no more than this many queries.")] = None,
    warm_up: Annotated[int, typer.Option(help="Queries of each wearer that are not measured.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the model's.")] = None,
    preview_every: Annotated[int, typer.Option(help="A preview every this many steps; 0 for none.")] = 0,
    distinct_frames: Annotated[
        bool, typer.Option("--distinct-frames", help="Frames and queries that differ; default: all alike.")
    ] = False,
    frames: Annotated[Path | None, typer.Option(help="Folder of pictures to take as frames, in turns.")] = None,
    seed: Annotated[int, typer.Option(help="Of arrivals, frames and noise.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds one query may take.")] = 120.0,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which the server is told that an answer is worth nothing.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for figures and samples; the plot goes beside it.")
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw latencies beside --json, as PNG.")] = True,
) -> None:
    """Measure what wearers would see of a server under load: throughput, latencies, refusals."""
    # Imported here, so that --help and the other commands need not wait for gRPC.
    from lego_server.bench.plot import require_matplotlib
    from lego_server.bench.questions import Questions
    from lego_server.bench.run import report, run
    from lego_server.bench.sample import Load

    load = Load(wearers, rate, seconds, count, warm_up, steps, preview_every, seed, timeout, deadline)
    own = {
        "--engines": engines, "--config": config, "--device": device, "--threads": threads,
        "--max-active": max_active, "--max-waiting": max_waiting, "--max-batch": max_batch, "--lanes": lanes,
    }  # fmt: skip
    if serial:
        _refuse_beside("--serial", own, ("--max-active", "--max-batch", "--max-waiting", "--lanes"))
        own |= {"--max-active": 1, "--max-batch": 1, "--max-waiting": max(16, wearers)}
    given = {name: str(value) for name, value in own.items() if value is not None}
    if server is not None and given:
        raise LegoError(f"--server names a running server; leave {', '.join(given)} out, they are of one to start")
    if server is None and engines is None and config is None:
        raise LegoError("there is nothing to measure: give --engines DIR to start a server, or --server HOST:PORT")
    if json_file is not None and plot:
        require_matplotlib()
    questions = Questions(distinct_frames or frames is not None, frames, seed)
    options = [part for pair in given.items() for part in pair]
    if wearers > _MANY_WEARERS:  # those of the warm-up may still be leaving when the others come
        options += ["--max-sessions", str(2 * wearers)]
    measurement = run(server, options, load, questions)
    setting = {"server": server or "its own", "options": given, "serial": serial, "distinct": distinct_frames}
    report(measurement, load, setting, json_file, plot)


def _refuse_beside(option: str, values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if values[name] is not None:
            raise LegoError(f"{option} decides what {name} is; leave one of them out")
