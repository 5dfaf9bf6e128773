"""Which versions of what a recording was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("lego-ar", "grpcio", "protobuf", "opencv-python-headless", "numpy", "pillow")


def software() -> dict[str, str]:
    """Returns versions by name: of the client, of what it stands on, of Python and of the machine."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout, or built in another way
            continue
    return found


def library() -> str:
    """Returns what writes the file, as it stands in its header."""
    return f"lego-ar {software().get('lego-ar', 'from source')}"
