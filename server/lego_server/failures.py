"""Why a query failed, in terms a client can act on."""

from __future__ import annotations

from enum import Enum

from lego_core.errors import LegoError


class Reason(Enum):
    """The kinds of failure the protocol distinguishes; the names are those of `QueryError.Code`."""

    INVALID = "invalid"
    NO_FRAME = "no_frame"
    UNKNOWN_QUERY = "unknown_query"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"


class RequestError(LegoError):
    """A client's request cannot be served; the message is sent to the client.

    Attributes:
        reason: What kind of failure it is.
        retry_seconds: When it may be worth asking again; None where nothing is known of that.
    """

    def __init__(self, reason: Reason, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_seconds = retry_seconds
