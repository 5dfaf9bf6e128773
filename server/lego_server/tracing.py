"""OpenTelemetry spans of queries; the extra `telemetry` has what is imported here, and only when tracing is on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


@dataclass
class Stage:
    """A stretch of a query's life, in seconds of `time.perf_counter()`."""

    name: str
    begin: float
    end: float
    parts: list[Stage] = field(default_factory=list)


class QueryTraces:
    """Records each query as a span with its stages below it, in the trace its client names."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("lego_server")
        self._propagator = TraceContextTextMapPropagator()

    def record(
        self, carrier: Mapping[str, str], query: Stage, stages: Iterable[Stage], moments: Mapping[str, float],
        attributes: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Records a query that has ended.

        Args:
            carrier: The call's metadata, perhaps with W3C `traceparent` and `tracestate`.
            query: The whole of it.
            stages: Its parts, which may have parts of their own.
            moments: What happened at one moment, by name, in seconds of `time.perf_counter()`.
            attributes: Of the query's span.
        """
        from opentelemetry.trace import Span, set_span_in_context

        offset = time.time_ns() - time.perf_counter_ns()

        def nanoseconds(seconds: float) -> int:
            return int(seconds * 1e9) + offset

        parent = self._propagator.extract(carrier)

        def record_below(span: Span, stages: Iterable[Stage]) -> None:
            context = set_span_in_context(span, parent)
            for stage in stages:
                child = self._tracer.start_span(stage.name, context, start_time=nanoseconds(stage.begin))
                record_below(child, stage.parts)
                child.end(nanoseconds(stage.end))

        span = self._tracer.start_span(
            query.name, parent, start_time=nanoseconds(query.begin), attributes=dict(attributes)
        )
        record_below(span, stages)
        for name, at in moments.items():
            span.add_event(name, timestamp=nanoseconds(at))
        span.end(nanoseconds(query.end))

    def close(self) -> None:
        """Sends what has not been sent yet. Blocks."""
        self._provider.shutdown()
