"""How much one token may use, and how much of that it has used."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lego_core.errors import LegoError

from lego_server.failures import Reason, RequestError

CROWDED_RETRY_SECONDS = 5.0  # when one of several running things ends cannot be foretold


@dataclass(frozen=True)
class Limits:
    """What a token's holder may use; None where only the server's own limits hold.

    Attributes:
        queries_per_minute: Queries in a row at most; after that one every 60 / `queries_per_minute` seconds.
        live_queries: Queries being answered at once, in all sessions.
        sessions: Open streams.
        max_image_pixels: Largest frame.
        speech_seconds_per_minute: Sound written down, in seconds: so much in a row, and as much again every minute.
    """

    queries_per_minute: int | None = None
    live_queries: int | None = None
    sessions: int | None = None
    max_image_pixels: int | None = None
    speech_seconds_per_minute: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and (type(value) is not int or not 1 <= value <= 2**31):
                raise LegoError(f"{name} is {value!r}; it must be a whole number from 1, or left out for no limit")


class Usage:
    """What one token uses now, over all its calls. Belongs to one event loop."""

    def __init__(self) -> None:
        self.live_queries = 0
        self.sessions = 0
        self._queries = _Spent()
        self._speech = _Spent()

    def take_query(self, limits: Limits, own_queries: int, now: float) -> None:
        """Counts a query in, or refuses it.

        Args:
            limits: What is allowed.
            own_queries: Of the live ones, those of the asking session, which the new one supersedes.
            now: Seconds on a monotonic clock.

        Raises:
            RequestError: OVERLOADED, saying when to ask again.
        """
        others = self.live_queries - own_queries
        if limits.live_queries is not None and others >= limits.live_queries:
            raise RequestError(
                Reason.OVERLOADED,
                f"this token has {others} queries being answered, its limit; wait for one to end",
                CROWDED_RETRY_SECONDS,
            )
        if limits.queries_per_minute is not None:
            wait = self._queries.take(1, limits.queries_per_minute, now)
            if wait:
                raise RequestError(
                    Reason.OVERLOADED,
                    f"this token may ask {limits.queries_per_minute} queries a minute; ask again in "
                    f"{math.ceil(wait)} s",
                    wait,
                )
        self.live_queries += 1

    def take_speech(self, limits: Limits, seconds: float, now: float) -> None:
        """Counts sound in that is to be written down, or refuses it.

        Args:
            limits: What is allowed.
            seconds: How long it is.
            now: Seconds on a monotonic clock.

        Raises:
            RequestError: OVERLOADED, saying when to come again.
        """
        if limits.speech_seconds_per_minute is None:
            return
        wait = self._speech.take(seconds, limits.speech_seconds_per_minute, now)
        if wait:
            raise RequestError(
                Reason.OVERLOADED,
                f"this token may have {limits.speech_seconds_per_minute} s of speech written down a minute; speak "
                f"again in {math.ceil(wait)} s",
                wait,
            )


class _Spent:
    """What has been used of an allowance a minute, and is not yet made good by time."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._updated = -math.inf

    def take(self, amount: float, a_minute: int, now: float) -> float:
        """Takes an amount and returns 0; or takes nothing, and returns the seconds after which there will be room."""
        per_second = a_minute / 60
        spent = max(0.0, self._spent - (now - self._updated) * per_second)
        if spent + amount > a_minute + 1e-9:
            return (spent + amount - a_minute) / per_second
        self._spent, self._updated = spent + amount, now
        return 0.0
