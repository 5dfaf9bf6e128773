"""What is done already: one file a clip, so that a run that is ended at any point goes on with the next clip."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.files import read_json, write_json
from lego_training.prepare.pairs import ClipResult


class Journal:
    """The state of preparing one split, in <out>/prepare/<dataset>_<split>.

    Args:
        folder: That folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.samples = folder / "samples"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run off.

        Raises:
            LegoError: There is one already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LegoError(f"another run is writing {self.folder}; wait for it or end it") from error
            yield

    def settle(self, settings: dict[str, Any]) -> None:
        """Writes the settings of a new split down, or makes sure that they are those it was begun with.

        Raises:
            LegoError: One is another; the message names it.
        """
        path = self.folder / "settings.json"
        if not path.is_file():
            write_json(path, settings)
            return
        begun = read_json(path)
        for key in {**begun, **settings}:
            if begun.get(key) != settings.get(key):
                raise LegoError(
                    f"{self.folder} was begun with {key} = {begun.get(key)}, not {settings.get(key)}: "
                    "give the same again, or another --out"
                )

    def write(self, result: ClipResult) -> None:
        """Writes down what became of a clip whose video was there; one whose was not is looked for again."""
        if result.was_read:
            write_json(self._path(result.clip_id), asdict(result))

    def read(self, clip_id: str) -> ClipResult | None:
        """Returns what became of a clip; None if that is not known yet."""
        path = self._path(clip_id)
        return ClipResult(**read_json(path)) if path.is_file() else None

    def _path(self, clip_id: str) -> Path:
        return self.folder / "clips" / f"{clip_id}.json"
