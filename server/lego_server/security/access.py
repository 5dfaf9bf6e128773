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

    def __init__(self, access: Access) -> None:
        self._access: Access | None = access

    def release(self) -> None:
        """Gives the place back; once is enough, twice does no harm."""
        if self._access is not None:
            self._access.query_ended()
            self._access = None

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
    ) -> None:
        """Describes a caller; without arguments, one without limits.

        Args:
            name: For logs.
            limits: Asked anew for each query; raises `RequestError` once the caller's token is no longer good.
            usage: Shared by all calls with the same token.
            clock: Monotonic seconds.
        """
        self.name = name
        self._limits = limits
        self._usage = Usage() if usage is None else usage
        self._clock = clock
        self._live_queries = 0

    def max_image_pixels(self, server_limit: int) -> int:
        """Returns the largest frame this caller may ask about.

        Raises:
            RequestError: INVALID: the caller's token is no longer good.
        """
        own = self._limits().max_image_pixels
        return server_limit if own is None else min(own, server_limit)

    def admit_query(self, pixels: int) -> QuerySlot:
        """Counts a query in; the returned slot is released when it has ended.

        A query of the same call still live does not stand in the way: the new one supersedes it.

        Args:
            pixels: Width times height of the frame asked about.

        Raises:
            RequestError: OVERLOADED: too many queries. INVALID: too large a frame, or a token no longer good.
        """
        limits = self._limits()
        if limits.max_image_pixels is not None and pixels > limits.max_image_pixels:
            raise RequestError(
                Reason.INVALID,
                f"the image has {pixels} pixels; this token allows {limits.max_image_pixels}: send a smaller one",
            )
        self._usage.take_query(limits, self._live_queries, self._clock())
        self._live_queries += 1
        return QuerySlot(self)

    def query_ended(self) -> None:
        """Takes back what `admit_query` counted; called by the slot."""
        self._live_queries -= 1
        self._usage.live_queries -= 1


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
