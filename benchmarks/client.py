"""What a wearer's client costs: CPU of capturing, choosing, encoding and sending; time to start; size installed.

    python -m benchmarks.client --model models/lego-nano --json docs/results/client.json
    python -m benchmarks.client --install --json docs/results/client.json    # also installs it afresh, and weighs that

A camera (MJPEG over HTTP, 10 frames a second) and a real server run in processes of their own; the CPU time is that of
the client's process alone. Beside it stands what a script of ten lines would do: OpenCV reads the same stream and
encodes every frame. The sides take turns, so that whatever else the machine does falls on all.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
import typer
from lego_client.sending import Sending
from lego_client.session import GuidanceClient
from lego_client.sharpness import sharpest
from lego_client.sources import open_source
from rich.console import Console
from rich.table import Table

FPS = 10.0
SIZES = [(640, 480), (1920, 1080)]
WARM_UP_S = 3.0
IDLE, LIVE, SCRIPT = "client, nothing asked, --data-saver", "client, 10 frames a second sent", "OpenCV script"


class Load(NamedTuple):
    """What a process took: percent of one core, for so many frames a second."""

    percent: float
    fps: float


_processes = multiprocessing.get_context("spawn")


def main(
    model: Annotated[Path, typer.Option(help="Engine directory.")] = Path("models/lego-nano"),
    seconds: Annotated[float, typer.Option(min=1, help="How long each side is watched, each round.")] = 20.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side.")] = 3,
    install: Annotated[bool, typer.Option(help="Install the client into a new environment and weigh it.")] = False,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/client.json"),
) -> None:
    """Measure all and write the figures."""
    figures: dict[str, Any] = {"cpu": _cpu(model, seconds, rounds), "start_seconds": _start()}
    if install:
        figures["installed_megabytes"] = _install()
    elif json_file.exists() and "installed_megabytes" in (known := json.loads(json_file.read_text())):
        figures["installed_megabytes"] = known["installed_megabytes"]
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(figures, indent=2) + "\n")
    _report(figures, json_file)


def _cpu(model: Path, seconds: float, rounds: int) -> dict[str, dict[str, list[Load]]]:
    shares: dict[str, dict[str, list[Load]]] = {}
    with _server(model) as target:
        for width, height in SIZES:
            sides: dict[str, list[Load]] = {IDLE: [], LIVE: [], SCRIPT: []}
            with _camera(width, height) as address:
                for _ in range(rounds):
                    sides[IDLE].append(_share(_wear, address, target, True, seconds))
                    sides[LIVE].append(_share(_wear, address, target, False, seconds))
                    sides[SCRIPT].append(_share(_read_and_encode, address, seconds))
            shares[f"{width}x{height}"] = sides
            print(f"{width}x{height}: {sides}", flush=True)
    return shares


def _share(work: Callable[..., None], *arguments: Any) -> Load:
    """Returns the load of a process that does the work, once it is warm."""
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=work, args=(*arguments, theirs))
    process.start()
    theirs.close()
    load: Load = ours.recv()
    process.join()
    return load


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Watch:
    """Counts from the end of the warm-up."""

    def __init__(self, seconds: float) -> None:
        self._warm = time.monotonic() + WARM_UP_S
        self._end = self._warm + seconds
        self._cpu = self._began = 0.0
        self._frames = 0

    def goes_on(self) -> bool:
        """Called once a frame."""
        now = time.monotonic()
        if not self._cpu and now >= self._warm:
            self._cpu, self._began, self._frames = _cpu_seconds(), now, 0
        self._frames += 1
        return now < self._end

    def load(self) -> Load:
        seconds = time.monotonic() - self._began
        return Load(100 * (_cpu_seconds() - self._cpu) / seconds, self._frames / seconds)


def _wear(address: str, target: str, data_saver: bool, seconds: float, told: Connection) -> None:
    """A wearer's client: each newest frame is offered, as for a live view."""

    async def wear() -> Load:
        watch, seen = _Watch(seconds), 0
        async with GuidanceClient(target, sending=Sending(FPS, data_saver)) as client:
            while watch.goes_on():
                frames = await asyncio.to_thread(source.wait_for, seen + 1, 15.0)
                seen = frames[-1].sequence
                client.offer_frame(frames[-1].pixels, frames[-1].captured)
            assert sharpest(frames)
            return watch.load()

    with open_source(address) as source:
        told.send(asyncio.run(wear()))


def _read_and_encode(address: str, seconds: float, told: Connection) -> None:
    """The script: every frame is read and encoded at its full size."""
    watch, video = _Watch(seconds), cv2.VideoCapture(address)
    while watch.goes_on():
        ok, frame = video.read()
        assert ok
        cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])
    told.send(watch.load())


@contextmanager
def _camera(width: int, height: int) -> Iterator[str]:
    ours, theirs = _processes.Pipe()
    process = _processes.Process(target=_film, args=(width, height, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/live"
    finally:
        process.terminate()
        process.join()


def _film(width: int, height: int, told: Connection) -> None:
    """A camera: a texture of about a photograph's bytes that moves and has a sensor's noise, encoded beforehand."""
    random = np.random.default_rng(0)
    texture = random.integers(60, 190, (height // 8 + 8, width // 8 + 8, 3), dtype=np.uint8)
    parts = []
    for step in range(8):
        view = cv2.resize(texture[step : step + height // 8, step : step + width // 8], (width, height))
        noisy = np.clip(view + random.normal(0, 2, view.shape), 0, 255).astype(np.uint8)
        jpeg = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        parts.append(head.encode() + jpeg + b"\r\n")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number, due = 0, time.monotonic()
            while True:
                try:
                    self.wfile.write(parts[number % len(parts)])
                except OSError:
                    return
                number, due = number + 1, due + 1 / FPS
                time.sleep(max(0.0, due - time.monotonic()))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.send(server.server_port)
    server.serve_forever()


@contextmanager
def _server(model: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "lego_server", "serve", "--engines", str(model), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]  # listening on HOST:PORT
    finally:
        process.terminate()
        process.wait()


def _start() -> dict[str, list[float]]:
    """Seconds from typing a command to its first line, and of CPU that it takes, several times each."""
    figures: dict[str, list[float]] = {}
    commands = {"import lego_client.cli": ["-c", "import lego_client.cli"], "--help": ["-m", "lego_client", "--help"]}
    for name, code in commands.items():
        walls, cpus = [], []
        for _ in range(7):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run([sys.executable, *code], check=True, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            walls.append(time.monotonic() - began)
            cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        figures[name], figures[f"{name}, CPU"] = walls, cpus
    return figures


def _install() -> dict[str, float]:
    """Returns the megabytes of `pip install .[client]` in a new environment, in all and of its largest packages."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        base = _size(Path(folder))
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", "constraints.txt", ".[client]"], check=True)
        packages = next(Path(folder).glob("lib/python*/site-packages"))
        parts = {path.name: _size(path) for path in packages.iterdir() if path.is_dir()}
        largest = sorted(parts.items(), key=lambda part: -part[1])[:12]
        return {"installed": _size(Path(folder)) - base, "the environment with pip before": base, **dict(largest)}


def _size(folder: Path) -> float:
    files = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return round(sum(os.lstat(file).st_blocks * 512 for file in files) / 1e6, 1)


def _report(figures: dict[str, Any], path: Path) -> None:
    table = Table("camera", "side", "share of one core, median (least to most)", "frames a second")
    for size, sides in figures["cpu"].items():
        for side, loads in sides.items():
            percents, rates = zip(*loads, strict=True)
            share = f"{statistics.median(percents):.1f} % ({min(percents):.1f} to {max(percents):.1f})"
            table.add_row(size, side, share, f"{statistics.median(rates):.1f}")
    console = Console()
    console.print(table)
    for name, seconds in figures["start_seconds"].items():
        console.print(f"{name}: {statistics.median(seconds):.2f} s (least {min(seconds):.2f})")
    if "installed_megabytes" in figures:
        console.print(f"installed: {figures['installed_megabytes']}")
    console.print(f"figures in {path}")


if __name__ == "__main__":
    typer.run(main)
