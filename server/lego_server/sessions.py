"""All sessions of a server, those with a stream and those that wait for their client to come back."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from lego_server.failures import Reason, RequestError
from lego_server.models import Models
from lego_server.session import Session


@dataclass
class OpenSession:
    """A session with what its client needs to come back to it.

    Attributes:
        session: The session.
        token: Known to its client alone.
        opener: Who may come back: whoever opened it.
        stream: Number of the stream that carries it, or carried it last.
        dismiss: Ends that stream.
        waiting: Ends it, while no stream carries it; None while one does.
    """

    session: Session
    token: str
    opener: str
    stream: int = 1
    dismiss: Callable[[], None] = lambda: None
    waiting: asyncio.TimerHandle | None = None


class Sessions:
    """Opens, keeps and ends sessions. All methods belong to one event loop."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._settings = models.config.sessions
        # By the token's digest, so that looking one up tells nothing of the others' by its timing.
        self._by_digest: dict[bytes, OpenSession] = {}
        self._draining = False

    def __len__(self) -> int:
        return len(self._by_digest)

    def open(self, opener: str, wearer: str = "") -> OpenSession:
        """Opens a session; one that waits for its client gives way where there are too many.

        Args:
            opener: Who alone may resume it.
            wearer: Whose it is, where that is known.

        Raises:
            RequestError: OVERLOADED: there are too many.
        """
        if len(self) >= self._settings.max_sessions:
            absent = next((each for each in self._by_digest.values() if each.waiting is not None), None)
            if absent is None:
                raise RequestError(
                    Reason.OVERLOADED, f"the server has {len(self)} sessions, its limit; try again later",
                    retry_after=5.0,
                )  # fmt: skip
            self.end(absent)
        token = secrets.token_urlsafe(32)
        opened = OpenSession(Session(self._models, wearer), token, opener)
        self._by_digest[_digest(token)] = opened
        self._models.telemetry.metrics.session_opened()
        return opened

    def resume(self, token: str, opener: str, received: int) -> OpenSession | None:
        """Returns the session of a token, ready to be read from after a message; None if it is not there any more.

        A stream that still carries it ends: its client has noticed before we did that it is broken.
        """
        found = self._by_digest.get(_digest(token))
        if found is None or found.opener != opener:
            return None
        if found.waiting is not None:
            found.waiting.cancel()
            found.waiting = None
        found.dismiss()
        found.stream += 1
        found.session.defer(False)
        found.session.outbox.release()
        found.session.outbox.rewind(received)
        return found

    def leave(self, opened: OpenSession, stream: int, for_good: bool = False) -> None:
        """A stream is over: if it still carried the session, that waits for its client for a while, then it ends.

        Args:
            opened: The session.
            stream: The stream's number.
            for_good: Whether the client will not be back, so that there is nothing to wait for.
        """
        if stream != opened.stream:
            return
        if for_good or self._settings.resume_seconds == 0 or self._draining or opened.session.outbox.closed:
            self.end(opened)
        elif opened.waiting is None:
            opened.session.defer(True)
            loop = asyncio.get_running_loop()
            opened.waiting = loop.call_later(self._settings.resume_seconds, self.end, opened)

    def end(self, opened: OpenSession) -> None:
        """Ends a session and drops its work."""
        if opened.waiting is not None:
            opened.waiting.cancel()
        opened.session.close()
        opened.dismiss()
        if self._by_digest.pop(_digest(opened.token), None) is not None:
            self._models.telemetry.metrics.session_closed()

    def drain(self) -> None:
        """Takes no new query; each session ends once its query is answered, those without a stream at once."""
        self._draining = True
        for opened in list(self._by_digest.values()):
            opened.session.finish()
            if opened.waiting is not None:
                self.end(opened)

    def hand_back(self) -> None:
        """Ends every query that is still being answered, with word of when to ask again."""
        for opened in list(self._by_digest.values()):
            opened.session.hand_back()

    @property
    def idle_seconds(self) -> float:
        """How long a client may say nothing."""
        return self._settings.idle_seconds

    @property
    def answering(self) -> bool:
        """Whether a query of any session is being answered."""
        return any(opened.session.answering for opened in self._by_digest.values())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
