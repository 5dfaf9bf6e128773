"""A server under mixed load for long: does its memory stay flat, and is everybody answered?

    python -m benchmarks.soak --minutes 30 --json docs/results/soak.json

A real server process on real engines answers `benchmarks.soak_load`, a process of its own: wearers who ask, supersede,
cancel, break their streams and resume, send bad frames and garbage, do not read, and are killed. Every few seconds the
server's resident memory, threads, file descriptors and its own figures are noted. Figures and a plot beside them are
written at the end, after Ctrl-C, too. Exit code 1: memory grew by more than 5 % from the first minutes after warm-up
to the last, or the server did what it never should.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import typer
from prometheus_client.parser import text_string_to_metric_families

mpl.use("Agg")
import matplotlib.pyplot as plt

_PERIOD = 5.0  # seconds between samples
_GROWTH_LIMIT = 0.05
_WARM_UP_SHARE, _WINDOW_SHARE = 0.1, 0.1  # of the run; 3 minutes each of 30
_RESUME_SECONDS = 10.0
_GAUGES = {"lego_sessions": "sessions", "lego_queue_depth": "waiting", "lego_active_queries": "active"}
_COUNTERS = {"lego_queries": "outcome", "lego_rejects": "reason"}


@dataclass
class Soak:
    """What has been noted so far.

    Attributes:
        began: Unix time.
        samples: Of the server, by seconds since then.
        latencies: (seconds since then, seconds from question to guidance frame) of each answer.
        happened: Everything the wearers told, counted.
        wrong: What the server should never have done.
    """

    began: float = field(default_factory=time.time)
    samples: list[dict[str, Any]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def hear(self, line: str) -> None:
        """Takes in a line of the load's."""
        told = json.loads(line)
        if told["what"] == "wrong":
            self.wrong.append(f"{told['at'] - self.began:.0f} s: {told['told']}")
        self.happened[" ".join((told["what"], *([told["reason"]] if "reason" in told else [])))] += 1
        if told["what"] == "answered":
            self.latencies.append((told["at"] - self.began, told["seconds"]))

    def per_minute(self) -> list[dict[str, float]]:
        """Returns answers and latency percentiles in seconds, minute by minute."""
        minutes = defaultdict(list)
        for at, seconds in self.latencies:
            minutes[int(at // 60)].append(seconds)
        return [
            {"minute": minute, "answers": len(each)}
            | {f"p{rank}": round(float(np.percentile(each, rank)), 4) for rank in (50, 95, 99)}
            for minute, each in sorted(minutes.items())
        ]

    def memory(self) -> tuple[float, float] | None:
        """Returns the median resident MiB after warm-up and at the end; None if the run was too short to tell."""
        if not self.samples:
            return None
        whole = self.samples[-1]["at"]
        warm, window = whole * _WARM_UP_SHARE, whole * _WINDOW_SHARE
        first = [each["resident_mib"] for each in self.samples if warm <= each["at"] < warm + window]
        last = [each["resident_mib"] for each in self.samples if each["at"] > whole - window]
        return (median(first), median(last)) if first and last and whole > 60 else None


def main(
    model: Annotated[Path, typer.Option(help="Engine directory.")] = Path("models/lego-nano"),
    minutes: Annotated[float, typer.Option(min=0.2, help="How long.")] = 30.0,
    lanes: Annotated[int, typer.Option(min=1, help="Engine calls at the same time.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the server's engine.")] = 2,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/soak.json"),
) -> None:
    """Run the load, note what happens, and judge it."""
    soak = Soak()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(soak, model, minutes, lanes, threads))
    sys.exit(_conclude(soak, json_file, {"model": str(model), "lanes": lanes, "threads": threads}))


async def _run(soak: Soak, model: Path, minutes: float, lanes: int, threads: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    serve = [
        "lego_server", "serve", "--engines", str(model), "--port", "0", "--metrics-port", str(metrics_port), "--lanes",
        str(lanes), "--threads", str(threads), "--max-waiting", "6", "--resume-seconds", str(_RESUME_SECONDS),
    ]  # fmt: skip
    async with _process(*serve) as server:
        address = (await _line(server)).split()[-1]
        async with _process("benchmarks.soak_load", address) as load:
            soak.began = time.time()
            listening = asyncio.create_task(_listen(soak, load))
            while time.time() - soak.began < 60 * minutes:
                await asyncio.sleep(_PERIOD)
                if server.returncode is not None or load.returncode is not None:
                    who = "the load" if server.returncode is None else "the server"
                    soak.wrong.append(f"{time.time() - soak.began:.0f} s: {who} has ended")
                    return
                soak.samples.append(await asyncio.to_thread(_sample, soak.began, server.pid, metrics_port))
        await listening
        # Nobody is there any more: what is still held after resume_seconds has been forgotten by the server.
        await asyncio.sleep(_RESUME_SECONDS + 5)
        left = await asyncio.to_thread(_sample, soak.began, server.pid, metrics_port)
        held = {name: left[name] for name in ("sessions", "waiting", "active") if left[name]}
        if held:
            soak.wrong.append(f"after the load had ended, the server still held {held}")


async def _listen(soak: Soak, load: asyncio.subprocess.Process) -> None:
    assert load.stdout is not None
    async for line in load.stdout:
        with contextlib.suppress(json.JSONDecodeError):  # the last line of a process that was ended
            soak.hear(line.decode())


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    if not line:
        sys.exit("error: the server did not start, for the reason above")
    return line


@asynccontextmanager
async def _process(*module_and_arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python module in a process of its own; Ctrl-C is not for it, and it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *module_and_arguments, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()


def _sample(began: float, pid: int, metrics_port: int) -> dict[str, Any]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )  # fmt: skip
    sample: dict[str, Any] = {
        "at": round(time.time() - began, 1),
        "resident_mib": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name in _GAUGES:
                sample[_GAUGES[each.name]] = each.value
            elif family.name in _COUNTERS and each.name.endswith("_total"):
                sample.setdefault(family.name, {})[each.labels[_COUNTERS[family.name]]] = each.value
    return sample


def _conclude(soak: Soak, json_file: Path, settings: dict[str, Any]) -> int:
    memory = soak.memory()
    growth = None if memory is None else memory[1] / memory[0] - 1
    flat = growth is not None and growth <= _GROWTH_LIMIT
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "settings": settings,
        "memory_mib": memory and {"after_warm_up": memory[0], "at_the_end": memory[1]},
        "memory_growth": growth,
        "flat": flat,
        "latency_per_minute": soak.per_minute(),
        "happened": dict(sorted(soak.happened.items())),
        "wrong": soak.wrong,
        "samples": soak.samples,
    }
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(result, separators=(",", ":")) + "\n")
    if soak.samples:
        _plot(soak, json_file.with_suffix(".png"))
    for what, count in sorted(soak.happened.items()):
        print(f"{count:8d} {what}")
    for told in soak.wrong:
        print(f"WRONG after {told}")
    if memory is None or growth is None:
        print("the run was too short to say whether memory stays flat")
    else:
        verdict = "stayed flat" if flat else "GREW"
        print(f"memory {verdict}: {memory[0]:.1f} MiB after warm-up, {memory[1]:.1f} MiB at the end ({growth:+.1%})")
    return 0 if flat and not soak.wrong else 1


def _plot(soak: Soak, path: Path) -> None:
    figure, (memory, latency, counts) = plt.subplots(3, 1, figsize=(9, 9), sharex=True, layout="constrained")
    at = [each["at"] / 60 for each in soak.samples]
    memory.plot(at, [each["resident_mib"] for each in soak.samples])
    memory.set(ylabel="server memory (MiB)", ylim=(0, None))
    minutes = soak.per_minute()
    for rank in ("p50", "p95", "p99"):
        latency.plot([each["minute"] + 0.5 for each in minutes], [each[rank] for each in minutes], label=rank)
    latency.set(ylabel="question to guidance (s)", ylim=(0, None))
    latency.legend()
    for key, name in (("threads", "threads"), ("files", "file descriptors"), ("sessions", "sessions")):
        counts.plot(at, [each[key] for each in soak.samples], label=name)
    counts.set(ylabel="of the server", xlabel="minutes", ylim=(0, None))
    counts.legend()
    figure.savefig(path, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
