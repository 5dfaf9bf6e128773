"""What is kept of frames goes with them, and is never freed under the lock."""

from __future__ import annotations

import gc
from collections.abc import Callable

from lego_server.engines.prefixes import Prefixes


class Frame:
    """Something that can be referred to weakly."""


class Read:
    """Calls a function when it is freed."""

    def __init__(self, freed: Callable[[], None]) -> None:
        self._freed = freed

    def __del__(self) -> None:
        self._freed()


def test_nothing_is_freed_under_the_lock_however_it_goes() -> None:
    prefixes: Prefixes[Read] = Prefixes(1)
    held: list[bool] = []

    def freed() -> None:
        held.append(prefixes._lock._is_owned())  # type: ignore[attr-defined]  # RLock's, for Condition

    first, second = Frame(), Frame()
    prefixes.keep(first, (1,), Read(freed))
    prefixes.keep(first, (2,), Read(freed))  # takes its place
    prefixes.keep(second, (1,), Read(freed))  # crowds it out
    del second  # takes it along
    gc.collect()

    assert held == [False] * 3 and len(prefixes) == 0
