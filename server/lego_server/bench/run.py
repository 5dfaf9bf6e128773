"""A measurement from its start to its report; Ctrl-C ends it early and keeps what it has."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from lego_core.command import Stopped
from rich.console import Console

from lego_server.bench.load import Measurement, measure
from lego_server.bench.own_server import own_server
from lego_server.bench.plot import plot_latencies
from lego_server.bench.questions import Questions
from lego_server.bench.report import record, summarise, summary_table
from lego_server.bench.sample import Load


def run(address: str | None, options: Sequence[str], load: Load, questions: Questions) -> Measurement:
    """Measures a server.

    Args:
        address: HOST:PORT of one that runs; None starts one for as long as it takes.
        options: Of `lego-server serve`, for the one to start.
        load: What to put on it.
        questions: What to ask.

    Raises:
        LegoError: There is no server, or it does not start.
    """
    return asyncio.run(_run(address, options, load, questions))


def report(measurement: Measurement, load: Load, setting: dict[str, Any], path: Path | None, plot: bool) -> None:
    """Prints the figures; writes them, every sample and the plot.

    Args:
        measurement: What was measured.
        load: How.
        setting: What else is worth knowing, for the file.
        path: A JSON file; None writes none.
        plot: Draw the plot beside it.

    Raises:
        Stopped: The measurement was stopped early, and what it has is told and written.
    """
    Console().print(summary_table(summarise(measurement)))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record(measurement, load, setting), indent=1) + "\n", encoding="utf-8")
        written = [path]
        if plot:
            written.append(path.with_suffix(".png"))
            plot_latencies(measurement, written[-1])
        print(f"wrote {' and '.join(map(str, written))}")
    if measurement.stopped:
        raise Stopped("what was measured until then is above" + (f" and in {path}" if path else ""))


async def _run(address: str | None, options: Sequence[str], load: Load, questions: Questions) -> Measurement:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        if address is None:
            address = await stack.enter_async_context(own_server(options))
        return await measure(address, load, questions, stop)
