"""Files that a command will write at its end."""

from __future__ import annotations

import os
from pathlib import Path

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
