"""One wearer's session: the newest frames, and at most one query at a time."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict

from lego_server.assistant import Answer, Event, Failed
from lego_server.failures import Reason, RequestError
from lego_server.frames import PreparedFrame, check_frame
from lego_server.guide import INTERNAL_ERROR, CheckedQuery, Guide
from lego_server.loop import Job
from lego_server.messages import QueryEvent, QueryFailed
from lego_server.options import OptionWishes
from lego_server.outbox import Outbox
from lego_server.security.access import QuerySlot, current_access

FRAMES_KEPT = 8
_log = logging.getLogger(__name__)


class _StoredFrame:
    """A frame that is decoded when first asked for, once."""

    def __init__(self, data: bytes, pixels: int) -> None:
        self.pixels = pixels
        self._data = data
        self._prepared: asyncio.Task[PreparedFrame] | None = None

    async def prepared(self, guide: Guide) -> PreparedFrame:
        if self._prepared is None:
            self._prepared = asyncio.create_task(guide.prepare_frame(self._data))
            self._data = b""
        # Shielded: a query superseded meanwhile must not cancel the decoding that the next one waits for.
        return await asyncio.shield(self._prepared)


class _CurrentQuery:
    def __init__(self, query_id: int, frame_id: int, slot: QuerySlot) -> None:
        self.query_id = query_id
        self.frame_id = frame_id
        self.slot = slot
        self.job: Job | None = None
        self.task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        self.slot.release()
        if self.job is not None:
            self.job.cancel()
        elif self.task is not None:
            self.task.cancel()


class Session:
    """Keeps a wearer's last frames, answers their newest query and tells `outbox` everything.

    Ids are the client's. Every error is told and leaves the session as it was.
    """

    def __init__(self, guide: Guide) -> None:
        self.session_id = secrets.token_hex(8)
        self.outbox = Outbox()
        self._guide = guide
        self._frames: OrderedDict[int, _StoredFrame] = OrderedDict()
        self._current: _CurrentQuery | None = None
        self._last_query_id = 0
        self._finishing = False

    async def add_frame(self, frame_id: int, data: bytes) -> None:
        """Takes in a frame; the oldest beyond the last 8 is forgotten."""
        try:
            if self._frames and frame_id <= next(reversed(self._frames)):
                newest = next(reversed(self._frames))
                raise RequestError(Reason.INVALID, f"its id must be above {newest}, the newest frame's")
            # A header may hold thousands of entries to walk through, so even this leaves the event loop.
            pixels = await asyncio.to_thread(check_frame, data, self._guide.config)
        except RequestError as error:
            self._tell_failure(0, error.reason, f"frame {frame_id}: {error}")
            return
        self._frames[frame_id] = _StoredFrame(data, pixels)
        if len(self._frames) > FRAMES_KEPT:
            self._frames.popitem(last=False)

    def ask(self, query_id: int, text: str, frame_id: int | None, wishes: OptionWishes) -> None:
        """Starts answering a query; the one before it, if still unanswered, is superseded.

        Args:
            query_id: Above all earlier ones of the session.
            text: What the wearer asked.
            frame_id: The frame asked about; None means the newest.
            wishes: How to sample.
        """
        try:
            if query_id <= self._last_query_id:
                raise RequestError(
                    Reason.INVALID, f"query_id is {query_id}; it must be above {self._last_query_id}, the last one's"
                )
            if self._finishing:
                raise RequestError(Reason.OVERLOADED, "the server is shutting down; ask again when it is back")
            query = self._guide.check_query(text, wishes)
            asked_frame_id, frame = self._find_frame(frame_id)
            slot = current_access().admit_query(frame.pixels)
        except RequestError as error:
            self._tell_failure(query_id, error.reason, str(error))
            return
        self._last_query_id = query_id
        self._stop_current(Reason.SUPERSEDED, f"query {query_id} took its place")
        current = self._current = _CurrentQuery(query_id, asked_frame_id, slot)
        current.task = asyncio.create_task(self._start(current, query, frame))

    def cancel(self, query_id: int) -> None:
        """Stops a query; its failure as CANCELLED confirms it."""
        if self._current is None or self._current.query_id != query_id:
            text = f"query {query_id} is not being answered: it has ended or was never asked"
            self._tell_failure(query_id, Reason.UNKNOWN_QUERY, text)
            return
        self._stop_current(Reason.CANCELLED, "cancelled as asked")
        self._end_if_finished()

    def reject(self, reason: Reason, text: str) -> None:
        """Tells the client that a message of theirs makes no sense."""
        self._tell_failure(0, reason, text)

    def finish(self) -> None:
        """Takes no new query; the outbox ends once the current one is answered."""
        self._finishing = True
        self._end_if_finished()

    def close(self) -> None:
        """Drops everything at once: the client is gone."""
        if self._current is not None:
            self._current.stop()
            self._current = None
        self._frames.clear()
        self.outbox.close()

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

    async def _start(self, current: _CurrentQuery, query: CheckedQuery, frame: _StoredFrame) -> None:
        """Decodes the frame and hands the query to the engine loop."""
        try:
            self._guide.engine_loop.refuse_if_full()
            prepared = await frame.prepared(self._guide)
            current.job = self._guide.submit(query, prepared, lambda event: self._hear(current, event))
        except RequestError as error:
            self._end_current(current, QueryFailed(current.query_id, error.reason, str(error)))
        except Exception:
            _log.exception("session %s: query %d failed before it began", self.session_id, current.query_id)
            self._end_current(current, QueryFailed(current.query_id, Reason.INTERNAL, INTERNAL_ERROR))

    def _hear(self, current: _CurrentQuery, event: Event) -> None:
        if isinstance(event, Failed):
            self._end_current(current, QueryFailed(current.query_id, Reason.INTERNAL, INTERNAL_ERROR))
            return
        message = QueryEvent(current.query_id, current.frame_id, event)
        if isinstance(event, Answer):
            _log.info(
                "session=%s query=%d steps=%d queue_s=%.3f total_s=%.3f", self.session_id, current.query_id,
                event.options.steps, event.timings.queue, event.timings.total,
            )  # fmt: skip
            self._end_current(current, message)
        elif current is self._current:
            self.outbox.put(message)

    def _end_current(self, current: _CurrentQuery, last_message: QueryEvent | QueryFailed) -> None:
        current.slot.release()
        if current is not self._current:  # superseded or cancelled meanwhile: that has been told already
            return
        self._current = None
        self.outbox.put(last_message)
        self._end_if_finished()

    def _stop_current(self, reason: Reason, text: str) -> None:
        if self._current is None:
            return
        stopped, self._current = self._current, None
        stopped.stop()
        self.outbox.discard(stopped.query_id)
        self._tell_failure(stopped.query_id, reason, text)

    def _tell_failure(self, query_id: int, reason: Reason, text: str) -> None:
        self.outbox.put(QueryFailed(query_id, reason, text))

    def _end_if_finished(self) -> None:
        if self._finishing and self._current is None:
            self.outbox.close()
