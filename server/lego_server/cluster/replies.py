"""A query's events on their way from its replica: merged while they wait, and not too many a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from lego_server.assistant import Answer, DescriptionPiece, Event, Failed, StepDone

# Seconds between two events that are sent. Each costs the two processes about two milliseconds, and with a fast engine
# telling a step would cost more than making it; a wearer sees no difference.
_PACE = 0.05


class Replies:
    """A queue for one reader. The first event leaves at once, and so does the last. Belongs to one event loop."""

    def __init__(self, pace: float = _PACE) -> None:
        """Makes an empty queue.

        Args:
            pace: Least seconds between two events that are read, but for the last.
        """
        self._pace = pace
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    def put(self, event: Event) -> None:
        """Adds an event; a piece is joined to the piece before it, and a step takes the place of the one before it."""
        match self._events[-1] if self._events else None, event:
            case DescriptionPiece(text), DescriptionPiece(more, done):
                self._events[-1] = DescriptionPiece(text + more, done)
            case StepDone(preview=preview), StepDone():
                self._events[-1] = replace(event, preview=event.preview or preview)
            case _:
                self._events.append(event)
        self._changed.set()
        if isinstance(event, Answer | Failed):
            self._over.set()

    async def read(self) -> AsyncIterator[Event]:
        """Yields events up to an `Answer` or `Failed`."""
        while True:
            while not self._events:
                self._changed.clear()
                await self._changed.wait()
            event = self._events.popleft()
            yield event
            if isinstance(event, Answer | Failed):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), self._pace)
