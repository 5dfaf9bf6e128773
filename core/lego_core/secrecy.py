"""Where secrets may lie and where they may travel; client and server hold to the same rules."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

from lego_core.errors import LegoError

OTHERS = stat.S_IRWXO
OTHERS_AND_GROUP = stat.S_IRWXO | stat.S_IRWXG
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def refuse_exposed(path: Path, forbidden: int, what: str) -> None:
    """Refuses a file that others on this machine may read or change.

    Args:
        path: The file.
        forbidden: Permission bits that none of may be set, such as `OTHERS`.
        what: What the file holds, for the error: "the private key".

    Raises:
        LegoError: The file is missing, or one of the bits is set.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise LegoError(f"{what} {path} cannot be read ({error.strerror})") from error
    if mode & forbidden:
        deed = "change" if forbidden == WRITABLE_BY_OTHERS else "read"
        raise LegoError(
            f"others on this machine may {deed} {what} {path} (mode {mode:04o}): run chmod 600 {path}, and replace it "
            "if somebody may have"
        )


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host stays on this machine; a name other than localhost counts as not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
