"""Addresses of streams: what may be said of them, and what only the camera may hear."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit

SCHEMES = ("rtsp", "rtsps", "http", "https")


def is_address(spec: str) -> bool:
    """Whether what a user wrote is the address of a stream."""
    return spec.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def shown(address: str) -> str:
    """Returns an address as it may stand in messages and records: without a name, a password or what follows a "?".

    Whatever stands before the last "@" may belong to a password that was not escaped, so all of it is left out; and
    many cameras take a password after the "?".
    """
    scheme, _, rest = address.partition("://")
    rest = rest.rpartition("@")[2]
    place, mark, _ = rest.partition("?")
    return f"{scheme}://{place.partition('#')[0]}{'?...' if mark else ''}"


def without_credentials(address: str) -> tuple[str, str, str]:
    """Returns an address to ask for, and the user name and password that stood in it, "" where there were none."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit((parts.scheme, host, parts.path or "/", parts.query, ""))
    return bare, unquote(parts.username or ""), unquote(parts.password or "")
