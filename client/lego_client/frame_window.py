"""Which frames the server's session has, and how many more may be on their way."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

# A server keeps the newest few; what it may have forgotten is sent again when it is asked about.
_FRAMES_KEPT = 4


class _OnWay(NamedTuple):
    session_id: int
    size: int
    sent: float


class FrameWindow:
    """Counts credits, knows a frame by the id it has in the present session, and how long the link took for it."""

    def __init__(
        self, delivered: Callable[[int, float], None] = lambda size, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Has no stream yet.

        Args:
            delivered: Told of bytes that arrived, and for how many seconds the link was busy with them.
            clock: Seconds that never run backwards.
        """
        self._delivered = delivered
        self._clock = clock
        self._round_trip = 0.0
        self._heard = float("-inf")
        self._held: OrderedDict[int, int] = OrderedDict()  # a frame's first id -> its id in this session
        self._on_way: deque[_OnWay] = deque()
        self._credits = 0
        self._acknowledged = 0
        self._open = False
        self._changed = asyncio.Event()

    def connected(self, credits: int, resumed: bool, round_trip: float = 0.0) -> None:
        """A stream is open, with so many credits (0: without limit); a new session has no frames.

        Args:
            credits: Frames that may be on their way at once.
            resumed: Whether the session is the one that was.
            round_trip: Seconds in which a short message was answered, at most.
        """
        self._credits, self._open, self._round_trip = credits, True, round_trip
        if not resumed:
            self._held.clear()
        self._changed.set()

    def lost(self) -> None:
        """The stream broke: whatever has not been acknowledged may have been lost with it."""
        self._open = False
        self._on_way.clear()
        self._held = OrderedDict((frame, now) for frame, now in self._held.items() if now <= self._acknowledged)
        self._changed.set()

    def sent(self, frame_id: int, session_id: int, size: int = 0) -> None:
        """A frame of so many bytes goes out under an id of this session."""
        self._held[frame_id] = session_id
        while len(self._held) > _FRAMES_KEPT:
            self._held.popitem(last=False)
        if self._credits:
            self._on_way.append(_OnWay(session_id, size, self._clock()))

    def received(self, session_id: int) -> None:
        """The server has this frame and all before it."""
        self._acknowledged = max(self._acknowledged, session_id)
        arrived = []
        while self._on_way and self._on_way[0].session_id <= session_id:
            arrived.append(self._on_way.popleft())
        if arrived:
            now, sent = self._clock(), arrived[0].sent
            self._round_trip = min(self._round_trip, now - sent)
            # Behind another frame, it began to travel when that one had arrived.
            self._delivered(sum(frame.size for frame in arrived), now - max(sent + self._round_trip, self._heard))
            self._heard = now
        self._changed.set()

    def id_of(self, frame_id: int) -> int | None:
        """Returns the id that a frame has in this session, None if it must be sent."""
        return self._held.get(frame_id)

    async def room(self, spare: int = 0) -> None:
        """Waits for a credit; without a stream there is nothing to wait for.

        Args:
            spare: Credits to leave for others, though one is always taken.
        """
        while self._open and self._credits and len(self._on_way) >= max(1, self._credits - spare):
            self._changed.clear()
            await self._changed.wait()
