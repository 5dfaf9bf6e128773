"""Why an address cannot be listened on."""

from __future__ import annotations

import os
import socket


def listen_fault(error: OSError | UnicodeError) -> str:
    """Returns a few words on what stood in the way; Python refuses what can be no host's name by a `UnicodeError`."""
    if isinstance(error, UnicodeError):
        return "that is no host name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)  # asyncio's and socket's own words repeat the address
