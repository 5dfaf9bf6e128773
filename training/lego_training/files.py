"""Files that are seen either whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lego_core import files as core_files
from lego_core.errors import LegoError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file aside and renames it; makes its folder.

    Raises:
        OSError: It cannot be written; nothing is left of it then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_progress(path: Path, key: str, done: int) -> None:
    """Notes how much of a long job is done, and of which job it is."""
    write_whole(path, f"{key}\n{done}\n".encode())


def read_progress(path: Path) -> tuple[str, int]:
    """Returns what `write_progress` noted.

    Raises:
        LegoError: The file is damaged.
    """
    try:
        key, done = path.read_text(encoding="utf-8").splitlines()
        return key, int(done)
    except (OSError, ValueError) as error:
        raise LegoError(f"{path} is damaged ({error}); remove {path.parent} to do its work anew") from error


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote.

    Raises:
        LegoError: The file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LegoError(f"{path} is damaged ({error}); remove it to do its work anew") from error


def write_json(path: Path, values: Any) -> None:
    """Writes values as JSON, whole; a number that is none raises ValueError."""
    write_whole(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())


def check_settings(path: Path, settings: dict[str, Any], what: str) -> None:
    """Writes what a folder's contents are made with, or compares it with what they were made with.

    Args:
        path: The file in the folder.
        settings: Plain JSON values.
        what: The contents, for the error, such as "an ablation".

    Raises:
        LegoError: The folder's contents are of other settings; the message names the first, with both values.
    """
    content = json.dumps(settings, indent=1, allow_nan=False)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Workers may start together: each writes the same, under a name of its own first.
        core_files.write_whole(path, f"{content}\n".encode())
        return
    saved = read_json(path)
    for key, theirs, ours in _differences(saved, json.loads(content)):
        told = "unknown" if theirs is _UNKNOWN else repr(theirs)
        raise LegoError(
            f"{path.parent} holds {what} with another {key}; choose another folder, or remove this one to make it "
            f"anew (there it is {told}, here {ours!r})"
        )


_UNKNOWN = object()


def _differences(saved: Any, asked: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields what is asked otherwise than saved: its dotted key, the saved value and the one that is asked."""
    for key, ours in asked.items():
        theirs = saved.get(key, _UNKNOWN) if isinstance(saved, dict) else _UNKNOWN
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differences(theirs, ours, f"{prefix}{key}.")
        elif theirs != ours:
            yield f"{prefix}{key}", theirs, ours


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Adds a line of JSON to a file of them, which is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a line that was cut off must not swallow this one
                file.write(b"\n")
        file.write(json.dumps(entry).encode() + b"\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields what `append_line` wrote; lines that were cut off when their writer was stopped are passed over."""
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
