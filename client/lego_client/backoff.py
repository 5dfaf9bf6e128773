"""How long to wait before trying again: exponential backoff with full jitter, bounded in total time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from lego_core.errors import LegoError

_MOST_DOUBLINGS = 30


@dataclass(frozen=True)
class Backoff:
    """Full jitter, so that a crowd of clients does not come back at one moment.

    Attributes:
        seconds: For how long an outage is fought; 0 gives up at once.
        base: The first wait is up to this many seconds; each further one up to twice the one before.
        cap: The longest wait, in seconds.
        uniform: Draws from [0, 1).
        clock: Seconds that never run backwards.
    """

    seconds: float = 60.0
    base: float = 0.2
    cap: float = 5.0
    uniform: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            raise LegoError(f"reconnect is {self.seconds:g} s; it must be 0 or more")


class Outage:
    """The tries of one outage; its time runs from when it is made."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._end = backoff.clock() + backoff.seconds
        self._tries = 0

    @property
    def seconds_left(self) -> float:
        """Until it is given up; 0 or below when it is."""
        return self._end - self._backoff.clock()

    def next_wait(self, at_least: float = 0.0) -> float:
        """Returns the seconds to wait before the next try.

        Args:
            at_least: Seconds the server asked for.
        """
        longest = min(self._backoff.cap, self._backoff.base * 2 ** min(self._tries, _MOST_DOUBLINGS))
        self._tries += 1
        return max(0.0, min(self.seconds_left, max(at_least, longest * self._backoff.uniform())))

    async def pause(self, at_least: float = 0.0) -> None:
        """Waits before the next try; see `next_wait`."""
        await asyncio.sleep(self.next_wait(at_least))
