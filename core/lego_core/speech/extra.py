"""What to say where the packages of speech are not installed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from lego_core.errors import LegoError


@contextmanager
def needs_extra(what: str, extra: str = "speech") -> Generator[None, None, None]:
    """Turns a missing package into a sentence that says what to install.

    Args:
        what: What cannot be had without it, as the subject of a sentence.
        extra: The extra of lego-ar that has the package.

    Raises:
        LegoError: The import within failed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise LegoError(f'{what} needs the package {error.name}: pip install "lego-ar[{extra}]"') from error
