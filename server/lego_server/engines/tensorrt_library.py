"""Whether TensorRT is installed, and in a version this software was written for."""

from __future__ import annotations

from lego_core.errors import LegoError

MINIMUM, LIMIT = (10, 13), (12, 0)
_CURE = "install the extra of this project that has it (pip install 'lego-ar[tensorrt]')"


def require_tensorrt() -> str:
    """Returns TensorRT's version, such as "11.4.0.106"; after it, `import tensorrt` is safe.

    Raises:
        LegoError: TensorRT or its CUDA bindings are absent, its libraries cannot be loaded, or the version is another.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise LegoError(f"TensorRT cannot be used here ({error}): {_CURE}") from error
    # A folder of that name without code imports as an empty module: remains of an uninstalled package, or type stubs.
    version = getattr(tensorrt, "__version__", None)
    if not isinstance(version, str):
        raise LegoError(f"TensorRT cannot be used here (an empty package of its name is in the way): {_CURE}")
    check_version(version)
    try:
        import cuda.bindings.runtime  # noqa: F401
    except ImportError as error:
        raise LegoError(f"TensorRT {version} is here, but cuda-bindings is not ({error}): {_CURE}") from error
    return version


def check_version(version: str) -> None:
    """Refuses a version outside the range this software was written for.

    Raises:
        LegoError: It is.
    """
    numbers = version.split(".")
    try:
        found = (int(numbers[0]), int(numbers[1]))
    except (ValueError, IndexError):
        raise LegoError(f"TensorRT's version is {version!r}, which is no version; reinstall tensorrt") from None
    if not MINIMUM <= found < LIMIT:
        low, high = (".".join(map(str, bound)) for bound in (MINIMUM, LIMIT))
        raise LegoError(
            f"TensorRT is of version {version}; this software needs {low} or newer, below {high}: "
            f"pip install 'tensorrt>={low},<{high}'"
        )
