"""Which frames the server's session has, and how many more may be on their way."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

# A server keeps the newest few; what it may have forgotten is sent again when it is asked about.
_FRAMES_KEPT = 4


class FrameWindow:
    """Counts credits, and knows a frame by the id it has in the present session."""

    def __init__(self) -> None:
        self._held: OrderedDict[int, int] = OrderedDict()  # a frame's first id -> its id in this session
        self._on_way: deque[int] = deque()
        self._credits = 0
        self._acknowledged = 0
        self._open = False
        self._changed = asyncio.Event()

    def connected(self, credits: int, resumed: bool) -> None:
        """A stream is open, with so many credits (0: without limit); a new session has no frames."""
        self._credits, self._open = credits, True
        if not resumed:
            self._held.clear()
        self._changed.set()

    def lost(self) -> None:
        """The stream broke: whatever has not been acknowledged may have been lost with it."""
        self._open = False
        self._on_way.clear()
        self._held = OrderedDict((frame, now) for frame, now in self._held.items() if now <= self._acknowledged)
        self._changed.set()

    def sent(self, frame_id: int, session_id: int) -> None:
        """A frame goes out under an id of this session."""
        self._held[frame_id] = session_id
        while len(self._held) > _FRAMES_KEPT:
            self._held.popitem(last=False)
        if self._credits:
            self._on_way.append(session_id)

    def received(self, session_id: int) -> None:
        """The server has this frame and all before it."""
        self._acknowledged = max(self._acknowledged, session_id)
        while self._on_way and self._on_way[0] <= session_id:
            self._on_way.popleft()
        self._changed.set()

    def id_of(self, frame_id: int) -> int | None:
        """Returns the id that a frame has in this session, None if it must be sent."""
        return self._held.get(frame_id)

    async def room(self) -> None:
        """Waits for a credit; without a stream there is nothing to wait for."""
        while self._open and self._credits and len(self._on_way) >= self._credits:
            self._changed.clear()
            await self._changed.wait()
