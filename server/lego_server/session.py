"""One wearer's session: the newest frames, and at most one query at a time. It does not know of streams."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import secrets
import time
import weakref
from collections import OrderedDict
from typing import Any

from lego_server.assistant import Answer, Event, Failed
from lego_server.backend import Backend, Cancellable, CheckedQuery, too_late
from lego_server.failures import Reason, RequestError, as_request_error, shutting_down
from lego_server.frames import check_frame
from lego_server.logs import bind
from lego_server.messages import FrameReceived, QueryEvent, QueryFailed
from lego_server.models import Models
from lego_server.options import OptionWishes
from lego_server.outbox import Outbox
from lego_server.security.access import QuerySlot, current_access

FRAMES_KEPT = 8
_log = logging.getLogger(__name__)


class _StoredFrame:
    """A frame that is decoded when first asked for, once for each model that is asked."""

    def __init__(self, data: bytes, digest: bytes, pixels: int) -> None:
        self.digest = digest
        self.pixels = pixels
        self._data = data
        self._arrived = time.perf_counter()
        # Weak, so that a model that has been replaced is not kept in memory by sessions that are silent.
        self._prepared: tuple[weakref.ref[Backend[Any]], asyncio.Task[Any]] | None = None

    async def prepared(self, guide: Backend[Any]) -> Any:
        if self._prepared is None or self._prepared[0]() is not guide:
            task = asyncio.create_task(guide.prepare_frame(self._data, self._arrived))
            self._prepared = weakref.ref(guide), task
        # Shielded: a query superseded meanwhile must not cancel the decoding that the next one waits for.
        return await asyncio.shield(self._prepared[1])

    def forget_description(self) -> None:
        """Frees what the last query about it left in the engine's memory, beside its encoding."""
        guide = self._prepared and self._prepared[0]()
        if self._prepared and guide and self._prepared[1].done() and not self._prepared[1].exception():
            guide.forget_description(self._prepared[1].result())


class _CurrentQuery:
    def __init__(self, query_id: int, frame_id: int, slot: QuerySlot) -> None:
        self.query_id = query_id
        self.frame_id = frame_id
        self.slot = slot
        self.job: Cancellable | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        self.slot.release()
        if self.timer is not None:
            self.timer.cancel()
        if self.job is not None:
            self.job.cancel()
        elif self.task is not None:
            self.task.cancel()


class Session:
    """Keeps a wearer's last frames, answers their newest query and tells `outbox` everything.

    Ids are the client's. Every error is told and leaves the session as it was.

    Attributes:
        session_id: Names it in logs and to the client.
        wearer: Whose it is; the engine loop is fair between wearers.
        outbox: What the client is told.
    """

    def __init__(self, models: Models, wearer: str = "") -> None:
        self.session_id = secrets.token_hex(8)
        self.wearer = wearer or self.session_id
        self.outbox = Outbox()
        self._models = models
        self._frames: OrderedDict[int, _StoredFrame] = OrderedDict()
        self._asked_frame: _StoredFrame | None = None
        self._asked_guide: weakref.ref[Backend[Any]] | None = None
        self._encoded_ahead = -math.inf
        self._ahead: asyncio.Task[None] | None = None  # held, as the event loop holds tasks only weakly
        self._current: _CurrentQuery | None = None
        self._last_query_id = 0
        self._last_words: tuple[str, int | None, OptionWishes, str] | None = None
        self._finishing = False
        self._closed = False
        self._absent = False

    @property
    def answering(self) -> bool:
        """Whether a query is being answered."""
        return self._current is not None

    async def add_frame(self, frame_id: int, data: bytes) -> None:
        """Takes in a frame; the oldest beyond the last 8 is forgotten."""
        try:
            if self._frames and frame_id <= next(reversed(self._frames)):
                newest = next(reversed(self._frames))
                raise RequestError(Reason.INVALID, f"its id must be above {newest}, the newest frame's")
            # A header may hold thousands of entries to walk through, so even this leaves the event loop.
            digest, pixels = await asyncio.to_thread(self._check, data)
        except RequestError as error:
            self._tell_failure(0, RequestError(error.reason, f"frame {frame_id}: {error}", error.retry_after))
            self.outbox.put(FrameReceived(frame_id))  # it is no longer on its way
            return
        if self._closed:
            return
        self.outbox.put(FrameReceived(frame_id))
        known = next((frame for frame in self._frames.values() if frame.digest == digest), None)
        frame = self._frames[frame_id] = known or _StoredFrame(data, digest, pixels)
        if len(self._frames) > FRAMES_KEPT:
            self._frames.popitem(last=False)
        self._encode_ahead(frame)

    def ask(
        self, query_id: int, text: str, frame_id: int | None, wishes: OptionWishes, model: str = "",
        seconds: float | None = None,
    ) -> None:  # fmt: skip
        """Starts answering a query; the one before it, if still unanswered, is superseded.

        The same query under the same id is taken once: a client whose stream broke may not know that it had come.

        Args:
            query_id: Above all earlier ones of the session.
            text: What the wearer asked.
            frame_id: The frame asked about; None means the newest.
            wishes: How to sample.
            model: Which model is asked; empty for the default.
            seconds: From now, in which it must be answered; None for the server's limit.
        """
        if self._closed:
            return
        words = text, frame_id, wishes, model
        if query_id == self._last_query_id and words == self._last_words:
            return
        try:
            if query_id <= self._last_query_id:
                raise RequestError(
                    Reason.INVALID, f"query_id is {query_id}; it must be above {self._last_query_id}, the last one's"
                )
            if self._finishing:
                raise shutting_down()
            guide = self._models.find(model)
            query = guide.check_query(text, wishes, seconds)
            asked_frame_id, frame = self._find_frame(frame_id)
            superseded = None if self._current is None else self._current.slot
            slot = current_access().admit_query(frame.pixels, superseded)
        except RequestError as error:
            self._tell_failure(query_id, error)
            return
        self._last_query_id, self._last_words = query_id, words
        self._stop_current(RequestError(Reason.SUPERSEDED, f"query {query_id} took its place"))
        self.outbox.forget()
        if self._asked_frame is not None and self._asked_frame is not frame:
            self._asked_frame.forget_description()
        self._asked_frame, self._asked_guide = frame, weakref.ref(guide)
        current = self._current = _CurrentQuery(query_id, asked_frame_id, slot)
        loop = asyncio.get_running_loop()
        current.timer = loop.call_later(query.deadline - time.perf_counter(), self._expire, current, query)
        current.task = asyncio.create_task(self._start(current, guide, query, frame))

    def cancel(self, query_id: int) -> None:
        """Stops a query; its failure as CANCELLED confirms it."""
        if self._current is None or self._current.query_id != query_id:
            text = f"query {query_id} is not being answered: it has ended or was never asked"
            self._tell_failure(query_id, RequestError(Reason.UNKNOWN_QUERY, text))
            return
        self._stop_current(RequestError(Reason.CANCELLED, "cancelled as asked"))
        self._end_if_finished()

    def reject(self, reason: Reason, text: str) -> None:
        """Tells the client that a message of theirs makes no sense."""
        self._tell_failure(0, RequestError(reason, text))

    def defer(self, absent: bool) -> None:
        """Lets others' queries go first while the client is not there."""
        self._absent = absent
        if self._current is not None and self._current.job is not None:
            self._current.job.defer(absent)

    def finish(self) -> None:
        """Takes no new query; the outbox ends once the current one is answered."""
        self._finishing = True
        self._end_if_finished()

    def hand_back(self) -> None:
        """Ends the current query unanswered, as UNAVAILABLE, and the outbox with it."""
        self._stop_current(shutting_down())
        self.finish()

    def close(self) -> None:
        """Drops everything at once: the client is gone. Whatever it may still say is not heard."""
        self._closed = True
        if self._current is not None:
            self._current.stop()
            self._current = None
        self._frames.clear()
        self._asked_frame = None
        self.outbox.close()

    def _check(self, data: bytes) -> tuple[bytes, int]:
        pixels = check_frame(data, self._models.config.limits)
        return hashlib.blake2b(data, digest_size=16).digest(), pixels

    def _encode_ahead(self, frame: _StoredFrame) -> None:
        """Has the newest frame encoded before a query asks about it, if the engine has nothing else to do."""
        period, now = self._models.config.sessions.encode_ahead_seconds, time.perf_counter()
        asked = None if self._asked_guide is None else self._asked_guide()
        guide = self._models.default if asked is None or asked not in self._models.guides else asked
        if period and now - self._encoded_ahead >= period and self._current is None and guide.idle:
            self._encoded_ahead = now
            self._ahead = asyncio.create_task(self._prepare_ahead(guide, frame))

    async def _prepare_ahead(self, guide: Backend[Any], frame: _StoredFrame) -> None:
        with contextlib.suppress(RequestError):  # damaged beyond its header: told to whoever asks about it
            prepared = await frame.prepared(guide)
            if self._current is None:  # else its query encodes it, and would wait while that is done twice
                guide.encode_ahead(prepared)

    def _find_frame(self, frame_id: int | None) -> tuple[int, _StoredFrame]:
        if not self._frames:
            raise RequestError(Reason.NO_FRAME, "the session has no frame yet; send one before the query")
        if frame_id is None:
            frame_id = next(reversed(self._frames))
        elif frame_id not in self._frames:
            known = ", ".join(str(known_id) for known_id in self._frames)
            raise RequestError(
                Reason.NO_FRAME, f"frame {frame_id} is not here; the session keeps its last {FRAMES_KEPT}: {known}"
            )
        return frame_id, self._frames[frame_id]

    async def _start(
        self, current: _CurrentQuery, guide: Backend[Any], query: CheckedQuery, frame: _StoredFrame
    ) -> None:
        """Decodes the frame and hands the query to the engine loop."""
        bind(query=current.query_id)
        try:
            guide.refuse_if_full(query)
            prepared = await frame.prepared(guide)
            current.job = guide.submit(query, prepared, lambda event: self._hear(current, event), self.wearer)
            if self._absent:
                current.job.defer(True)
        except Exception as error:
            if not isinstance(error, RequestError):
                _log.exception("session %s: query %d failed before it began", self.session_id, current.query_id)
            self._end_current(current, _failed(current.query_id, as_request_error(error)))

    def _hear(self, current: _CurrentQuery, event: Event) -> None:
        if isinstance(event, Failed):
            self._end_current(current, _failed(current.query_id, as_request_error(event.error)))
            return
        message = QueryEvent(current.query_id, current.frame_id, event)
        if isinstance(event, Answer):
            self._end_current(current, message)
        elif current is self._current:
            self.outbox.put(message)

    def _expire(self, current: _CurrentQuery, query: CheckedQuery) -> None:
        if current is self._current:
            self._stop_current(too_late(query))
            self._end_if_finished()

    def _end_current(self, current: _CurrentQuery, last_message: QueryEvent | QueryFailed) -> None:
        current.slot.release()
        if current is not self._current:  # superseded or cancelled meanwhile: that has been told already
            return
        self._current = None
        if current.timer is not None:
            current.timer.cancel()
        self._put(last_message)
        self._end_if_finished()

    def _stop_current(self, failure: RequestError) -> None:
        if self._current is None:
            return
        stopped, self._current = self._current, None
        stopped.stop()
        self.outbox.discard(stopped.query_id)
        self._tell_failure(stopped.query_id, failure)

    def _tell_failure(self, query_id: int, failure: RequestError) -> None:
        self._put(_failed(query_id, failure))

    def _put(self, message: QueryEvent | QueryFailed) -> None:
        # A refusal counts when it is made: it may be sent twice, or never.
        if isinstance(message, QueryFailed):
            self._models.telemetry.metrics.rejected(message.reason)
        self.outbox.put(message)

    def _end_if_finished(self) -> None:
        if self._finishing and self._current is None:
            self.outbox.close()


def _failed(query_id: int, error: RequestError) -> QueryFailed:
    return QueryFailed(query_id, error.reason, str(error), error.retry_after)
