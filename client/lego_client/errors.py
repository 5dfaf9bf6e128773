"""What can go wrong on the far side. What the user can put right is a `lego_core.errors.LegoError`."""

from __future__ import annotations


class ServerError(RuntimeError):
    """The server is not there, went away, or could not answer. The message is written for the wearer."""


class ConnectionFailed(ServerError):
    """There is no stream to the server, or no longer.

    Attributes:
        curable: Whether trying again may help.
        retry_after_seconds: How long the server asked not to be tried again.
    """

    def __init__(self, message: str, curable: bool = True, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.curable = curable
        self.retry_after_seconds = retry_after_seconds
