"""Features that were computed once, on disk: keyed by what computed them and by the pictures they are of."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from lego_core.errors import LegoError
from lego_core.files import file_sha256
from numpy.typing import NDArray

_FILE = "features.sqlite"


class FeatureCache:
    """Arrays and texts by key. Several processes may write to one; an interruption costs what was not yet put.

    Args:
        folder: Made if absent.

    Raises:
        LegoError: The cache in it is damaged, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._digests: dict[Path, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self._path, timeout=600)
            with self._base:
                self._base.execute("CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, value BLOB)")
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._base.close()

    def key(self, kind: str, *parts: Path | str) -> bytes:
        """Returns a key of files' contents and of texts.

        Args:
            kind: What is computed, weights included.
            *parts: Files, which count by their bytes and not by their names, and texts.
        """
        named = [self._digest(each) if isinstance(each, Path) else f"text {each}" for each in parts]
        return hashlib.sha256("\0".join([kind, *named]).encode()).digest()

    def arrays(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Returns what is there of the keys, each a vector of float32."""
        return {key: np.frombuffer(value, np.float32) for key, value in self._read(keys)}

    def texts(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Returns what is there of the keys."""
        return {key: value.decode() for key, value in self._read(keys)}

    def put(self, values: dict[bytes, NDArray[np.float32]] | dict[bytes, str]) -> None:
        """Keeps arrays or texts: all of them or, when interrupted, none."""
        rows = [
            (key, value.encode() if isinstance(value, str) else np.ascontiguousarray(value, np.float32).tobytes())
            for key, value in values.items()
        ]
        try:
            with self._base:
                self._base.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        try:
            for key in dict.fromkeys(keys):
                row = self._base.execute("SELECT value FROM features WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    yield key, row[0]
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _digest(self, path: Path) -> str:
        if path not in self._digests:
            self._digests[path] = file_sha256(path)
        return self._digests[path]

    def _damaged(self, error: Exception) -> LegoError:
        return LegoError(f"{self._path} cannot be used ({error}); remove it to compute the features anew")
