"""The engine loop: threads that advance every live query, one engine call at a time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from lego_server import work
from lego_server.assistant import Answer, Event, Failed, Steps
from lego_server.engines.base import Engine
from lego_server.failures import Reason, RequestError, shutting_down
from lego_server.pace import Pace
from lego_server.turns import next_admitted, next_batch, next_to_leave
from lego_server.work import Denoise, Work

_LEAST_RETRY = 0.5  # seconds; asking again sooner would only be another refusal
# A query is taken only if it would be in time although those ahead of it take so much longer than estimated: one given
# up half way helps nobody, and has kept others waiting.
_CAUTION = 1.15
_log = logging.getLogger(__name__)
Listener = Callable[[Event], None]


class Job:
    """A query in the engine loop's hands.

    Attributes:
        steps: What is left to do.
        wearer: Who asks; the loop is fair between them.
        deadline: `time.perf_counter()` at which the answer is worth nothing any more.
        order: Increases from job to job.
        evaluations: Of the U-Net that it asks for, as `lego_core.branches.cost` counts them.
        restart: Makes `steps` begin anew; None where they cannot.
        pending: The next engine call; None before the first.
        running: Whether a thread is at it.
        answered: Whether there is nothing left to do.
        cancelled: Whether nobody waits for it any more.
        absent: Whether who asked is not there just now, but may come back.
        denoising: Engine seconds its denoising has taken, of calls made for several its share.
        rest: The same of everything else.
    """

    def __init__(
        self, steps: Steps, listener: Listener, event_loop: asyncio.AbstractEventLoop, wake: Callable[[], None],
        wearer: str, deadline: float, order: int, evaluations: float, restart: Callable[[], None] | None,
    ) -> None:  # fmt: skip
        self._listener = listener
        self._event_loop = event_loop
        self._wake = wake
        self.steps = steps
        self.wearer = wearer
        self.deadline = deadline
        self.order = order
        self.evaluations = evaluations
        self.restart = restart
        self.pending: Work | None = None
        self.running = False
        self.answered = False
        self.cancelled = False
        self.absent = False
        self.denoising = 0.0
        self.rest = 0.0

    def cancel(self) -> None:
        """Ends the query before its next engine call; its listener hears no more. Safe from any thread."""
        self.cancelled = True
        self._wake()

    def defer(self, absent: bool) -> None:
        """Lets those who are there go first while who asked is not. Safe from any thread."""
        self.absent = absent
        self._wake()

    def tell(self, *events: Event) -> None:
        """Hands events to the listener, on the event loop."""
        try:
            self._event_loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:  # the event loop is closed: nobody listens any more
            self.cancelled = True

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            # Asked again here: the query may have been cancelled while the event was on its way.
            if not self.cancelled:
                self._listener(event)


class EngineLoop:
    """Serves up to `max_active` queries, lets the next `max_waiting` wait, and takes no more of those who are there.

    A turn is one engine call (one decoder token, one denoising step), so queries join, leave and are cancelled between
    them. Calls of the same kind run as one batch of up to `max_batch`. `turns.py` says whose turn it is. Queries of
    those who are not there are served when nobody else is to be; one that has begun keeps its place, and what it holds
    of the engine's memory, until somebody who is there waits for it, and is begun anew when there is room again.
    """

    def __init__(self, engine: Engine, max_active: int, max_waiting: int, max_batch: int = 1, lanes: int = 1) -> None:
        """Starts the threads.

        Args:
            engine: Runs the calls; with more than one lane, several at the same time.
            max_active: Queries that share the engine.
            max_waiting: Queries that wait to.
            max_batch: Most queries in one call.
            lanes: Threads that make calls.
        """
        self._engine = engine
        self._max_active = max_active
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._waiting: list[Job] = []
        self._active: list[Job] = []
        self._idle: deque[Job] = deque()
        self._closed = False
        self._pace = Pace()
        # Daemons, so that an engine call that never returns cannot keep the process alive.
        self._lanes = [threading.Thread(target=self._run, name=f"engine-{n}", daemon=True) for n in range(lanes)]
        for lane in self._lanes:
            lane.start()

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

    def submit(
        self, steps: Steps, listener: Listener, wearer: str = "", deadline: float = math.inf, evaluations: float = 1,
        restart: Callable[[], None] | None = None,
    ) -> Job:  # fmt: skip
        """Takes in a query; called on an event loop, where `listener` will be called with its events.

        Args:
            steps: The query.
            listener: Told its events.
            wearer: Who asks.
            deadline: `time.perf_counter()` by which it must be answered. It is for the asker to cancel it then. A
                query of the server's own has none, and says nothing of how long others take.
            evaluations: Of the U-Net that it asks for, as `lego_core.branches.cost` counts them.
            restart: Makes `steps` begin anew. A query that cannot keeps its place although its wearer is not there.

        Raises:
            RequestError: OVERLOADED: too many are waiting, or it would be too late; UNAVAILABLE: the loop is closed.
        """
        with self._changed:
            self._refuse_if_full(deadline, evaluations)
            job = self._job(steps, listener, wearer, deadline, evaluations, restart)
            self._waiting.append(job)
            self._changed.notify()
            return job

    def submit_idle(self, steps: Steps) -> Job | None:
        """Takes in work that may come in useful; it is done when there is nothing else. None if there is, now."""
        with self._changed:
            if self._closed or self._active or self._waiting or self._idle:
                return None
            job = self._job(steps, lambda event: None, "", math.inf, 1)
            self._idle.append(job)
            self._changed.notify()
            return job

    def refuse_if_full(self, deadline: float = math.inf, evaluations: float = 1) -> None:
        """Refuses a query that has not been prepared yet, as `submit` would: the work on its frame is then spared.

        Raises:
            RequestError: OVERLOADED or UNAVAILABLE.
        """
        with self._changed:
            self._refuse_if_full(deadline, evaluations)

    def hand_back_waiting(self) -> None:
        """Ends every query that has not had a turn, as UNAVAILABLE: another server may answer it sooner."""
        with self._changed:
            handed_back = [job for job in self._waiting if not job.cancelled]
            self._waiting.clear()
        for job in handed_back:
            job.tell(Failed(shutting_down()))
            job.steps.close()

    def close(self, timeout: float = 10.0) -> None:
        """Drops every query and ends the threads, after the engine calls under way. Blocks up to `timeout` seconds."""
        with self._changed:
            self._closed = True
            for job in (*self._active, *self._waiting, *self._idle):
                job.cancelled = True
            self._changed.notify_all()
        until = time.monotonic() + timeout
        for lane in self._lanes:
            lane.join(max(0.0, until - time.monotonic()))

    def _job(
        self, steps: Steps, listener: Listener, wearer: str, deadline: float, evaluations: float,
        restart: Callable[[], None] | None = None,
    ) -> Job:  # fmt: skip
        event_loop, order = asyncio.get_running_loop(), next(self._order)
        return Job(steps, listener, event_loop, self._notify, wearer, deadline, order, evaluations, restart)

    def _refuse_if_full(self, deadline: float, evaluations: float) -> None:
        if self._closed:
            raise shutting_down()
        # Those who are not there give way. Their number has another bound: a session has one query.
        others = [job for job in (*self._active, *self._waiting) if not job.cancelled and not job.absent]
        live = len(others)
        estimate = self._pace.seconds(evaluations)
        ahead = sum(self._seconds_left(job) for job in others) / len(self._lanes)
        needed = _CAUTION * (ahead + estimate)
        if live >= self._max_active + self._max_waiting:
            # As long as half of them take: asking sooner would mostly meet the same crowd.
            raise RequestError(
                Reason.OVERLOADED, f"the server is busy with {live} queries, its limit; try again in a few seconds",
                retry_after=max(ahead / 2, estimate, _LEAST_RETRY),
            )  # fmt: skip
        left = deadline - time.perf_counter()
        if live and needed > left:
            raise RequestError(
                Reason.OVERLOADED,
                f"the server is busy with {live} queries and would need about {needed:.1f} s, but the "
                f"query has {max(left, 0):.1f} s; try again later or give it more time",
                retry_after=max(needed - left, _LEAST_RETRY),
            )

    def _seconds_left(self, job: Job) -> float:
        return max(0.0, self._pace.seconds(job.evaluations) - job.denoising - job.rest)

    def _notify(self) -> None:
        with self._changed:
            # At once, and not at the next turn: while an engine call hangs, there is none.
            self._drop_cancelled()
            self._changed.notify_all()

    def _run(self) -> None:
        before: list[Job] = []
        seconds, denoising = 0.0, False
        while (batch := self._take(before, seconds, denoising)) is not None:
            began, denoising = time.perf_counter(), isinstance(batch[0].pending, Denoise)
            if batch[0].pending is None:
                self._advance(batch[0], None)  # its first turn: up to its first engine call
            else:
                self._run_engine(batch)
            before, seconds = batch, time.perf_counter() - began

    def _take(self, before: list[Job], seconds: float, denoising: bool) -> list[Job] | None:
        """Ends a lane's turn, waits for the next and returns whose it is; None once the loop is closed.

        Args:
            before: Whose turn it was.
            seconds: How long it took.
            denoising: Whether it was an evaluation of the U-Net.
        """
        with self._changed:
            self._give_back(before, seconds, denoising)
            while True:
                self._drop_cancelled()
                while self._waiting and self._has_place():
                    admitted = next_admitted(self._waiting, self._active)
                    self._waiting.remove(admitted)
                    self._active.append(admitted)
                if self._closed:  # calls of other lanes may still be under way; each ends its own
                    return None
                ready = [job for job in self._active if not job.running]
                if ready:
                    batch = next_batch(ready, self._max_batch)
                elif self._idle and not self._active and not self._idle[0].running:
                    batch = [self._idle[0]]
                else:
                    self._changed.wait()
                    continue
                for job in batch:
                    job.running = True
                return batch

    def _has_place(self) -> bool:
        """Says whether one who waits can be let in; one who is not there gives up a place to one who is."""
        if len(self._active) < self._max_active:
            return True
        leaving = next_to_leave(self._active)
        if leaving is None or all(job.absent for job in self._waiting):
            return False
        self._put_back(leaving)
        return True

    def _put_back(self, job: Job) -> None:
        """Has a query that had begun wait for its first turn."""
        assert job.restart is not None
        job.restart()
        job.pending = None
        job.denoising = job.rest = 0.0
        self._active.remove(job)
        self._waiting.append(job)

    def _give_back(self, batch: list[Job], seconds: float, denoising: bool) -> None:
        for job in batch:
            job.running = False
            if denoising:
                job.denoising += seconds / len(batch)
            else:
                job.rest += seconds / len(batch)
            if job.answered:
                if job.deadline < math.inf:
                    self._pace.learn(job.denoising, job.evaluations, job.rest)
                self._remove(job)
        self._changed.notify_all()

    def _drop_cancelled(self) -> None:
        for jobs in (self._active, self._waiting, self._idle):
            for job in [each for each in jobs if each.cancelled and not each.running]:
                self._remove(job)

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
        # Told together and last: an event loop that is woken now would run in turns with this thread, not beside it.
        events: list[Event] = []
        try:
            item = job.steps.send(result)
            while isinstance(item, Event):
                events.append(item)
                if isinstance(item, Answer):  # before the query ends
                    job.tell(*events)
                    events.clear()
                item = job.steps.send(None)
            job.pending = item
        except StopIteration:
            job.answered = True
        except Exception as error:
            job.tell(*events)
            self._fail(job, error)
            return
        if events:
            job.tell(*events)

    def _fail(self, job: Job, error: Exception) -> None:
        if not isinstance(error, RequestError):  # else nothing is amiss, and who asked is told
            _log.error("a query failed in the engine loop", exc_info=error)
        job.tell(Failed(error))
        self._remove(job)

    def _remove(self, job: Job) -> None:
        job.steps.close()
        job.pending = None  # frees the caches and contexts it referred to
        with self._changed:
            for jobs in (self._active, self._waiting, self._idle):
                if job in jobs:
                    jobs.remove(job)
