"""What can be known of Ray before anything of it is imported."""

from __future__ import annotations

import socket
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from lego_core.errors import LegoError

_KNOCK_SECONDS = 5.0


def require_ray() -> str:
    """Returns the version of Ray that is installed.

    Raises:
        LegoError: There is none, or it lacks Ray Serve's own requirements.
    """
    cure = "install it with pip install 'lego-ar[cluster]'"
    try:
        found = version("ray")
    except PackageNotFoundError as error:
        raise LegoError(f"lego-server cluster needs Ray, which is not installed: {cure}") from error
    # Ray Serve imports both; the bare package ray has neither.
    lacking = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if lacking:
        raise LegoError(f"ray {found} is installed without Ray Serve, which needs {', '.join(lacking)}: {cure}")
    return found


def require_head(address: str) -> None:
    """Finds out whether anybody listens at a cluster's address; Ray itself would try for minutes.

    Args:
        address: HOST:PORT, or auto, which is left to Ray.

    Raises:
        LegoError: Nobody does, or it is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise LegoError(
            f"no Ray cluster can be reached at {address} ({error}): start its head, or give another --ray-address"
        ) from error
