"""The running server: gRPC with limits, keepalive, health and reflection; the gateway; start, warm up, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_core.secrecy import is_loopback
from lego_core.tracing import otlp_provider
from lego_proto.v1 import guidance_pb2, guidance_pb2_grpc

from lego_server.backend import Backend, Deployed, warm_up
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.gateway.gateway import Gateway
from lego_server.guide import Guide
from lego_server.health import Health
from lego_server.metrics import Metrics, MetricsPort
from lego_server.models import Models
from lego_server.security.exposure import exposure
from lego_server.security.guard import Guard, connection_limits
from lego_server.security.protection import Security
from lego_server.service import GuidanceService
from lego_server.speech.desk import SpeechDesk
from lego_server.stream import Streams
from lego_server.telemetry import Telemetry
from lego_server.tracing import QueryTraces

SERVICE_NAME = guidance_pb2.DESCRIPTOR.services_by_name["Guidance"].full_name
_LAST_WORDS_SECONDS = 1.0  # for answers to reach their clients, once all is answered or handed back
_log = logging.getLogger(__name__)


class GuidanceServer:
    """A gRPC server of one or more models. `start` it, `warm_up`, and `stop` it.

    Attributes:
        port: The TCP port listened on, once started.
        address: HOST:PORT listened on, once started.
        gateway: For wearers with a browser; None where there is no web port.
    """

    def __init__(
        self, engines: Mapping[str, Engine | Deployed], config: ServerConfig, telemetry: Telemetry | None = None,
        security: Security | None = None, speech: SpeechDesk | None = None,
    ) -> None:  # fmt: skip
        """Builds the server; nothing listens yet. Called on the event loop that will run it.

        Args:
            engines: The loaded models by name, the default first; those that run elsewhere are reached from here.
            config: Where to listen, and the limits.
            telemetry: Where observations go; None keeps figures that nobody asks for.
            security: What protects it; None for what the config says.
            speech: Writes down speech, and is closed with the server; None for nothing that does.

        Raises:
            LegoError: The address is not safe to listen on, a model's defaults lie outside the limits, or the web page
                cannot be served.
        """
        self._config = config
        self._security = security or Security(config.security, config.hosts)
        self._telemetry = telemetry or Telemetry()
        guides = {name: self._backend(engine) for name, engine in engines.items()}
        self._models = Models(guides, config, self._telemetry, speech)
        self._streams = Streams(self._models)
        self._service = GuidanceService(self._models, self._streams)
        self._health = Health(lambda: self._models.guides, SERVICE_NAME)
        self._server = grpc.aio.server(
            interceptors=[Guard(self._security.admission)],
            options=[*_channel_options(config), *connection_limits(config.security)],
        )
        guidance_pb2_grpc.add_GuidanceServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.gateway = None
        if config.web.port is not None:
            self.gateway = Gateway(config, self._security, self._streams, self._health, self._telemetry.metrics)
        self._telemetry.metrics.watch_certificate(self._security.certificate_expiry)
        self._security.admission.on_refusal = self._telemetry.metrics.rejected
        self._reminder: asyncio.Task[None] | None = None
        self.port = 0
        self.address = ""

    @property
    def exposure_warning(self) -> str:
        """What an operator who allowed it should be told at every start; empty if nothing lacks."""
        lacking = {host: exposure(self._security.config, host) for host in self._config.hosts}
        return "; ".join(
            f"{host} can be reached from other machines, and without {each}" for host, each in lacking.items() if each
        )

    @property
    def telemetry(self) -> Telemetry:
        """What the server observes of itself."""
        return self._telemetry

    @property
    def live_queries(self) -> int:
        """Queries that are being answered or wait."""
        return sum(guide.live for guide in self._models.guides)

    @property
    def sessions(self) -> int:
        """Sessions there are, those that wait for their client included."""
        return self._streams.session_count

    async def start(self) -> None:
        """Listens; health answers NOT_SERVING until `warm_up` is done.

        Raises:
            LegoError: An address cannot be listened on.
        """
        await self._health.start()
        host = self._config.server.host
        host = f"[{host}]" if ":" in host else host  # as IPv6 addresses are written beside a port
        try:
            self.port = self._add_port(f"{host}:{self._config.server.port}")
        except RuntimeError as error:
            await self._close()
            raise LegoError(
                f"cannot listen on {host}:{self._config.server.port}: the port is taken or the address is not this "
                "machine's; choose another --port (0 takes any free one) or --host"
            ) from error
        self.address = f"{host}:{self.port}"
        try:
            if self.gateway is not None:
                await self.gateway.start()
        except LegoError:
            await self._server.stop(None)
            await self._close()
            raise
        await self._server.start()
        self._reminder = asyncio.create_task(self._security.remind_daily())

    def _add_port(self, address: str) -> int:
        if self._security.tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._security.tls.credentials())

    async def warm_up(self) -> None:
        """Has each model answer one query, so that the first wearer does not pay for what is built on first use.

        Raises:
            LegoError: A model cannot answer; the reason has been logged.
        """
        for guide in self._models.guides:
            await warm_up(guide)
        self._health.warm = True
        await self._health.update()

    async def replace(self, name: str, engine: Engine | Deployed) -> None:
        """Puts a model in the place of another, once it is warm. Sessions go on; so do queries begun before.

        Raises:
            LegoError: It cannot answer; the other one stays.
        """
        guide = self._backend(engine)
        try:
            await warm_up(guide)
        except BaseException:
            await guide.close(replaced=True)
            raise
        self._models.replace(name, guide)

    def serves(self, name: str, manifest: Manifest) -> bool:
        """Says whether a model by this name is served as a manifest describes it."""
        return name in self._models.names and self._models.find(name).manifest == manifest

    def _backend(self, engine: Engine | Deployed) -> Backend[Any]:
        if isinstance(engine, Deployed):
            return engine.backend(self._config, self._telemetry)
        return Guide(engine, self._config, self._telemetry)

    async def stop(self) -> None:
        """Refuses new work, lets queries in flight finish within `shutdown_seconds`, and ends."""
        self._health.draining = True
        await self._health.update()
        await self._service.drain(self._config.server.shutdown_seconds)
        ending = [self._server.stop(_LAST_WORDS_SECONDS)]
        if self.gateway is not None:
            ending.append(self.gateway.stop(_LAST_WORDS_SECONDS))
        await asyncio.gather(*ending)
        await self._close()

    async def _close(self) -> None:
        await self._models.close()
        if self._models.speech is not None:
            await self._models.speech.close()
        self._health.stop()
        if self._reminder is not None:
            self._reminder.cancel()


async def serve(
    load: Callable[[Path], Engine | Deployed], directories: Mapping[str, Path], config: ServerConfig,
    announce: Callable[[str], None], security: Security | None = None, speech: SpeechDesk | None = None,
) -> None:  # fmt: skip
    """Serves until SIGINT or SIGTERM; SIGHUP has every directory looked at again, and what is new in it served.

    Args:
        load: Loads an engine directory, here or elsewhere.
        directories: Engine directories by the names of their models, the default first.
        config: Where to listen, and the limits.
        announce: Told the line `listening on HOST:PORT` when the server is warm, and warnings.
        security: What protects the server; None for what the config says.
        speech: Writes down speech; None for nothing that does.
    """
    stopping, reloading = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloading.set)
    asked_to_stop = asyncio.create_task(stopping.wait())
    loading = asyncio.create_task(_load_all(load, directories))
    await asyncio.wait((loading, asked_to_stop), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():  # a large model takes long to load, and nobody waits for it now
        loading.cancel()
        return
    telemetry = Telemetry(Metrics(), _open_traces(config))
    server = GuidanceServer(await loading, config, telemetry, security, speech)
    await server.start()
    metrics_port: MetricsPort | None = None
    try:
        if config.metrics.port is not None:
            if not is_loopback(config.metrics.host):
                announce(
                    f"warning: whoever can reach {config.metrics.host} can read the metrics; they ask for no token"
                )
            metrics_port = MetricsPort(telemetry.metrics, config.metrics.host, config.metrics.port)
            announce(f"metrics at http://{config.metrics.host}:{metrics_port.port}/metrics")
        if server.gateway is not None:
            announce(f"web page at {server.gateway.url}")
        if warning := server.exposure_warning:
            announce(f"warning: {warning}")
        warming = asyncio.create_task(server.warm_up())
        await asyncio.wait((warming, asked_to_stop), return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():  # a large model takes long to warm up, and nobody waits for it now
            warming.cancel()
            return
        await warming
        announce(f"listening on {server.address}")
        reloader = asyncio.create_task(_reload_when_told(server, reloading, load, directories, announce))
        await asked_to_stop
        reloader.cancel()
        _log.info("stopping: queries in flight have %.0f s", config.server.shutdown_seconds)
    finally:
        await server.stop()
        if metrics_port is not None:
            await asyncio.to_thread(metrics_port.close)
        if telemetry.traces is not None:
            await asyncio.to_thread(telemetry.traces.close)


async def _reload_when_told(
    server: GuidanceServer, told: asyncio.Event, load: Callable[[Path], Engine | Deployed],
    directories: Mapping[str, Path], announce: Callable[[str], None],
) -> None:  # fmt: skip
    while True:
        await told.wait()
        told.clear()
        for name, path in directories.items():
            try:
                announce(await _reload(server, name, load, path))
            except Exception:  # whatever it is, the next SIGHUP must be heard
                _log.exception("%s is not replaced, or nobody could be told", name)


async def _reload(server: GuidanceServer, name: str, load: Callable[[Path], Engine | Deployed], path: Path) -> str:
    """Serves what an engine directory holds, if that is new and good; returns what came of it."""
    try:
        if server.serves(name, Manifest.load(path)):
            return f"{name} is as before"
        engine = await _load(load, path)
        await server.replace(name, engine)
    except LegoError as error:
        return f"warning: {name} is not replaced: {error}"
    return f"{name} is now {engine.manifest.model_version}"


async def _load_all(
    load: Callable[[Path], Engine | Deployed], directories: Mapping[str, Path]
) -> dict[str, Engine | Deployed]:
    return {name: await _load(load, path) for name, path in directories.items()}


async def _load(load: Callable[[Path], Engine | Deployed], path: Path) -> Engine | Deployed:
    """Loads in a thread that, unlike the event loop's own, does not keep a process that is told to stop."""
    loaded: Future[Engine | Deployed] = Future()

    def run() -> None:
        try:
            loaded.set_result(load(path))
        except BaseException as error:
            loaded.set_exception(error)

    loaded.set_running_or_notify_cancel()
    threading.Thread(target=run, name="loading", daemon=True).start()
    return await asyncio.wrap_future(loaded)


def _open_traces(config: ServerConfig) -> QueryTraces | None:
    if config.tracing.endpoint is None:
        return None
    return QueryTraces(otlp_provider("lego-server", config.tracing.endpoint, config.tracing.ratio))


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    keepalive_ms = int(1000 * config.server.keepalive_seconds)
    return [
        ("grpc.max_receive_message_length", config.limits.message_bytes),
        ("grpc.max_send_message_length", config.limits.message_bytes),
        # Two servers on one port would share its connections at random; the second must fail instead.
        ("grpc.so_reuseport", 0),
        # Finds clients that vanished without a word, so that their work is freed.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", 10_000),
        # While a ping of gRPC's own is unanswered it sends none for keepalive, and waits for a minute by itself.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients ping as often as we do; with gRPC's default of 5 minutes they would be cut off for too many pings.
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
    ]
