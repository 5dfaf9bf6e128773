"""Messages on their way to one client: bounded, and never stale."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from lego_server.assistant import StepDone
from lego_server.messages import Message, QueryEvent


class Outbox:
    """A queue that a slow reader cannot fill: only the newest progress of a query waits in it.

    Description pieces and results are never dropped while their query is current. All methods belong to one event loop.
    """

    def __init__(self, limit: int = 256) -> None:
        """Makes an empty outbox.

        Args:
            limit: Messages above which `room` waits.
        """
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, message: Message) -> None:
        """Adds a message; progress replaces the progress of the same query that is still last in line."""
        if self._messages and (merged := _merge_progress(self._messages[-1], message)):
            self._messages[-1] = merged
        else:
            self._messages.append(message)
        self._changed.set()

    def discard(self, query_id: int) -> None:
        """Drops the events of a query that nobody waits for any more."""
        self._messages = deque(m for m in self._messages if not (isinstance(m, QueryEvent) and m.query_id == query_id))
        self._changed.set()

    def close(self) -> None:
        """Ends the iteration once everything put so far is taken."""
        self._closed = True
        self._changed.set()

    async def room(self) -> None:
        """Waits until the client has taken enough; the reader of its requests waits here."""
        while len(self._messages) >= self._limit and not self._closed:
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._changed.set()
                yield message
            if self._closed:
                return
            await self._wait()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _merge_progress(older: Message, newer: Message) -> QueryEvent | None:
    """Returns one message for two progress messages of one query, with the newest preview there is; else None."""
    if not (isinstance(older, QueryEvent) and isinstance(newer, QueryEvent) and older.query_id == newer.query_id):
        return None
    if not (isinstance(older.event, StepDone) and isinstance(newer.event, StepDone)):
        return None
    return replace(newer, event=replace(newer.event, preview=newer.event.preview or older.event.preview))
