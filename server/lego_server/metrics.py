"""Figures for Prometheus: one object with a method for each thing that happens. Label values are few and fixed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from wsgiref.simple_server import WSGIServer

from lego_core.errors import LegoError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from lego_server.failures import Reason
from lego_server.ports import listen_fault

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
# Failures of queries that had been taken in; those count as how a query ended.
_NO_REJECTIONS = {Reason.SUPERSEDED, Reason.CANCELLED, Reason.INTERNAL, Reason.DEADLINE_EXCEEDED}


class Metrics:
    """What one server counts and times. Every method is safe from any thread.

    Attributes:
        registry: Holds the figures; a server has its own, so that two in one process do not mix.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def histogram(name: str, help: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(name, help, labels, buckets=buckets, registry=registry)

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(name, help, labels, registry=registry)

        def gauge(name: str, help: str, *labels: str) -> Gauge:
            return Gauge(name, help, labels, registry=registry)

        self._model = gauge("lego_model_info", "What is served; always 1.", "model", "engine")
        self._sessions = gauge("lego_sessions", "Open Guide streams.")
        self._sessions_opened = counter("lego_sessions_opened_total", "Guide streams ever opened.")
        self._web_connections = gauge("lego_web_connections", "Connections to the web port, the page's included.")
        self._waiting = gauge("lego_queue_depth", "Queries that wait for a turn.")
        self._active = gauge("lego_active_queries", "Queries that share the engine.")
        self._queries = counter("lego_queries_total", "Queries taken in, by how they ended.", "outcome")
        self._rejects = counter("lego_rejects_total", "Requests refused, by reason.", "reason")
        self._first_token = histogram("lego_first_token_seconds", "From a query's arrival to its first words.")
        self._first_preview = histogram("lego_first_preview_seconds", "From a query's arrival to its first preview.")
        self._guidance = histogram("lego_guidance_seconds", "From a query's arrival to its guidance frame.")
        self._frame_age = histogram("lego_frame_age_seconds", "Age of the frame when its answer is sent.")
        self._stages = histogram("lego_stage_seconds", "Time of an answered query in each stage.", "stage")
        self._steps = counter("lego_denoising_steps_total", "Denoising steps done, over all queries.")
        self._calls = histogram("lego_engine_call_seconds", "Time of engine calls.", "call")
        self._call_failures = counter("lego_engine_call_failures_total", "Engine calls that raised an error.", "call")
        self._unet_rows = histogram(
            "lego_unet_call_rows", "Rows of a U-Net call: queries times guidance branches.", buckets=_ROWS
        )
        self._features = gauge("lego_kept_features", "Queries whose U-Net features are held for steps to come.")
        self._stuck = gauge("lego_engine_stuck", "1 while an engine call is over its deadline.")
        self._replicas = gauge("lego_replicas", "Replicas that run, where they have the engines.", "model")
        self._retries = counter("lego_query_retries_total", "Queries given to another replica, as theirs was lost.")
        self._speech = counter("lego_speech_seconds_total", "Sound taken in to be written down, in seconds.")
        self._transcriptions = histogram(
            "lego_transcription_seconds", "Time of a transcript, partial or final, waiting for its turn included."
        )
        self._certificate = gauge(
            "lego_certificate_expiry_timestamp_seconds",
            "Unix time at which the TLS certificate expires; NaN without TLS.",
        )
        self._certificate.set(math.nan)
        for outcome in ("answered", "failed", "dropped"):  # present from the start, so that rates are defined
            self._queries.labels(outcome)

    def serving(self, model: str, engine: str) -> None:
        """Notes which model is served, and by what."""
        self._model.labels(model, engine).set(1)

    def watch_queue(self, waiting: Callable[[], int], active: Callable[[], int]) -> None:
        """Has the queue read whenever figures are asked for."""
        self._waiting.set_function(waiting)
        self._active.set_function(active)

    def watch_engine(self, stuck: Callable[[], bool]) -> None:
        """Has it asked whether an engine call is over its deadline."""
        self._stuck.set_function(stuck)

    def watch_replicas(self, model: str, running: Callable[[], int]) -> None:
        """Has it asked how many replicas of a model run."""
        self._replicas.labels(model).set_function(running)

    def forget_replicas(self, model: str) -> None:
        """Asks no more: the model is no longer served by these replicas."""
        self._replicas.remove(model)

    def retried(self) -> None:
        """A query was given to another replica."""
        self._retries.inc()

    def watch_certificate(self, expiry: Callable[[], float]) -> None:
        """Has it asked when the TLS certificate expires, in Unix time."""
        self._certificate.set_function(expiry)

    def watch_web_connections(self, count: Callable[[], int]) -> None:
        """Has it asked how many connections the web port has."""
        self._web_connections.set_function(count)

    def session_opened(self) -> None:
        """A `Guide` stream began."""
        self._sessions.inc()
        self._sessions_opened.inc()

    def session_closed(self) -> None:
        """A `Guide` stream ended."""
        self._sessions.dec()

    def rejected(self, reason: Reason | str) -> None:
        """A request was refused; failures of queries taken in before are no refusals and are left out.

        Args:
            reason: Why; for a whole call "sessions" (too many), "draining", or what `Admission` tells; at the web port
                "host" or "origin" too.
        """
        if reason not in _NO_REJECTIONS:
            self._rejects.labels(reason.value if isinstance(reason, Reason) else reason).inc()

    def engine_called(self, call: str, queries: int, rows: int, seconds: float) -> None:
        """An engine call came back.

        Args:
            call: The engine's method.
            queries: How many queries it served.
            rows: How many rows it had: of a U-Net call, queries times branches.
            seconds: How long it took.
        """
        self._calls.labels(call).observe(seconds)
        if call.startswith("denoise"):
            self._unet_rows.observe(rows)
            self._steps.inc(queries)

    def engine_call_failed(self, call: str) -> None:
        """An engine call raised an error."""
        self._call_failures.labels(call).inc()

    def speech_heard(self, seconds: float) -> None:
        """So much sound came in to be written down."""
        self._speech.inc(seconds)

    def transcribed(self, seconds: float) -> None:
        """A transcript was there so long after it was asked for."""
        self._transcriptions.observe(seconds)

    def features_kept(self) -> None:
        """A query's deep features are held."""
        self._features.inc()

    def features_freed(self) -> None:
        """They are no more."""
        self._features.dec()

    def first_token(self, seconds: float) -> None:
        """The first words of a description were sent so long after the query came."""
        self._first_token.observe(seconds)

    def first_preview(self, seconds: float) -> None:
        """The first preview was sent so long after the query came."""
        self._first_preview.observe(seconds)

    def answered(self, seconds: float, frame_age: float, stages: Mapping[str, float]) -> None:
        """A guidance frame was sent.

        Args:
            seconds: Since the query came.
            frame_age: Seconds since the frame it is about came.
            stages: Seconds in each stage.
        """
        self._queries.labels("answered").inc()
        self._guidance.observe(seconds)
        self._frame_age.observe(frame_age)
        for stage, spent in stages.items():
            self._stages.labels(stage).observe(spent)

    def failed(self) -> None:
        """A query ended in an error of the server's."""
        self._queries.labels("failed").inc()

    def dropped(self) -> None:
        """A query ended without an answer: superseded, cancelled, too late, or its client is gone."""
        self._queries.labels("dropped").inc()


class MetricsPort:
    """`http://HOST:PORT/metrics`, until it is closed.

    Attributes:
        port: Listened on.
    """

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        """Listens, on a thread of its own.

        Raises:
            LegoError: The address cannot be listened on.
        """
        try:
            self._server: WSGIServer = start_http_server(port, host, metrics.registry)[0]
        except (OSError, UnicodeError) as error:
            raise LegoError(
                f"cannot serve metrics on {host}:{port} ({listen_fault(error)}); choose another --metrics-port "
                "(0 takes any free one) or --metrics-host"
            ) from error
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stops listening. Blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
