"""The end of a whole call as every transport can tell it: a status of gRPC's, a sentence, when to come again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import grpc

from lego_server.failures import Reason, RequestError

_STATUS = {
    Reason.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}


@dataclass
class Refusal(Exception):
    """A call is not served, or no further; whoever carries it tells its client.

    Attributes:
        status: Why.
        message: One sentence for the client.
        retry_seconds: After which coming again may help; None where it is no cure.
    """

    status: grpc.StatusCode
    message: str
    retry_seconds: float | None = None

    @classmethod
    def of(cls, error: RequestError) -> Self:
        """Returns the same failure, of the whole call."""
        return cls(_STATUS[error.reason], str(error), error.retry_after or None)
