"""What a stage writes down while it trains: a CSV file, TensorBoard events, and sample pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Figures:
    """Of one optimizer step.

    Attributes:
        step: From 0.
        loss: Mean over the step's samples.
        learning_rate: Of the step.
        gradient_norm: Before it was limited.
        samples_per_second: Of all processes together, from the end of one step to the end of the next.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    samples_per_second: float


COLUMNS = tuple(each.name for each in fields(Figures))


class Journal(Protocol):
    """Takes down what happens."""

    smooth: float

    def add(self, figures: Figures) -> None:
        """Takes down a step."""

    def add_picture(self, step: int, picture: NDArray[np.uint8]) -> None:
        """Keeps samples painted after `step` steps, (H, W, 3)."""


def open_journal(run: Path, name: str, first: int, writes: bool) -> AbstractContextManager[Journal]:
    """Opens `<run>/<name>.csv` and `<run>/tensorboard/<name>`.

    Args:
        run: Directory of the run.
        name: Of the stage.
        first: Step to go on with; lines and events of later steps, which will be done again, are dropped.
        writes: False for a process that is not the main one; it takes nothing down.
    """
    return _FileJournal.opened(run, name, first) if writes else _no_journal()


class _FileJournal:
    def __init__(self, run: Path, name: str, first: int) -> None:
        # Here, because it takes a moment to load.
        from torch.utils.tensorboard import SummaryWriter

        run.mkdir(parents=True, exist_ok=True)
        path = run / f"{name}.csv"
        kept = list(csv.DictReader(path.read_text().splitlines()))[:first] if path.is_file() else []
        self._file = path.open("w", newline="", buffering=1)
        self._lines = csv.DictWriter(self._file, COLUMNS, restval="")
        self._lines.writeheader()
        self._lines.writerows(kept)
        self._pictures = run / "samples"
        self._events = SummaryWriter(str(run / "tensorboard" / name), purge_step=first)
        self._name = name
        self.smooth = float(kept[-1]["loss"]) if kept else float("nan")

    @classmethod
    @contextmanager
    def opened(cls, run: Path, name: str, first: int) -> Iterator[Journal]:
        journal = cls(run, name, first)
        try:
            yield journal
        finally:
            journal._file.close()
            journal._events.close()

    def add(self, figures: Figures) -> None:
        values = asdict(figures)
        self._lines.writerow({name: f"{value:.6g}" for name, value in values.items()} | {"step": figures.step})
        for name in COLUMNS[1:]:
            self._events.add_scalar(name, values[name], figures.step)
        loss = figures.loss
        self.smooth = loss if math.isnan(self.smooth) else 0.98 * self.smooth + 0.02 * loss

    def add_picture(self, step: int, picture: NDArray[np.uint8]) -> None:
        self._pictures.mkdir(exist_ok=True)
        Image.fromarray(picture).save(self._pictures / f"{self._name}_{step:07d}.png")
        self._events.add_image("samples", picture, step, dataformats="HWC")


class _Silence:
    smooth = float("nan")

    def add(self, figures: Figures) -> None:
        pass

    def add_picture(self, step: int, picture: NDArray[np.uint8]) -> None:
        pass


@contextmanager
def _no_journal() -> Iterator[Journal]:
    yield _Silence()
