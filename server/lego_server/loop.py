"""The engine loop: one thread that advances every live query in turn, one engine call at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from lego_server import work
from lego_server.assistant import Event, Failed, Steps
from lego_server.engines.base import Engine
from lego_server.failures import Reason, RequestError
from lego_server.work import Work

_log = logging.getLogger(__name__)
Listener = Callable[[Event], None]


class Job:
    """A query in the engine loop's hands."""

    def __init__(
        self, steps: Steps, listener: Listener, event_loop: asyncio.AbstractEventLoop, wake: Callable[[], None]
    ) -> None:
        self._listener = listener
        self._event_loop = event_loop
        self._wake = wake
        self.steps = steps
        self.pending: Work | None = None
        self.cancelled = False

    def cancel(self) -> None:
        """Ends the query before its next engine call; its listener hears no more. Safe from any thread."""
        self.cancelled = True
        self._wake()

    def tell(self, event: Event) -> None:
        """Hands an event to the listener, on the event loop."""
        try:
            self._event_loop.call_soon_threadsafe(self._deliver, event)
        except RuntimeError:  # the event loop is closed: nobody listens any more
            self.cancelled = True

    def _deliver(self, event: Event) -> None:
        # Asked again here: the query may have been cancelled while the event was on its way.
        if not self.cancelled:
            self._listener(event)


class EngineLoop:
    """Serves up to `max_active` queries in turns, the next `max_waiting` in order of arrival, and no more.

    Turns are engine calls (one decoder token, one denoising step), so queries join, leave and are cancelled between
    them. Calls of the same kind run as one batch of up to `max_batch`.
    """

    def __init__(self, engine: Engine, max_active: int, max_waiting: int, max_batch: int = 1) -> None:
        self._engine = engine
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._active: deque[Job] = deque()
        self._closed = False
        # A daemon, so that an engine call that never returns cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def live(self) -> int:
        """Queries active or waiting, cancelled ones included until their turn to leave."""
        with self._changed:
            return len(self._active) + len(self._waiting)

    @property
    def active(self) -> int:
        """Queries that share the engine."""
        with self._changed:
            return len(self._active)

    @property
    def waiting(self) -> int:
        """Queries that wait for their first turn."""
        with self._changed:
            return len(self._waiting)

    def submit(self, steps: Steps, listener: Listener) -> Job:
        """Takes in a query; called on an event loop, where `listener` will be called with its events.

        Raises:
            RequestError: OVERLOADED: too many are waiting, or the loop is closed.
        """
        with self._changed:
            self._refuse_if_full()
            job = Job(steps, listener, asyncio.get_running_loop(), self._notify)
            self._waiting.append(job)
            self._changed.notify()
            return job

    def refuse_if_full(self) -> None:
        """Refuses a query that has not been prepared yet, as `submit` would: the work on its frame is then spared.

        Raises:
            RequestError: OVERLOADED.
        """
        with self._changed:
            self._refuse_if_full()

    def close(self, timeout: float = 10.0) -> None:
        """Drops every query and ends the thread, after the engine call under way. Blocks up to `timeout` seconds."""
        with self._changed:
            self._closed = True
            for job in (*self._active, *self._waiting):
                job.cancelled = True
            self._changed.notify()
        self._thread.join(timeout)

    def _refuse_if_full(self) -> None:
        if self._closed:
            raise RequestError(Reason.OVERLOADED, "the server is shutting down; ask again when it is back")
        live = sum(not job.cancelled for job in (*self._active, *self._waiting))
        if live >= self._max_active + self._max_waiting:
            raise RequestError(
                Reason.OVERLOADED, f"the server is busy with {live} queries, its limit; try again in a few seconds"
            )

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            self._drop_cancelled()
            with self._changed:
                while len(self._active) < self._max_active and self._waiting:
                    self._active.append(self._waiting.popleft())
                if not self._active:
                    if self._closed:
                        return
                    self._changed.wait()
                    continue
                leader = self._active[0]
                self._active.rotate(-1)
            if leader.cancelled:
                continue
            if leader.pending is None:
                self._advance(leader, None)  # its first turn: up to its first engine call
            else:
                self._run_engine(self._batch_with(leader))

    def _drop_cancelled(self) -> None:
        with self._changed:
            dropped = [job for job in (*self._active, *self._waiting) if job.cancelled]
        for job in dropped:
            self._remove(job)

    def _batch_with(self, leader: Job) -> list[Job]:
        assert leader.pending is not None
        key = work.batch_key(leader.pending)
        batch = [leader]
        if key is not None:
            for job in self._active:
                if len(batch) == self._max_batch:
                    break
                alike = job.pending is not None and work.batch_key(job.pending) == key
                if job is not leader and alike and not job.cancelled:
                    batch.append(job)
        return batch

    def _run_engine(self, batch: list[Job]) -> None:
        items = [job.pending for job in batch if job.pending is not None]
        try:
            results = work.run(self._engine, items)
        except Exception as error:
            if len(batch) > 1:  # one request's failure must not be the others': find out whose it is
                for job in batch:
                    self._run_engine([job])
            else:
                self._fail(batch[0], error)
            return
        for job, result in zip(batch, results, strict=True):
            self._advance(job, result)

    def _advance(self, job: Job, result: Any) -> None:
        """Sends an engine result to a query and passes on its events, up to its next engine call or its end."""
        try:
            item = job.steps.send(result)
            while isinstance(item, Event):
                job.tell(item)
                item = job.steps.send(None)
            job.pending = item
        except StopIteration:
            self._remove(job)
        except Exception as error:
            self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        _log.error("a query failed in the engine loop", exc_info=error)
        job.tell(Failed(error))
        self._remove(job)

    def _remove(self, job: Job) -> None:
        job.steps.close()
        job.pending = None  # frees the caches and contexts it referred to
        with self._changed:
            for jobs in (self._active, self._waiting):
                if job in jobs:
                    jobs.remove(job)
