"""What the VLLM has read of frames, kept so that a further question about one need not have it read again."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Generic, TypeVar

Read = TypeVar("Read")


class Prefixes(Generic[Read]):
    """The keys and values of the last few frames' image tokens, with the words before them.

    A frame's go when it does, or when others have been asked about since. Safe from any thread.
    """

    def __init__(self, limit: int) -> None:
        """Keeps nothing yet.

        Args:
            limit: Frames at most: of a VLLM of 7B in half precision each takes some 300 MB.
        """
        self._limit = limit
        # A frame may be dropped while this thread is at work here. Nothing is freed under this lock: that may need
        # another, whose holder may be about to drop a frame.
        self._lock = threading.RLock()
        self._kept: OrderedDict[int, tuple[weakref.ref[object], tuple[int, ...], Read]] = OrderedDict()

    def find(self, frame: object, before: tuple[int, ...]) -> Read | None:
        """Returns what has been read of a frame after these tokens, if it is still known."""
        with self._lock:
            known = self._kept.get(id(frame))
            if known is None or known[0]() is not frame or known[1] != before:
                return None
            self._kept.move_to_end(id(frame))
            return known[2]

    def keep(self, frame: object, before: tuple[int, ...], read: Read) -> None:
        """Keeps what has been read of a frame; it must never be changed."""
        key, freed = id(frame), []
        with self._lock:
            freed.append(self._kept.pop(key, None))
            self._kept[key] = weakref.ref(frame, lambda gone: self._forget(key, gone)), before, read
            while len(self._kept) > self._limit:
                freed.append(self._kept.popitem(last=False)[1])

    def __len__(self) -> int:
        return len(self._kept)

    def _forget(self, key: int, gone: weakref.ref[object]) -> None:
        freed = None
        with self._lock:
            if key in self._kept and self._kept[key][0] is gone:
                freed = self._kept.pop(key)
        del freed
