"""How many wearers an engine serves: predicted from measured call times, and measured.

    python -m benchmarks.scale --json docs/results/scale.json --plot docs/results/scale.png

1. Times of the engine's calls, by kind, batch and lanes busy, and what a query costs beside them (`call_times`,
   `replay`).
2. A prediction from these alone for some numbers of wearers who ask again as soon as they are answered
   (`simulation`), and the same measured on a real server, over gRPC, in turns; the error is told.
3. For how many wearers, each of whom asks now and then, one engine is enough, and how many engines are for more.
4. What a query takes at other numbers of steps, predicted and measured, and a U-Net call at other resolutions and
   contexts.

`--call-times FILE` takes the call times of another machine (such as `benchmarks.gpu` writes) and does 3 only.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import torch
import typer
from diffusers import UNet2DConditionModel
from lego_core.errors import LegoError
from lego_model.checkpoint import load_part
from lego_server.bench.questions import Questions
from lego_server.bench.report import summarise
from lego_server.bench.run import run
from lego_server.bench.sample import Load
from lego_server.engines import load_engine
from rich.console import Console
from rich.table import Table

from benchmarks.call_times import measure_calls, plan_of
from benchmarks.replay import measure_rest
from benchmarks.simulation import Costs, Sharing, simulate, wearers_served

mpl.use("Agg")
import matplotlib.pyplot as plt

FLEETS = (1, 10, 100, 1_000, 10_000, 100_000)
_SERVER_SHARE = 0.7  # of one core, that a server's process may use: it runs Python, and one thread of it at a time
_SIMULATIONS = 5


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint with its engines built in place.")] = Path("models/lego-nano"),
    wearers: Annotated[str, typer.Option(help="Wearers at a time, with commas between them.")] = "1,4,16",
    lanes: Annotated[int, typer.Option(min=1, help="Engine calls at the same time.")] = 2,
    batches: Annotated[str, typer.Option(help="Batch sizes; the largest is the server's.")] = "1",
    calibrate: Annotated[float, typer.Option(min=0.5, help="Seconds for call times, for each number of lanes.")] = 15.0,
    seconds: Annotated[float, typer.Option(min=1, help="How long each number of wearers asks, each round.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 3,
    steps: Annotated[str, typer.Option(help="Numbers of denoising steps, for one wearer.")] = "5,10,20,40",
    pause: Annotated[
        float, typer.Option(min=1, help="Mean seconds between an answer and a wearer's next question.")
    ] = 60.0,
    limit: Annotated[float, typer.Option(min=0, help="Seconds 95 of 100 may take; 0: 3 times a query alone.")] = 0.0,
    call_times: Annotated[Path | None, typer.Option(help="Call times of another machine, as JSON.")] = None,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/scale.json"),
    plot: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("out/scale.png"),
) -> None:
    """Measure, predict, compare and write figures and plot."""
    try:
        if call_times is not None:
            costs, sharing, plan = _of_another_machine(call_times)
            server_seconds = costs.processor
            figures: dict[str, Any] = {"call_times": str(call_times)}
        else:
            numbers = [int(each) for each in wearers.split(",")]
            sizes = tuple(int(each) for each in batches.split(","))
            sharing = Sharing(lanes, max(numbers), max(sizes), len(os.sched_getaffinity(0)))
            costs, plan, figures = _measure_costs(model, sharing, sizes, calibrate)
            server_seconds = figures["rest_milliseconds"]["server"] / 1e3  # the wearers are no part of a server
            server = _Server(model, sharing, seconds)
            figures["wearers"] = _compare(costs, plan, server, numbers, rounds)
            figures["steps"] = _compare_steps(costs, plan, server, [int(each) for each in steps.split(",")])
            figures["shapes"] = _shapes(model)
        figures["fleet"] = _fleet(costs, sharing, plan, pause, limit, server_seconds)
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    _report(figures, json_file, plot)


def _measure_costs(
    model: Path, sharing: Sharing, batches: Sequence[int], seconds: float
) -> tuple[Costs, list[str], dict[str, Any]]:
    print("measuring call times", flush=True)
    engine = load_engine(model, max_batch=sharing.max_batch, lanes=sharing.lanes)
    plan = plan_of(engine)
    calls = measure_calls(engine, sharing.lanes, batches, seconds)
    rest = measure_rest(model, seconds)
    costs = Costs(calls, rest["latency"], rest["server"] + rest["client"])
    return costs, plan, {
        "machine": {"cores": sharing.cores, "lanes": sharing.lanes, "max_batch": sharing.max_batch},
        "plan": {kind: plan.count(kind) for kind in dict.fromkeys(plan)},
        "call_milliseconds": {
            busy: {kind: {size: round(1e3 * float(np.mean(each)), 3) for size, each in by_size.items()}
                   for kind, by_size in kinds.items()}
            for busy, kinds in calls.items()
        },
        "rest_milliseconds": {name: round(1e3 * value, 2) for name, value in rest.items()},
    }  # fmt: skip


class _Server:
    """A real server, started anew for each measurement."""

    def __init__(self, model: Path, sharing: Sharing, seconds: float) -> None:
        self._options = [
            "--engines", str(model), "--lanes", str(sharing.lanes), "--max-batch", str(sharing.max_batch),
            "--max-active", str(sharing.max_active),
        ]  # fmt: skip
        self.sharing = sharing
        self.seconds = seconds

    def measure(self, wearers: int, steps: int | None = None) -> dict[str, float]:
        load = Load(wearers=wearers, seconds=self.seconds, steps=steps)
        summary = summarise(run(None, self._options, load, Questions(distinct=True, folder=None, seed=0)))
        result, words = summary["latency"]["result"], summary["latency"]["first token"]
        return {"throughput": summary["throughput"], "p50": result["p50"], "p95": result["p95"], "words": words["p50"]}


def _predict(costs: Costs, server: _Server, plan: list[str], wearers: int) -> dict[str, float]:
    """Simulates what `_Server.measure` does, with its beginning and its end, some times over."""
    runs = [simulate(costs, server.sharing, plan, wearers, server.seconds, seed=seed) for seed in range(_SIMULATIONS)]
    latencies = [latency for each in runs for latency in each.latencies]
    return {
        "throughput": float(np.mean([each.throughput for each in runs])),
        "p50": float(np.percentile(latencies, 50)), "p95": float(np.percentile(latencies, 95)),
        "words": float(np.median([words for each in runs for words in each.first_words])),
    }  # fmt: skip


def _compare(costs: Costs, plan: list[str], server: _Server, numbers: list[int], rounds: int) -> list[dict[str, Any]]:
    measured: dict[int, list[dict[str, float]]] = {number: [] for number in numbers}
    for turn, number in product(range(rounds), numbers):
        measured[number].append(server.measure(number))
        print(f"round {turn + 1}, {number} wearers: {measured[number][-1]['throughput']:.2f} a second", flush=True)
    return [
        {"wearers": number, **_beside(_predict(costs, server, plan, number), measured[number])} for number in numbers
    ]


def _beside(predicted: dict[str, float], measured: list[dict[str, float]]) -> dict[str, Any]:
    medians = {name: float(np.median([each[name] for each in measured])) for name in predicted}
    errors = {name: predicted[name] / medians[name] - 1 for name in predicted}
    return {"predicted": predicted, "measured": medians, "rounds": measured, "error": errors}


def _compare_steps(costs: Costs, plan: list[str], server: _Server, numbers: list[int]) -> list[dict[str, Any]]:
    rows = []
    for steps in numbers:
        first, last = plan.index("Denoise"), plan.index("DecodeLatent")
        changed = [*plan[:first], *["Denoise"] * steps, *plan[last:]]
        predicted = _predict(costs, server, changed, 1)
        rows.append({"steps": steps, **_beside(predicted, [server.measure(1, steps)])})
        print(f"{steps} steps: {rows[-1]['measured']['p50']:.3f} s", flush=True)
    return rows


def _shapes(model: Path) -> dict[str, dict[int, float]]:
    """Returns milliseconds of the U-Net in torch, one row on one core, by latent side and by context length."""
    unet = load_part(UNet2DConditionModel, model / "unet", torch.float32)
    torch.set_num_threads(1)

    @torch.inference_mode()
    def call(side: int, tokens: int) -> float:
        sample = torch.zeros(1, unet.config.in_channels, side, side)
        context = torch.zeros(1, tokens, unet.config.cross_attention_dim)
        taken = []
        for _ in range(8):
            began = time.perf_counter()
            unet(sample, 500, context)
            taken.append(time.perf_counter() - began)
        return round(1e3 * float(np.median(taken[2:])), 2)

    return {
        "latent side": {side: call(side, 128) for side in (16, 32, 48, 64)},
        "context tokens": {tokens: call(32, tokens) for tokens in (64, 128, 256, 512)},
    }


def _of_another_machine(path: Path) -> tuple[Costs, Sharing, list[str]]:
    """Reads {"plan": {kind: count}, "calls": {kind: {batch: seconds}}, "sharing": {...}, "rest": {...}}."""
    try:
        given = json.loads(path.read_text())
        calls = {
            1: {kind: {int(size): [float(value)] for size, value in by_size.items()}
                for kind, by_size in given["calls"].items()}
        }  # fmt: skip
        plan = [kind for kind, count in given["plan"].items() for _ in range(count)]
        sharing, rest = Sharing(**given["sharing"]), given["rest"]
        return Costs(calls, rest["latency"], rest["server"]), sharing, plan
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LegoError(f"{path} has no call times ({error!r}); give a file that benchmarks.gpu wrote") from error


def _fleet(
    costs: Costs, sharing: Sharing, plan: list[str], pause: float, limit: float, server_seconds: float
) -> dict[str, Any]:
    alone = simulate(costs, sharing, plan, 1, 60.0).latency(50)
    limit = limit or 3 * alone
    most = _SERVER_SHARE / server_seconds if server_seconds else math.inf
    served = wearers_served(costs, sharing, plan, pause, limit, most)
    return {
        "pause_seconds": pause, "limit_seconds": limit, "alone_seconds": alone, "wearers_per_engine": served,
        "queries_a_second_of_a_server_process": most,
        "engines": {number: math.ceil(number / served) if served else None for number in FLEETS},
    }  # fmt: skip


def _report(figures: dict[str, Any], path: Path, plot: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    console = Console()
    for what in ("wearers", "steps"):
        if what in figures:
            console.print(_table(what, figures[what]))
    for what, sizes in figures.get("shapes", {}).items():
        row = ", ".join(f"{size}: {value:.1f} ms" for size, value in sizes.items())
        console.print(f"a U-Net call, by {what}: {row}")
    fleet = figures["fleet"]
    console.print(
        f"one engine serves {fleet['wearers_per_engine']} wearers who ask every {fleet['pause_seconds']:g} s, "
        f"95 of 100 within {fleet['limit_seconds']:.2f} s"
    )
    table = Table("wearers", *(f"{number:,}" for number in fleet["engines"]))
    table.add_row("engines", *(str(count) for count in fleet["engines"].values()))
    console.print(table, f"figures in {path}")
    if "wearers" in figures:
        _draw(figures, plot)


def _table(what: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(what, "", "a second", "result, p50", "p95", "first words, p50", title_justify="left")
    for row in rows:
        for side in ("measured", "predicted"):
            each = row[side]
            table.add_row(
                str(row[what]) if side == "measured" else "", side, f"{each['throughput']:.2f}",
                *(f"{each[name]:.3f} s" for name in ("p50", "p95", "words")),
            )  # fmt: skip
        table.add_row("", "error", *(f"{100 * row['error'][name]:+.0f} %" for name in row["error"]), end_section=True)
    return table


def _draw(figures: dict[str, Any], path: Path) -> None:
    figure, (rate, latency, fleet) = plt.subplots(1, 3, figsize=(10, 2.8))
    numbers = [row["wearers"] for row in figures["wearers"]]
    for axis, name, label in ((rate, "throughput", "answers a second"), (latency, "p50", "seconds, p50")):
        for row in figures["wearers"]:
            axis.plot([row["wearers"]] * len(row["rounds"]), [each[name] for each in row["rounds"]], "k.", markersize=4)
        axis.plot(numbers, [row["predicted"][name] for row in figures["wearers"]], "o-", color="#d1813a", mfc="none")
        axis.set(xlabel="wearers", ylabel=label, xscale="log", ylim=(0, None))
        axis.set_xticks(numbers, [str(number) for number in numbers], minor=False)
        axis.minorticks_off()
    rate.set_title("dots: measured; line: predicted", fontsize=8)
    engines = {number: count for number, count in figures["fleet"]["engines"].items() if count}
    if engines:
        fleet.loglog(list(engines), list(engines.values()), "o-", color="#d1813a", mfc="none")
    fleet.set(xlabel=f"wearers who ask every {figures['fleet']['pause_seconds']:g} s", ylabel="engines like this one")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
