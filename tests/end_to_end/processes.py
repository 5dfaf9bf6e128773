"""The product as people run it: each command in a process of its own, nothing patched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CLIENT = [sys.executable, "-m", "lego_client"]
SERVER = [sys.executable, "-m", "lego_server"]
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Server:
    """A running `lego-server serve`."""

    address: str
    process: subprocess.Popen[str]
    log: Path


@dataclass(frozen=True)
class Answer:
    """What `lego-client ask` left behind."""

    directory: Path

    @property
    def guidance(self) -> bytes:
        return (self.directory / "guidance.jpg").read_bytes()

    @property
    def record(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((self.directory / "record.json").read_text())
        return values


@contextmanager
def serving(model: Path, log: Path, *arguments: str) -> Iterator[Server]:
    """Runs a server on a free port until the block ends."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [*SERVER, "serve", "--engines", str(model), "--port", "0", "--threads", "1", "--verbose", *arguments],
            stdout=subprocess.PIPE, stderr=output, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        yield Server(line.split()[-1], process, log)
        if process.poll() is None:  # a test may have killed it
            process.terminate()
            assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def client(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs one client command to its end."""
    return subprocess.run(
        [*CLIENT, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, env=os.environ | variables
    )


def start_client(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Starts one client command."""
    return subprocess.Popen(
        [*CLIENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables
    )


def asking(server: Server, source: Path, out: Path, query: str, *options: str) -> list[str]:
    """Returns the arguments of `ask` about a picture: two steps, unless the options say otherwise."""
    return ["ask", "--server", server.address, "--source", str(source), "--out", str(out),
            *(options if "--steps" in options else ("--steps", "2", *options)), query]  # fmt: skip


def ask(server: Server, source: Path, out: Path, query: str, *options: str) -> Answer:
    """Asks about a picture and waits for the answer."""
    result = client(*asking(server, source, out, query, *options))
    assert result.returncode == 0, result.stderr
    return Answer(out)
