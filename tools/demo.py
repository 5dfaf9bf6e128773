"""The whole product in a minute: a server, a first-person film of three toy kitchens, and a wearer who asks.

Every step is a command that anyone can run; it is printed before it runs.

    python tools/demo.py --model models/lego-nano --out out/demo
"""

from __future__ import annotations

import argparse
import json
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

_START_SECONDS = 120.0  # loading and warming up take seconds; this is for a machine that is busy
_STOP_SECONDS = 15.0  # the server itself gives queries in flight 10 s
_POLL_SECONDS = 0.05
_MARK = ".lego-demo"  # tells a demo's folder, which may be emptied, from any other
_signals: list[int] = []  # received so far
# What people type, and the module behind it: modules run in this environment even if it is not activated.
_COMMANDS = {"lego-server": "lego_server", "lego-train": "lego_training", "lego-client": "lego_client"}


def main() -> int:
    """Runs the demo; returns 0, or 2 for what the user can put right.

    Raises:
        SystemExit: A command failed, with its exit code; or 128 + the number of the signal that stopped the demo.
    """
    parser = argparse.ArgumentParser(description="Show LEGO-AR at work.")
    parser.add_argument("--model", type=Path, default=Path("models/lego-nano"), help="engine directory")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results; replaced")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each kitchen's part of the film")
    options = parser.parse_args()
    # Only noted here and acted on between two looks at a child: an exception out of a signal handler could strike while
    # a child is being started, and would leave it behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: _signals.append(received))
    began = time.monotonic()
    try:
        _prepare(options.model, options.out)
        pictures = demonstrate(options.model, options.out, options.seconds)
    except LegoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\ndone in {time.monotonic() - began:.0f} s; look at")
    for path in (options.out / "demo.mp4", *pictures):
        print(f"  {path}")
    return 0


def demonstrate(model: Path, out: Path, seconds: float) -> list[Path]:
    """Serves the model, renders the tour, plays it through the client; returns a picture per answer.

    Raises:
        LegoError: The server does not start.
        SystemExit: A command failed; it has said why. Or a signal stopped the demo.
    """
    film, queries = out / "tour.mp4", out / "queries.json"
    with _server(model, out / "server.log") as address:
        _run(["lego-train", "toy-kitchen", "tour", str(film), "--seconds", f"{seconds:g}", "--queries", str(queries)])
        _run(["lego-client", "play", "--server", address, "--clip", str(film), "--queries", str(queries),
              "--out", str(out), "--seed", "1"])  # fmt: skip
    return [_name_picture(record, out) for record in sorted(out.glob("*/record.json"))]


def _prepare(model: Path, out: Path) -> None:
    """Checks the model's place; empties the folder if it is an earlier demo's, and refuses any other that has files."""
    if not (model / "manifest.json").is_file():
        raise LegoError(
            f"{model} holds no engines; name an engine directory with make demo MODEL=..., "
            "or build one: lego-export build CHECKPOINT DIRECTORY"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / _MARK).is_file():
            raise LegoError(f"{out} is not empty and holds no earlier demo; choose another folder for the results")
        for old in out.iterdir():  # the folder itself stays: it may be a link
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()


@contextmanager
def _server(model: Path, log: Path) -> Iterator[str]:
    """Runs a server; yields its HOST:PORT once it answers, and stops it whatever happens."""
    command = ["lego-server", "serve", "--engines", str(model), "--port", "0"]
    with log.open("wb") as output, _running(command, stdout=subprocess.PIPE, stderr=output) as process:
        yield _wait_until_listening(process, log)


def _wait_until_listening(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_SECONDS
    line = ""
    while not line and time.monotonic() < deadline:
        _stop_if_asked()
        if select.select([process.stdout], [], [], _POLL_SECONDS)[0]:
            line = process.stdout.readline() or "it has ended"
    _stop_if_asked()  # Ctrl-C reaches the server too, which may then have ended before it listened
    if not line.startswith("listening on "):
        told = log.read_text(errors="replace").strip().splitlines() or [line or f"no sign in {_START_SECONDS:g} s"]
        raise LegoError(f"the server did not start: {told[-1]} (its whole log is {log})")
    print(line.strip(), flush=True)
    return line.removeprefix("listening on ").strip()


def _run(command: Sequence[str]) -> None:
    """Runs one command to its end."""
    with _running(command) as process:
        while process.poll() is None:
            _stop_if_asked()
            time.sleep(_POLL_SECONDS)
    _stop_if_asked()
    if process.returncode != 0:
        print(f"error: {command[0]} failed", file=sys.stderr)
        sys.exit(process.returncode)


@contextmanager
def _running(command: Sequence[str], **pipes: Any) -> Iterator[subprocess.Popen[str]]:
    """Prints and starts a command; ends it with the block, if it has not ended by itself."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", _COMMANDS[command[0]], *command[1:]], text=True, **pipes)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stop_if_asked() -> None:
    if _signals:
        print("stopped", file=sys.stderr)
        sys.exit(128 + _signals[0])


def _name_picture(record: Path, out: Path) -> Path:
    """Copies an answer's side_by_side.png to demo_THING.png, named after what was asked about."""
    thing = json.loads(record.read_text(encoding="utf-8"))["query"].rstrip("?").split()[-1]
    return Path(shutil.copyfile(record.with_name("side_by_side.png"), out / f"demo_{thing}.png"))


if __name__ == "__main__":
    sys.exit(main())
