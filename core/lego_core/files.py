"""Writing files and folders so that they are whole or not there, and reading their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError


def check_output(path: Path) -> None:
    """Checks, before a long job begins, that its result can be written to a file; makes the file's folder.

    Raises:
        LegoError: It cannot; the message says why.
    """
    try:
        if path.is_dir():
            raise LegoError(f"{path} is a folder; give the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path if path.exists() else path.parent, os.W_OK)
    except OSError as error:
        raise LegoError(f"{path} cannot be written ({error.strerror}); choose another place") from error
    if not writable:
        raise LegoError(f"{path} cannot be written (no permission); choose another place")


@contextmanager
def folder_aside(directory: Path, purpose: str) -> Iterator[Path]:
    """Gives a temporary folder inside a directory, so that moving files from it into place is a rename.

    What processes left there that were killed, such as for want of memory, is removed first.

    Args:
        directory: Exists.
        purpose: A word for its name, such as "building"; see `is_aside`.
    """
    for folder in directory.glob(f".{purpose}-*"):
        process = folder.name.removeprefix(f".{purpose}-").partition("-")[0]
        if process.isdigit() and not _runs(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{purpose}-{os.getpid()}-", dir=directory) as folder_name:
        yield Path(folder_name)


def is_aside(path: Path, purpose: str) -> bool:
    """Says whether a path is a folder that `folder_aside` made."""
    return path.name.startswith(f".{purpose}-")


def existing_folder(path: Path) -> Path:
    """Returns the first folder on the way up from a path that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no text, no JSON, or nested too deeply for Python to read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:  # a thousand brackets are enough
        raise ValueError("it is nested too deeply") from None


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Writes a file aside and renames it, so that nobody ever reads half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere asking is not safe
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
