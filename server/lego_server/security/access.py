"""What one call may do: asked by the service and its sessions, decided at its admission."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

from lego_server.failures import Reason, RequestError
from lego_server.security.quota import Limits, Usage

_UNLIMITED = Limits()


class QuerySlot:
    """A query's place among its token's live ones: `release` it when the query has ended, or use it with `with`."""

    def __init__(self, usage: Usage) -> None:
        self._usage: Usage | None = usage

    def release(self) -> None:
        """Gives the place back; once is enough, twice does no harm."""
        if self._usage is not None:
            self._usage.live_queries -= 1
            self._usage = None

    def counts_in(self, usage: Usage) -> bool:
        """Whether it is held, of this usage."""
        return self._usage is usage

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.release()


class Access:
    """The rights of whoever makes a call."""

    def __init__(
        self,
        name: str = "anyone",
        limits: Callable[[], Limits] = lambda: _UNLIMITED,
        usage: Usage | None = None,
        clock: Callable[[], float] = time.monotonic,
        wearer: str = "",
    ) -> None:
        """Describes a caller; without arguments, one without limits.

        Args:
            name: Who opens a session, and may resume it.
            limits: Asked anew for each query; raises `RequestError` once the caller's token is no longer good.
            usage: Shared by all calls with the same token.
            clock: Monotonic seconds.
            wearer: Whom a token or certificate names; empty for whoever has none, who is not known from the others.
        """
        self.name = name
        self.wearer = wearer
        self._limits = limits
        self._usage = Usage() if usage is None else usage
        self._clock = clock

    def max_image_pixels(self, server_limit: int) -> int:
        """Returns the largest frame this caller may ask about.

        Raises:
            RequestError: INVALID: the caller's token is no longer good.
        """
        own = self._limits().max_image_pixels
        return server_limit if own is None else min(own, server_limit)

    def admit_query(self, pixels: int, superseded: QuerySlot | None = None) -> QuerySlot:
        """Counts a query in; the returned slot is released when it has ended.

        Args:
            pixels: Width times height of the frame asked about.
            superseded: The place of the query whose place the new one takes, which so does not stand in its way.

        Raises:
            RequestError: OVERLOADED: too many queries. INVALID: too large a frame, or a token no longer good.
        """
        limits = self._limits()
        if limits.max_image_pixels is not None and pixels > limits.max_image_pixels:
            raise RequestError(
                Reason.INVALID,
                f"the image has {pixels} pixels; this token allows {limits.max_image_pixels}: send a smaller one",
            )
        own_queries = int(superseded is not None and superseded.counts_in(self._usage))
        self._usage.take_query(limits, own_queries, self._clock())
        return QuerySlot(self._usage)

    def admit_speech(self, seconds: float) -> None:
        """Counts sound in that is to be written down.

        Raises:
            RequestError: OVERLOADED: too much of it. INVALID: a token no longer good.
        """
        self._usage.take_speech(self._limits(), seconds, self._clock())


_current: ContextVar[Access] = ContextVar("access")


def set_current_access(access: Access) -> None:
    """Names the caller for everything that runs on behalf of the present call."""
    _current.set(access)


def current_access() -> Access:
    """Returns the caller of the call being served, also in the tasks it has started.

    Raises:
        LookupError: Nothing here runs on behalf of a call. A query from nowhere has no rights, so this is no default.
    """
    return _current.get()
