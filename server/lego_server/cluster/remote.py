"""Queries answered by replicas: handed to one, its replies passed on, and to another if it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentResponseGenerator

from lego_server.assistant import Answer, DescriptionPiece, Event, Failed, StepDone, Timings
from lego_server.backend import Backend, Cancellable, CheckedQuery
from lego_server.cluster.orders import Order, Reply, Taken
from lego_server.cluster.running import forget, running_replicas
from lego_server.config import ServerConfig
from lego_server.delivery import Delivery, Spoilt
from lego_server.engines.watched import EngineCall
from lego_server.failures import Reason, RequestError, shutting_down
from lego_server.logs import log_event
from lego_server.loop import Listener
from lego_server.messages import QueryFailed
from lego_server.telemetry import QueryWatch, Telemetry

if TYPE_CHECKING:
    from lego_server.cluster.application import Application

_LEAST_RETRY = 0.5  # seconds; asking again sooner would only be another refusal
_SMOOTHING = 0.2
_STAGES = ("encode", "describe", "condition", "denoise", "decode")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFrame:
    """A frame that replicas will decode.

    Attributes:
        key: Names it among all frames of all sessions.
        data: The picture as its wearer sent it.
        arrived: `time.perf_counter()` when it came in.
    """

    key: str
    data: bytes
    arrived: float


class RemoteGuide(Backend[RemoteFrame]):
    """Answers queries with the replicas of an application. It belongs to one event loop."""

    def __init__(self, application: Application, config: ServerConfig, telemetry: Telemetry | None = None) -> None:
        """Takes an application's replicas into use.

        Raises:
            LegoError: The model's own defaults lie outside the server's limits.
        """
        engine_name = f"ray-{config.engine.device}"
        super().__init__(application.manifest, application.texts, engine_name, config, telemetry)
        self.handle = application.handle
        self._application = application
        self._live: set[_RemoteQuery] = set()
        self._closed = False
        self._estimate: float | None = None  # seconds a query is with a replica, once one has been answered
        version = self.manifest.model_version
        self.telemetry.metrics.serving(version, engine_name)
        self.telemetry.metrics.watch_replicas(version, lambda: self.replicas)

    @property
    def replicas(self) -> int:
        """Replicas that run. Safe from any thread."""
        return running_replicas(self._application.name)

    @property
    def active(self) -> int:
        """Queries that replicas have."""
        return sum(query.taken for query in tuple(self._live))

    @property
    def waiting(self) -> int:
        """Queries that wait for a replica with room."""
        return sum(not query.taken for query in tuple(self._live))

    @property
    def live(self) -> int:
        """See `Backend.live`."""
        return len(self._live)

    @property
    def able(self) -> bool:
        """See `Backend.able`."""
        return self.replicas > 0

    @property
    def failed(self) -> bool:
        """See `Backend.failed`."""
        return self.replicas == 0

    @property
    def hung(self) -> EngineCall | None:
        """See `Backend.hung`; Ray Serve replaces a replica whose engine hangs."""
        return None

    async def prepare_frame(self, data: bytes, arrived: float | None = None) -> RemoteFrame:
        """Names a frame; the replica that is asked about it decodes it, and says so if it is damaged."""
        return RemoteFrame(secrets.token_hex(8), data, time.perf_counter() if arrived is None else arrived)

    def encode_ahead(self, frame: RemoteFrame) -> None:
        """Does nothing: another replica than the one that encoded it may be the one that is free to answer."""

    def forget_description(self, frame: RemoteFrame) -> None:
        """Does nothing: a replica forgets a frame, and all about it, when it has not been asked about it lately."""

    def refuse_if_full(self, query: CheckedQuery) -> None:
        """Refuses a query once this is closed; Ray Serve counts those that wait (`max_queued`)."""
        if self._closed:
            raise shutting_down()

    def submit(self, query: CheckedQuery, frame: RemoteFrame, listener: Listener, wearer: str = "") -> Cancellable:
        """Hands a query to the replicas; see `Backend.submit`. What Ray Serve refuses, the listener hears of."""
        self.refuse_if_full(query)
        watch = self.telemetry.watch(query.arrived, time.perf_counter(), frame.arrived, query.options.steps)
        remote = _RemoteQuery(self, query, frame, watch, listener, wearer)
        self._live.add(remote)
        return remote

    def hand_back_waiting(self) -> None:
        """See `Backend.hand_back_waiting`."""
        for query in tuple(self._live):
            if not query.taken:
                query.hand_back()

    async def close(self, replaced: bool = False) -> None:
        """Drops all work, and stops the replicas, but for those that end with Ray itself or are kept for another."""
        self._closed = True
        queries = tuple(self._live)
        for query in queries:
            query.cancel()
        await asyncio.gather(*(query.task for query in queries), return_exceptions=True)
        self.telemetry.metrics.forget_replicas(self.manifest.model_version)
        settings = self.config.cluster
        if replaced or (settings.ray_address is not None and not settings.keep_replicas):
            await self.handle.shutdown_async()
            forget(self._application.name)
            await asyncio.to_thread(self._application.delete)

    def overloaded(self) -> RequestError:
        """Returns the refusal of a query that Ray Serve has no room for."""
        places = max(1, self.replicas * self.config.cluster.max_ongoing)
        seconds = (self._estimate or 0.0) * (1 + self.waiting / places)
        return RequestError(
            Reason.OVERLOADED,
            f"every replica ({self.replicas}) is busy, and as many queries wait as may; try again in a few seconds",
            # As long as half of those ahead take: asking sooner would mostly meet the same crowd.
            retry_after=max(seconds / 2, _LEAST_RETRY),
        )

    def lost(self) -> RequestError:
        """Returns the failure of a query whose replicas were lost, and which none can go on with."""
        return RequestError(
            Reason.UNAVAILABLE, "the replica that was to answer is lost; ask again, and another will",
            retry_after=max(self._estimate or 0.0, 1.0),
        )  # fmt: skip

    def ended(self, query: _RemoteQuery, timings: Timings | None) -> None:
        """A query is over."""
        self._live.discard(query)
        if timings is not None:
            seconds = timings.total - timings.queue
            known = seconds if self._estimate is None else self._estimate
            self._estimate = known + _SMOOTHING * (seconds - known)


class _Lost(Exception):
    """The replica that had the query is gone."""


class _RemoteQuery:
    """A query in the replicas' hands.

    Attributes:
        taken: Whether a replica has it.
        task: Passes on what the replica says.
    """

    def __init__(
        self, backend: RemoteGuide, query: CheckedQuery, frame: RemoteFrame, watch: QueryWatch, listener: Listener,
        wearer: str,
    ) -> None:  # fmt: skip
        self.taken = False
        self._backend = backend
        self._query = query
        self._frame = frame
        self._watch = watch
        self._refuse = listener
        self._listener = watch.listener(listener)
        self._wearer = wearer
        self._name = secrets.token_hex(8)
        self._absent = self._absent_as_told = False
        self._begun = False
        self._cancelled = False
        self._delivery = Delivery()
        self._timings: Timings | None = None
        self._event_loop = asyncio.get_running_loop()
        self._spreading: set[asyncio.Task[None]] = set()  # held, as the event loop holds tasks only weakly
        self.task = asyncio.create_task(self._carry())

    def cancel(self) -> None:
        """See `Cancellable.cancel`."""
        self._cancelled = True
        self._event_loop.call_soon_threadsafe(self.task.cancel)

    def defer(self, absent: bool) -> None:
        """See `Cancellable.defer`."""
        self._event_loop.call_soon_threadsafe(self._defer, absent)

    def hand_back(self) -> None:
        """Ends the query as UNAVAILABLE."""
        self._tell(Failed(shutting_down()))
        self.cancel()

    def _defer(self, absent: bool) -> None:
        self._absent = absent
        if self.taken and absent != self._absent_as_told:
            self._absent_as_told = absent
            task = asyncio.create_task(self._spread(absent))
            self._spreading.add(task)
            task.add_done_callback(self._spreading.discard)

    async def _spread(self, absent: bool) -> None:
        """Tells every replica, as one of them has the query and a handle cannot name it."""
        with contextlib.suppress(RayError, RayServeException):  # a lost one is being dealt with where it is missed
            await self._backend.handle.broadcast("defer", self._name, absent).results_async(return_exceptions=True)

    async def _carry(self) -> None:
        refused = False
        try:
            await self._persist()
        except RequestError as error:
            # As in one process, what no engine has begun is a refusal, and not a query that has failed.
            refused = not self._begun and not self._cancelled
            (self._refuse if refused else self._tell)(Failed(error))
        except Exception as error:
            _log.error("a query failed on its way to a replica", exc_info=error)
            self._tell(Failed(error))
        finally:
            self._backend.ended(self, self._timings)
            if not refused:
                self._watch.ended(time.perf_counter())

    async def _persist(self) -> None:
        """Asks one replica after another until one has answered.

        Raises:
            RequestError: The query is refused, has failed, or is lost for good.
        """
        for attempt in range(1 + self._backend.config.cluster.retries):
            try:
                return await self._ask(attempt)
            except _Lost:
                self.taken = False
                log_event(_log, logging.WARNING, "replica_lost", attempt=attempt + 1)
            except Spoilt:
                break
        raise self._backend.lost()

    async def _ask(self, attempt: int) -> None:
        """Asks a replica, and passes on what it says.

        Raises:
            _Lost: It is gone.
            Spoilt: It tells a different story than one that was lost.
            RequestError: See `_persist`.
        """
        if attempt:
            self._delivery.restart()
            self._backend.telemetry.metrics.retried()
        handle = self._backend.handle.options(method_name="answer", stream=True, session_id=self._frame.key)
        response = handle.remote(self._order())
        try:
            async for reply in response:
                if self._pass_on(reply):
                    return
            raise RuntimeError("a replica ended a query without an answer")
        except BackPressureError:
            raise self._backend.overloaded() from None
        except RayTaskError:  # the replica is there, and its code has failed
            raise
        except (RayError, DeploymentUnavailableError) as error:  # its process or machine is gone, or what it had sent
            raise _Lost from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise _Lost from None  # it is Ray that has cancelled it, with the replica
            _stop(response)
            raise
        except Spoilt:
            _stop(response)
            raise

    def _order(self) -> Order:
        query = self._query
        self._absent_as_told = self._absent
        return Order(
            self._name, self._frame.key, self._frame.data, query.prompt, query.options,
            query.deadline - time.perf_counter(), self._wearer, self._absent,
        )  # fmt: skip

    def _pass_on(self, reply: Reply) -> bool:
        """Tells the listener what it has not heard yet; returns whether the query is over."""
        match reply:
            case Taken(replica):
                self.taken = self._begun = True
                log_event(_log, logging.DEBUG, "query_taken", replica=replica)
                self._defer(self._absent)  # which may have changed on the way
            case QueryFailed(reason=Reason.INTERNAL):
                raise RuntimeError("the engine of a replica failed; the replica's log says why")
            case QueryFailed(_, reason, text, retry_after):
                raise RequestError(reason, text, retry_after)
            case DescriptionPiece() | StepDone():
                if (event := self._delivery.fresh(reply)) is not None:
                    self._tell(event)
            case Answer():
                self._delivery.fresh(reply)
                self._tell(self._timed(reply))
                return True
        return False

    def _timed(self, answer: Answer) -> Answer:
        """Returns an answer with the way to the replica and back counted as queueing, and tells the stages."""
        now, timings = time.perf_counter(), answer.timings
        total = now - self._query.arrived
        self._timings = replace(timings, total=total, queue=timings.queue + total - timings.total)
        at = now - sum(getattr(timings, stage) for stage in _STAGES)
        for stage in _STAGES:
            self._watch.entered(stage, at)
            at += getattr(timings, stage)
        return replace(answer, timings=self._timings)

    def _tell(self, event: Event) -> None:
        if not self._cancelled:
            self._listener(event)


def _stop(response: DeploymentResponseGenerator[Reply]) -> None:
    """Has a replica stop; a request that has failed meanwhile says so once more, to nobody's use."""
    with contextlib.suppress(RayError, RayServeException):
        response.cancel()
