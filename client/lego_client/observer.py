"""Who watches a session without taking part in it."""

from __future__ import annotations

from lego_client.events import Event, ServerInfo
from lego_client.pending import PendingQuery, SentFrame


class SessionObserver:
    """Told on the event loop what a session sends and hears, so it must return at once. Overrides what it needs."""

    def opened(self) -> None:
        """A session begins: ids of frames and queries count from 1."""

    def connected(self, target: str, session_id: str, server: ServerInfo, resumed: bool) -> None:
        """A stream is open: of the session that was, or of a new one."""

    def disconnected(self, reason: str, for_good: bool) -> None:
        """The stream broke; unless for good, the client is trying to open another."""

    def frame_sent(self, frame: SentFrame) -> None:
        """A frame went out, or waits for a connection; told once a frame."""

    def asked(self, query: PendingQuery, frame: SentFrame | None, model: str) -> None:
        """A query was asked about a frame; None where no frame had been sent."""

    def asked_anew(self, query_id: int, earlier_query_id: int) -> None:
        """A query is asked again under another id; what came of the earlier one is void."""

    def heard(self, event: Event) -> None:
        """Something came of a query, and its reader gets it now."""
