"""Files that are read again when they change, without ever leaving the server with nothing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from lego_core.errors import LegoError

T = TypeVar("T")
_Signature = tuple[tuple[int, int, int] | None, ...]
_log = logging.getLogger(__name__)


class Reloading(Generic[T]):
    """What some files hold, read again when one of them has changed.

    New files that cannot be used leave the old value in place and one error in the log; they are tried again when they
    change once more, so that a certificate and a key replaced one after the other need no care. Safe from any thread:
    gRPC asks for certificates on threads of its own.
    """

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], T]) -> None:
        """Reads the files.

        Args:
            what: What they are, for the log: "the TLS certificate".
            paths: The files.
            load: Reads them; a `LegoError` or `OSError` says that they cannot be used.

        Raises:
            LegoError: They cannot be used.
        """
        self._what = what
        self._paths = tuple(paths)
        self._load = load
        self._lock = threading.Lock()
        # Taken before reading: a change during it is then seen as one.
        self._signature = self._look()
        self._value = load()

    def current(self) -> T:
        """Returns what the files hold now, or held when they were last good; costs a `stat` each."""
        with self._lock:
            signature = self._look()
            if signature != self._signature:
                self._signature = signature
                try:
                    self._value = self._load()
                    _log.info("%s has changed and is in use", self._what)
                except (LegoError, OSError) as error:
                    _log.error("%s has changed but cannot be used, so the old one stays: %s", self._what, error)
            return self._value

    def _look(self) -> _Signature:
        return tuple(_signature(path) for path in self._paths)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # follows links: renewal tools change where a link points
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
