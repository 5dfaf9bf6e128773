"""Files that are seen either whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


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


def write_json(path: Path, values: Any) -> None:
    """Writes values as JSON, whole; a number that is none raises ValueError."""
    write_whole(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
