"""Engines for replicas: the tiny graphs, slowed on request, with every call written to a file that a test can read."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lego_core.manifest import Manifest
from lego_server.engines import load_engine

_DELAY, _CALLS = "delay.txt", "calls.txt"


class _Recorded:
    """An engine whose calls are written to its directory before they are made, and take as long as is asked there."""

    def __init__(self, directory: Path) -> None:
        self._engine = load_engine(directory, threads=1)
        self._directory = directory
        self.name, self.manifest, self.texts = self._engine.name, self._engine.manifest, self._engine.texts

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, name)

    def _call(self, name: str, *arguments: Any) -> Any:
        with (self._directory / _CALLS).open("a") as calls:
            calls.write(f"{os.getpid()} {name}\n")
        if name == "denoise":
            time.sleep(float((self._directory / _DELAY).read_text()))
        return getattr(self._engine, name)(*arguments)


def load_recorded(directory: Path) -> Any:
    """What a replica is given to load its engine with."""
    return _Recorded(directory)


class EngineDirectory:
    """An engine directory, and what replicas have written to it."""

    def __init__(self, path: Path, fingerprint: str = "aaaaaaaaaaaaaaaa") -> None:
        from tests.server.tiny_engine import write_tiny_engine  # needs onnx

        self.path = path
        write_tiny_engine(path)
        self.rename(fingerprint)
        self.slow(0.0)
        (path / _CALLS).touch()

    def rename(self, fingerprint: str) -> None:
        """Makes it another version of the model."""
        replace(Manifest.load(self.path), checkpoint_fingerprint=fingerprint).save(self.path)

    def slow(self, seconds: float) -> None:
        """Has every denoising step take so long, from the next one on."""
        (self.path / "new.txt").write_text(str(seconds))
        (self.path / "new.txt").replace(self.path / _DELAY)

    def calls(self) -> Counter[str]:
        """Calls by name, begun so far by all replicas."""
        return Counter(line.split()[1] for line in self._lines())

    def processes(self) -> list[int]:
        """The replicas that have made calls, the one that made the last call last."""
        return list(dict.fromkeys(int(line.split()[0]) for line in reversed(self._lines())))[::-1]

    def _lines(self) -> list[str]:
        return (self.path / _CALLS).read_text().splitlines()
