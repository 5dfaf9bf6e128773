"""Writes a session into a file while it goes on, in a thread of its own that the session never waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.encoding import check_pixels, encode_frame
from lego_client.events import (
    ConnectionLost,
    Event,
    Guidance,
    Progress,
    QueryFailed,
    QueryRestarted,
    Reconnected,
    ServerInfo,
)
from lego_client.observer import SessionObserver
from lego_client.pending import PendingQuery, SentFrame
from lego_client.protocol import options_from_proto
from lego_client.recording.container import ContainerWriter
from lego_client.recording.happenings import (
    Asked,
    AskedAnew,
    Connected,
    Disconnected,
    Ended,
    Happening,
    Heard,
    Note,
    Started,
    View,
)
from lego_client.recording.messages import Message, messages_of
from lego_client.recording.options import DEFAULT_LIMIT_MB
from lego_client.recording.software import library, software

MEGABYTE = 1_000_000

_FRAMES_SHARE = 0.9  # of the limit; the rest is for words and answers
_WAITING_BYTES = 64 * MEGABYTE  # that may wait for the disk
_WORDS_BYTES = 2 * _WAITING_BYTES  # words and answers are dropped only when the disk stands still
_RECORD_BYTES = 1000  # about what a record without a picture takes in memory
_SYNC_S = 5.0
_LAST_WRITE_S = 30.0


@dataclass(frozen=True)
class _Waiting:
    """What waits to be written: a happening, or the pixels of a frame that is yet to be encoded."""

    time: int
    what: Happening | NDArray[np.uint8]
    size: int
    droppable: bool


class Recorder(SessionObserver):
    """Records what a session sends and hears, and what the camera sees.

    Give it to `GuidanceClient(observer=...)`; several sessions, one after another, may share one file. Use it as a
    context manager around them. When the disk is too slow frames are left out; when the file has reached its limit, or
    the disk is full, recording stops. The session goes on in every case.

    Attributes:
        path: The file.
        failure: Why recording has stopped, in one sentence; "" while it has not.
        dropped: Frames and previews left out so far because the disk was too slow.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, object],
        *,
        limit_mb: float = DEFAULT_LIMIT_MB,
        views_per_second: float = 5.0,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """Nothing is written yet.

        Args:
            path: A file that does not exist.
            settings: What was asked of the program, for the record; never a token.
            limit_mb: How large the file may become, in millions of bytes.
            views_per_second: How many frames that are not sent are recorded at most.
            tell: Told, in the recorder's thread, what the wearer should know.

        Raises:
            LegoError: A value is out of its range.
        """
        if not 1 <= limit_mb < float("inf"):
            raise LegoError(f"the record limit is {limit_mb:g} MB; it must be 1 or more")
        if not 0 <= views_per_second <= 1000:
            raise LegoError(f"{views_per_second:g} recorded views per second; it must be from 0 to 1000")
        self.path = path
        self.failure = ""
        self.dropped = 0
        self._settings = {name: str(value) for name, value in settings.items() if value is not None}
        self._limit = limit_mb * MEGABYTE
        self._view_interval = 1 / views_per_second if views_per_second else float("inf")
        self._tell = tell
        self._began = time.time_ns(), time.monotonic_ns()
        self._last_view = float("-inf")
        self._first_frame_id = self._newest_frame_id = 0
        self._first_query_id = self._newest_query_id = 0
        self._frame_of: dict[int, int | None] = {}  # of the queries under way
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._dropped_noted = 0
        self._full = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"record {path}", daemon=True)
        self._file: ContainerWriter | None = None

    def __enter__(self) -> Self:
        """Makes the file and begins.

        Raises:
            LegoError: It exists already, or cannot be made.
        """
        if self.path.exists():
            raise LegoError(f"{self.path} exists; a recording never overwrites: choose another name")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = ContainerWriter(self.path, library())
        except OSError as error:
            raise LegoError(f"{self.path} cannot be recorded to ({error.strerror}); choose another place") from error
        self._put(Started(software(), self._settings))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what still waits and closes the file."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_LAST_WRITE_S)
        if self._thread.is_alive():
            self._tell(f"the disk does not take the rest of the recording; {self.path} keeps what came before")

    def captured(self, pixels: NDArray[np.uint8]) -> None:
        """Takes a frame of the camera, unless another was recorded a moment ago.

        Args:
            pixels: (H, W, 3) uint8 RGB; not to be changed afterwards.

        Raises:
            LegoError: They are something else.
        """
        now = time.monotonic()
        if now - self._last_view >= self._view_interval:
            self._last_view = now
            self._put(check_pixels(pixels))

    def note(self, text: str) -> None:
        """Records a sentence for whoever looks at the recording."""
        self._put(Note(text))

    # What the session tells

    def connected(self, target: str, session_id: str, server: ServerInfo, resumed: bool) -> None:
        """See `SessionObserver`."""
        self._put(Connected(target, session_id, server, resumed))

    def disconnected(self, reason: str, for_good: bool) -> None:
        """See `SessionObserver`."""
        self._put(Disconnected(reason, for_good))

    def opened(self) -> None:
        """See `SessionObserver`."""
        self._first_frame_id, self._first_query_id = self._newest_frame_id, self._newest_query_id

    def frame_sent(self, frame: SentFrame) -> None:
        """See `SessionObserver`."""
        self._last_view = time.monotonic()
        self._newest_frame_id = self._first_frame_id + frame.frame_id
        self._put(View(self._newest_frame_id, frame.encoded.jpeg))

    def asked(self, query: PendingQuery, frame: SentFrame | None, model: str) -> None:
        """See `SessionObserver`."""
        query_id = self._newest_query_id = self._query_id(query.query_id)
        frame_id = None if frame is None else self._first_frame_id + frame.frame_id
        left = None if query.deadline is None else query.deadline - asyncio.get_running_loop().time()
        self._frame_of[query_id] = frame_id
        self._put(Asked(query_id, query.text, frame_id, options_from_proto(query.options), left, model))

    def asked_anew(self, query_id: int, earlier_query_id: int) -> None:
        """See `SessionObserver`."""
        self._newest_query_id, earlier = self._query_id(query_id), self._query_id(earlier_query_id)
        self._frame_of[self._newest_query_id] = self._frame_of.pop(earlier, None)
        self._put(AskedAnew(self._newest_query_id, earlier))

    def heard(self, event: Event) -> None:
        """See `SessionObserver`; the connection and queries asked anew have words of their own."""
        if isinstance(event, ConnectionLost | Reconnected | QueryRestarted):
            return
        event = replace(event, query_id=self._query_id(event.query_id))
        if isinstance(event, Guidance):  # the server's number is of the frame as it was sent last
            event = replace(event, frame_id=self._frame_of.get(event.query_id) or 0)
        if isinstance(event, Guidance | QueryFailed):
            self._frame_of.pop(event.query_id, None)
        self._put(Heard(event))

    def _query_id(self, query_id: int) -> int:
        return self._first_query_id + query_id

    # The queue

    def _put(self, what: Happening | NDArray[np.uint8]) -> None:
        size, droppable = _weight(what)
        with self._changed:
            if self.failure or self._closing:
                return
            if self._waiting_bytes + size > (_WAITING_BYTES if droppable else _WORDS_BYTES):
                self.dropped += 1
                return
            self._waiting.append(_Waiting(self._now(), what, size, droppable))
            self._waiting_bytes += size
            self._changed.notify_all()

    def _wait(self, seconds: float | None) -> bool:
        """Waits until there is something to do; False if there was nothing for so long."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self._waiting or self._closing, seconds))

    def _take(self) -> _Waiting | None:
        """Returns what is to be written next; None when the recording is to be closed."""
        with self._changed:
            return self._waiting.popleft() if self._waiting else None

    def _now(self) -> int:
        """Nanoseconds since 1970, which never run backwards, though the machine's clock may be set back."""
        return self._began[0] + time.monotonic_ns() - self._began[1]

    # The thread

    def _run(self) -> None:
        file = self._file
        assert file is not None
        unsafe_since: float | None = time.monotonic()  # None while the disk has all
        try:
            while True:
                left = None if unsafe_since is None else unsafe_since + _SYNC_S - time.monotonic()
                if left is not None and (left <= 0 or not self._wait(left)):
                    file.sync()
                    unsafe_since = None
                    continue
                self._wait(None)
                waiting = self._take()
                if waiting is None:
                    break
                self._write(file, waiting)
                unsafe_since = time.monotonic() if unsafe_since is None else unsafe_since
                with self._changed:
                    self._waiting_bytes -= waiting.size
            file.append(_stored(self._now(), Ended(self.dropped)))
            file.close()
        except OSError as error:
            self._stop(f"the recording stopped ({error.strerror}); {self.path} keeps what came before")
        except _LimitReached:
            self._stop(f"the recording stopped at its limit of {self._limit / MEGABYTE:g} MB; {self.path} is whole")
        except Exception as error:  # whatever it is, the wearer must know that no more is kept
            self._stop(f"the recording stopped ({error}); {self.path} keeps what came before")
        finally:
            file.abandon()

    def _write(self, file: ContainerWriter, waiting: _Waiting) -> None:
        """Writes one happening, after what there is to say of those that are missing.

        Raises:
            OSError: The disk took it not.
        """
        if self.dropped > self._dropped_noted:
            count, self._dropped_noted = self.dropped - self._dropped_noted, self.dropped
            file.append(_stored(waiting.time, Note(f"{count} frames are missing here: the disk was too slow", count)))
        if waiting.droppable and self._full:
            return
        try:
            messages = _stored(waiting.time, self._happening(waiting.what))
        except LegoError:  # a frame too small to be encoded; the session will say so if it is asked about
            return
        size = file.size + sum(len(message.data) for _, message in messages)
        if waiting.droppable and size > _FRAMES_SHARE * self._limit:
            self._full = True
            sentence = f"no more frames from here on: the file nears its limit of {self._limit / MEGABYTE:g} MB"
            file.append(_stored(waiting.time, Note(sentence, limit_reached=True)))
            self._tell(f"{self.path}: {sentence}; words and answers are still recorded")
            return
        if size > self._limit:
            file.close()
            raise _LimitReached
        file.append(messages)

    def _happening(self, what: Happening | NDArray[np.uint8]) -> Happening:
        return View(0, encode_frame(what).jpeg) if isinstance(what, np.ndarray) else what

    def _stop(self, sentence: str) -> None:
        with self._changed:
            self.failure = sentence
            self._waiting.clear()
        self._tell(f"{sentence}; the session goes on")


class _LimitReached(Exception):
    """The file has no room for one thing more."""


def _stored(now: int, happening: Happening) -> list[tuple[int, Message]]:
    return [(now, message) for message in messages_of(happening)]


def _weight(what: Happening | NDArray[np.uint8]) -> tuple[int, bool]:
    """Returns about how many bytes of memory this takes, and whether it may be left out."""
    match what:
        case np.ndarray():
            return what.nbytes, True
        case View(jpeg=jpeg):
            return len(jpeg), True
        case Heard(event=Progress(preview=preview)):
            return _RECORD_BYTES + len(preview), bool(preview)
        case Heard(event=Guidance(image=image)):
            return _RECORD_BYTES + len(image), False
    return _RECORD_BYTES, False
