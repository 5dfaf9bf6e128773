"""Whether Ray is installed; asked before anything of it is imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from lego_core.errors import LegoError


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
