"""A query on its way: what was asked, what has been heard of it, and its events that wait to be read."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field, replace

from lego_proto.v1 import guidance_pb2 as pb

from lego_client.encoding import EncodedFrame
from lego_client.errors import ServerError
from lego_client.events import Event, Progress


@dataclass(frozen=True)
class SentFrame:
    """A frame given to the client to be sent.

    Attributes:
        frame_id: Its id.
        encoded: Exactly what is sent.
        captured: When the camera saw it, in seconds of `time.monotonic`.
    """

    frame_id: int
    encoded: EncodedFrame
    captured: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Seconds since the camera saw it; no clock needs to be right for that, nor two to agree."""
        return time.monotonic() - self.captured


class Inbox:
    """The events of one query, waiting for its reader. Newest wins: progress not yet read is replaced."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._failure: ServerError | None = None
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        """Adds an event."""
        waiting = self._events[-1] if self._events else None
        if isinstance(event, Progress) and isinstance(waiting, Progress) and event.query_id == waiting.query_id:
            self._events.pop()
            event = replace(event, preview=event.preview or waiting.preview)
        self._events.append(event)
        self._arrived.set()

    def fail(self, failure: ServerError) -> None:
        """Lets the reader know, after all events, that no more will come."""
        self._failure = failure
        self._arrived.set()

    async def take(self) -> Event:
        """Waits for the next event; what arrived before the server went away is still handed out.

        Raises:
            ServerError: The server went away.
        """
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()


@dataclass(eq=False)
class PendingQuery:
    """A query without an answer.

    Attributes:
        text: What the wearer asks.
        frame: The frame asked about; None means the newest.
        options: As they travel.
        deadline: On the event loop's clock, in seconds; None for the server's own limit.
        retries: How often it may still be asked again when the server has no room for it.
        query_id: Its id where it was asked last.
        session: The session it was asked in, and `stream` the stream, by the client's own count.
        heard: Whether anything came of it in that session.
        repeated: Whether it was sent twice under one id, as it may have been lost the first time.
        cancelled: Whether it is to be stopped.
        restarts: How often it was asked anew in another session.
    """

    text: str
    frame: SentFrame | None
    options: pb.GuidanceOptions
    deadline: float | None = None
    retries: int = 0
    query_id: int = 0
    session: int = 0
    stream: int = 0
    heard: bool = False
    repeated: bool = False
    cancelled: bool = False
    restarts: int = 0
    inbox: Inbox = field(default_factory=Inbox)

    def message(self, frame_id: int | None, model: str) -> pb.Query:
        """Returns the query as it travels now, with what is left of its time."""
        message = pb.Query(query_id=self.query_id, text=self.text, options=self.options, model=model)
        if frame_id is not None:
            message.frame_id = frame_id
        if self.deadline is not None:
            left = self.deadline - asyncio.get_running_loop().time()
            message.deadline_ms = max(1, round(1000 * left))
        return message
