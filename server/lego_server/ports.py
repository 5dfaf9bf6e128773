"""Addresses listened on: why one cannot be, and by which one others reach this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket


def listen_fault(error: OSError | UnicodeError) -> str:
    """Returns a few words on what stood in the way; Python refuses what can be no host's name by a `UnicodeError`."""
    if isinstance(error, UnicodeError):
        return "that is no host name"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)  # asyncio's and socket's own words repeat the address


def reachable_host(host: str) -> str:
    """Returns the address to reach a server at that listens on a host: of every address, one of this machine's."""
    with contextlib.suppress(ValueError, OSError):  # a name; no network
        if ipaddress.ip_address(host).is_unspecified:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("192.0.2.1", 9))  # an address for documentation; nothing is sent
                return str(probe.getsockname()[0])
    return host
