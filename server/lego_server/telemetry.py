"""Watches queries from the outside: how long each stage takes, what the wearer saw when, and how it ended.

It stands between a query's generator and the engine loop, and between the loop and the session. Neither knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

from lego_server.assistant import Answer, DescriptionPiece, Event, Failed, StepDone, Steps, Timings
from lego_server.engines.watched import EngineCall
from lego_server.failures import RequestError
from lego_server.logs import bind, bound, log_event
from lego_server.loop import Listener
from lego_server.metrics import Metrics
from lego_server.tracing import QueryTraces, Stage
from lego_server.work import BuildCondition, DecodeLatent, Denoise, EncodeFrame, Extend, Prefill, Work

_STAGES: dict[type, str] = {
    EncodeFrame: "encode", Prefill: "describe", Extend: "describe", BuildCondition: "condition", Denoise: "denoise",
    DecodeLatent: "decode",
}  # fmt: skip
_carrier: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("lego_trace_carrier")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Telemetry:
    """Where a server's observations go.

    Attributes:
        metrics: Figures.
        traces: Spans; None records none.
    """

    metrics: Metrics = field(default_factory=Metrics)
    traces: QueryTraces | None = None

    def enter_call(self, metadata: Iterable[tuple[str, str | bytes]], **fields: Any) -> None:
        """Remembers for the rest of this task, and those it starts, the caller's trace and fields of log lines."""
        _carrier.set({key: value for key, value in metadata if isinstance(value, str)})
        bind(**fields)

    def watch(
        self, arrived: float, prepared: float, frame_arrived: float, steps: int,
        decoding: tuple[float, float] | None = None,
    ) -> QueryWatch:  # fmt: skip
        """Watches a query from now on; called on the event loop, in the task that asks.

        Args:
            arrived: `time.perf_counter()` when the query came in.
            prepared: The same when its frame was ready.
            frame_arrived: The same when its frame had come in.
            steps: Denoising steps asked for.
            decoding: The same when the decoding of its frame began and ended, if that was done here.
        """
        frame = [] if decoding is None else [Stage("frame", *decoding)]
        return QueryWatch(self, arrived, Stage("prepare", arrived, prepared, frame), frame_arrived, steps)


class QueryWatch:
    """One query under watch. It concludes on the event loop, in the order in which things were told."""

    def __init__(
        self, telemetry: Telemetry, arrived: float, preparing: Stage, frame_arrived: float, steps: int
    ) -> None:  # fmt: skip
        self._telemetry = telemetry
        self._arrived, self._preparing = arrived, preparing
        self._frame_arrived, self._steps = frame_arrived, steps
        self._fields = bound()
        self._carrier = _carrier.get({})
        self._event_loop = asyncio.get_running_loop()
        self._stages: list[Stage] = []
        self._moments: dict[str, float] = {}
        self._last: Timings | Failed | None = None

    def steps(self, steps: Steps, last_call: Callable[[], EngineCall | None]) -> Steps:
        """Returns the same generator under watch.

        Args:
            steps: The query.
            last_call: Says which engine call gave this thread the result that is sent to it now.
        """
        return _WatchedSteps(steps, self, last_call)

    def listener(self, listener: Listener) -> Listener:
        """Returns a listener that hears every event just before the session does."""

        def hear(event: Event) -> None:
            self._note(event)
            listener(event)

        return hear

    def entered(self, stage: str, at: float) -> None:
        """The query is in another stage since `at`; called on the engine thread."""
        if self._stages:
            self._stages[-1].end = at
        self._stages.append(Stage(stage, at, at))

    def called(self, call: EngineCall) -> None:
        """An engine call for the query came back; called on the engine thread."""
        if self._stages and call.ended is not None:
            self._stages[-1].parts.append(Stage(f"engine.{call.name}", call.began, call.ended))

    def ended(self, at: float) -> None:
        """The loop is done with the query; called on the engine thread, or wherever it is dropped."""
        if self._stages:
            self._stages[-1].end = at
        with contextlib.suppress(RuntimeError):  # the event loop is closed: the server is gone
            self._event_loop.call_soon_threadsafe(self._conclude, at)

    def _note(self, event: Event) -> None:
        now = time.perf_counter()
        since, metrics = now - self._arrived, self._telemetry.metrics
        match event:
            case DescriptionPiece(text=text) if text and "first_token" not in self._moments:
                self._moments["first_token"] = now
                metrics.first_token(since)
            case StepDone(preview=preview) if preview and "first_preview" not in self._moments:
                self._moments["first_preview"] = now
                metrics.first_preview(since)
            case Answer(timings=timings):
                self._last = timings
                self._moments["answer"] = now
                stages = asdict(timings)
                stages.pop("total")
                metrics.answered(since, now - self._frame_arrived, stages)
            case Failed(error=error) if not isinstance(error, RequestError):  # else handed back, and nothing is amiss
                self._last = event
                metrics.failed()

    def _conclude(self, at: float) -> None:
        seconds = at - self._arrived
        match self._last:
            case Timings() as timings:
                outcome = "answered"
                log_event(
                    _log, logging.INFO, "query_answered", **self._fields, steps=self._steps,
                    seconds=asdict(timings),
                )  # fmt: skip
            case Failed(error=error):
                outcome = "failed"
                log_event(
                    _log, logging.ERROR, "query_failed", **self._fields, error=type(error).__name__, seconds=seconds
                )
            case None:
                outcome = "dropped"
                self._telemetry.metrics.dropped()
                log_event(_log, logging.INFO, "query_dropped", **self._fields, seconds=seconds)
        if self._telemetry.traces is not None:
            # Two turns of the event loop later, when the answer is on its way: spans take a while to record.
            self._event_loop.call_soon(self._event_loop.call_soon, self._record, at, outcome)

    def _record(self, at: float, outcome: str) -> None:
        if self._telemetry.traces is not None:
            first = self._stages[0].begin if self._stages else at
            before = [
                self._preparing,
                Stage("queue", self._preparing.end, first),
            ]
            attributes = {f"lego.{name}": value for name, value in self._fields.items()}
            attributes |= {"lego.steps": self._steps, "lego.outcome": outcome}
            whole = Stage("query", self._arrived, at)
            self._telemetry.traces.record(self._carrier, whole, [*before, *self._stages], self._moments, attributes)


class _WatchedSteps(Generator[Work | Event, Any, None]):
    def __init__(self, steps: Steps, watch: QueryWatch, last_call: Callable[[], EngineCall | None]) -> None:
        self._steps = steps
        self._watch = watch
        self._last_call = last_call
        self._calling = False
        self._stage = ""
        self._painted = False
        self._over = False

    def send(self, value: Any) -> Work | Event:
        if self._calling and value is None:  # begun anew
            self._stage, self._painted = "", False
        elif self._calling and (call := self._last_call()) is not None:
            self._watch.called(call)
        try:
            item = self._steps.send(value)
        except BaseException:
            self._end()
            raise
        self._calling = not isinstance(item, Event)
        if isinstance(item, StepDone):
            self._painted = item.step == item.steps
        stage = _STAGES.get(type(item), self._stage)
        if isinstance(item, DecodeLatent) and not self._painted:  # a preview, on the way
            stage = self._stage
        if stage != self._stage:
            self._stage = stage
            self._watch.entered(stage, time.perf_counter())
        return item

    def throw(
        self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None, /
    ) -> Work | Event:
        self._end()
        return self._steps.throw(kind if value is None else value)  # type: ignore[arg-type]

    def close(self) -> None:
        self._end()
        self._steps.close()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._watch.ended(time.perf_counter())
