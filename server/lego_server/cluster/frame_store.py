"""The frames a replica was lately asked about, so that the next query about one finds it decoded and encoded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lego_server.frames import PreparedFrame

FRAMES_KEPT = 16
_SECONDS_KEPT = 60.0


@dataclass
class _Kept:
    frame: asyncio.Task[PreparedFrame]
    expiry: asyncio.TimerHandle


class FrameStore:
    """Keeps the newest frames for a while after they were last asked about. Belongs to one event loop."""

    def __init__(self, prepare: Callable[[bytes], Awaitable[PreparedFrame]], seconds: float = _SECONDS_KEPT) -> None:
        """Makes an empty store.

        Args:
            prepare: Decodes a picture.
            seconds: How long a frame is kept that nobody asks about.
        """
        self._prepare = prepare
        self._seconds = seconds
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str, data: bytes) -> PreparedFrame:
        """Returns a frame, decoded now unless it is still here.

        Raises:
            RequestError: INVALID: it is damaged.
        """
        kept = self._kept.pop(key, None)
        if kept is None:
            frame = asyncio.create_task(self._decoded(data))
        else:
            frame = kept.frame
            kept.expiry.cancel()
        expiry = asyncio.get_running_loop().call_later(self._seconds, self._forget, key)
        self._kept[key] = _Kept(frame, expiry)
        if len(self._kept) > FRAMES_KEPT:
            self._forget(next(iter(self._kept)))
        # Shielded: a query cancelled meanwhile must not cancel the decoding that the next one waits for.
        return await asyncio.shield(frame)

    async def _decoded(self, data: bytes) -> PreparedFrame:
        return await self._prepare(data)

    def _forget(self, key: str) -> None:
        self._kept.pop(key).expiry.cancel()
