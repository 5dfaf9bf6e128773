"""OpenTelemetry spans of a wearer's session, and the trace's name on its way to the server (W3C `traceparent`).

The extra `telemetry` has what is imported here, and only where there is somewhere to send spans to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lego_core.tracing import otlp_provider

from lego_client.events import DescriptionPiece, Event, Guidance, Progress, QueryFailed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class QuerySpan:
    """One query's span, told of its events."""

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._seen: set[str] = set()

    def note(self, event: Event) -> None:
        """Marks the first words, the first preview and the guidance frame, and how the query ended."""
        if self._span is None:
            return
        match event:
            case DescriptionPiece(text=text) if text:
                self._mark("first_token")
            case Progress(preview=preview) if preview:
                self._mark("first_preview")
            case Guidance():
                self._mark("picture")
                self._span.set_attribute("lego.outcome", "answered")
            case QueryFailed(code=code):
                self._span.set_attribute("lego.outcome", code)

    def _mark(self, name: str) -> None:
        if self._span is not None and name not in self._seen:
            self._seen.add(name)
            self._span.add_event(name)


class SessionTraces:
    """A session's span, with one below it for each query; all of it is one trace, which the server's spans join."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Starts nothing yet.

        Args:
            provider: Where spans go; None records none and costs nothing.
        """
        self._tracer = None if provider is None else provider.get_tracer("lego_client")
        self._session: Span | None = None

    def begin(self, target: str) -> tuple[tuple[str, str], ...]:
        """Begins the session's span; returns the metadata that tells the server of it."""
        if self._tracer is None:
            return ()
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._session = self._tracer.start_span("session", attributes={"server.address": target})
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._session))
        return tuple(carrier.items())

    @contextmanager
    def stretch(self, name: str) -> Iterator[None]:
        """A stretch of the session beside its queries, such as a frame's encoding, for as long as the block lasts."""
        if self._tracer is None or self._session is None:
            yield
            return
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(name, set_span_in_context(self._session))
        try:
            yield
        finally:
            span.end()

    @contextmanager
    def query(self, query_id: int) -> Iterator[QuerySpan]:
        """A query's span, for as long as the block lasts."""
        if self._tracer is None or self._session is None:
            yield QuerySpan(None)
            return
        from opentelemetry.trace import set_span_in_context

        parent = set_span_in_context(self._session)
        span = self._tracer.start_span("ask", parent, attributes={"lego.query": query_id})
        try:
            yield QuerySpan(span)
        finally:
            span.end()

    def end(self) -> None:
        """Ends the session's span."""
        if self._session is not None:
            self._session.end()
            self._session = None


def traces_from_environment() -> SessionTraces:
    """Returns traces that go where OTEL_EXPORTER_OTLP_ENDPOINT says; none where it is unset.

    Raises:
        LegoError: It is set, and OpenTelemetry is not installed or it is no address.
    """
    endpoint = os.environ.get(_ENDPOINT)
    return SessionTraces(otlp_provider("lego-client", endpoint) if endpoint else None)
