"""Messages on their way to one client: bounded, never stale, and not lost with the stream that was to carry them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from lego_server.assistant import Answer, DescriptionPiece, StepDone
from lego_server.messages import FrameReceived, Message, QueryEvent, QueryFailed


class Outbox:
    """A queue that a slow reader cannot fill: only the newest progress of a query waits in it.

    Description pieces and results are never dropped while their query is current. What has been taken of the current
    query is kept until the next one, so that it can be taken again after a stream has broken. One reader at a time:
    the newest takes over. All methods belong to one event loop.
    """

    def __init__(self, limit: int = 256, limit_bytes: int = 2**22) -> None:
        """Makes an empty outbox.

        Args:
            limit: Messages above which `room` waits.
            limit_bytes: The same, of pictures and texts in them.
        """
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._messages: deque[Message] = deque()
        self._again: deque[tuple[int, Message]] = deque()  # taken before, to be taken once more
        self._taken: deque[tuple[int, Message]] = deque(maxlen=limit)
        self._sequence = 0
        self._reader = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, message: Message) -> None:
        """Adds a message; progress replaces the progress of the same query that is still last in line.

        Once the outbox is closed, it takes no more.
        """
        if self._closed:
            return
        if isinstance(message, FrameReceived):  # speaks for those before it
            self._messages = deque(m for m in self._messages if not isinstance(m, FrameReceived))
        if self._messages and (merged := _merge_progress(self._messages[-1], message)):
            self._messages[-1] = merged
        else:
            self._messages.append(message)
        self._changed.set()

    def discard(self, query_id: int) -> None:
        """Drops the events of a query that nobody waits for any more, those kept to be taken again included."""
        self._messages = deque(m for m in self._messages if not _is_event_of(m, query_id))
        self._again = deque(each for each in self._again if not _is_event_of(each[1], query_id))
        self.forget()
        self._changed.set()

    def forget(self) -> None:
        """Keeps nothing of what has been taken: another query begins."""
        self._taken.clear()

    def rewind(self, received: int) -> None:
        """Has everything kept that was taken after a sequence number taken again, in its order and by its number."""
        self._again = deque(each for each in (*self._taken, *self._again) if each[0] > received)
        self._taken.clear()
        self._changed.set()

    def close(self) -> None:
        """Ends the reading once everything put so far is taken."""
        self._closed = True
        self._changed.set()

    def release(self) -> None:
        """Ends the current reader where it is; the next one goes on."""
        self._reader += 1
        self._changed.set()

    @property
    def closed(self) -> bool:
        """Whether the reading ends once everything put so far is taken."""
        return self._closed

    async def room(self) -> None:
        """Waits until the client has taken enough; the reader of its requests waits here."""
        while self._full() and not self._closed:
            await self._wait()

    async def read(self) -> AsyncIterator[tuple[int, Message]]:
        """Yields messages with their sequence numbers until the outbox is closed or another reader comes."""
        self.release()
        me = self._reader
        while me == self._reader:
            if self._again or self._messages:
                item = self._again.popleft() if self._again else (self._next_number(), self._messages.popleft())
                self._keep(item)
                self._changed.set()
                yield item
            elif self._closed:
                return
            else:
                await self._wait()

    def _full(self) -> bool:
        return len(self._messages) >= self._limit or sum(map(_size, self._messages)) >= self._limit_bytes

    def _next_number(self) -> int:
        self._sequence += 1
        return self._sequence

    def _keep(self, item: tuple[int, Message]) -> None:
        """Keeps what a resumed stream must not miss: of progress, only the newest."""
        message = item[1]
        if isinstance(message, FrameReceived) or message.query_id == 0:
            return
        if self._taken and _is_progress(message) and _is_progress(self._taken[-1][1]):
            self._taken.pop()
        self._taken.append(item)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _size(message: Message) -> int:
    """Returns about how many bytes a message takes."""
    match message:
        case QueryEvent(event=StepDone(preview=preview)):
            return len(preview)
        case QueryEvent(event=Answer(image=image, description=description)):
            return len(image) + len(description)
        case QueryEvent(event=DescriptionPiece(text=text)) | QueryFailed(text=text):
            return len(text)
        case _:
            return 0


def _is_event_of(message: Message, query_id: int) -> bool:
    return isinstance(message, QueryEvent) and message.query_id == query_id


def _is_progress(message: Message) -> bool:
    return isinstance(message, QueryEvent) and isinstance(message.event, StepDone)


def _merge_progress(older: Message, newer: Message) -> QueryEvent | None:
    """Returns one message for two progress messages of one query, with the newest preview there is; else None."""
    if not (isinstance(older, QueryEvent) and isinstance(newer, QueryEvent) and older.query_id == newer.query_id):
        return None
    if not (isinstance(older.event, StepDone) and isinstance(newer.event, StepDone)):
        return None
    return replace(newer, event=replace(newer.event, preview=newer.event.preview or older.event.preview))
