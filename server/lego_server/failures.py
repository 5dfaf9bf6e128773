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
    DEADLINE_EXCEEDED = "deadline_exceeded"
    UNAVAILABLE = "unavailable"


_MESSAGE_BYTES = 2048  # gRPC sends the message of a whole call among its headers, which are bounded


class RequestError(LegoError):
    """A client's request cannot be served; the message is sent to the client, cut to 2 KiB.

    Attributes:
        reason: The kind of failure.
        retry_after: Seconds after which asking again may help; 0 where it is no cure.
    """

    def __init__(self, reason: Reason, message: str, retry_after: float = 0.0) -> None:
        data = message.encode(errors="replace")
        if len(data) > _MESSAGE_BYTES:
            message = data[: _MESSAGE_BYTES - 3].decode(errors="ignore") + "…"
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


INTERNAL_ERROR = "the server failed on this query; ask again, and if it fails again tell its operator to read the log"
SHUTTING_DOWN = "the server is shutting down; ask again when it is back"


def shutting_down() -> RequestError:
    """Returns the refusal of a server that drains. A second is how soon a supervisor may have another one up."""
    return RequestError(Reason.UNAVAILABLE, SHUTTING_DOWN, retry_after=1.0)


def as_request_error(error: Exception) -> RequestError:
    """Returns what a client may know of an error: its own words if they are meant for it, else INTERNAL."""
    return error if isinstance(error, RequestError) else RequestError(Reason.INTERNAL, INTERNAL_ERROR)
