"""The running server: gRPC with limits, keepalive, health and reflection; start, warm up, drain, stop."""

from __future__ import annotations

import asyncio
import io
import logging
import signal
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2, guidance_pb2_grpc
from PIL import Image

from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.failures import RequestError
from lego_server.guide import Guide
from lego_server.options import OptionWishes
from lego_server.security.config import SecurityConfig
from lego_server.security.exposure import exposure
from lego_server.security.guard import Security
from lego_server.service import GuidanceService

SERVICE_NAME = guidance_pb2.DESCRIPTOR.services_by_name["Guidance"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = logging.getLogger(__name__)


class GuidanceServer:
    """A gRPC server of one engine. `start` it, `warm_up`, and `stop` it.

    Attributes:
        port: The TCP port listened on, once started.
        address: HOST:PORT listened on, once started.
    """

    def __init__(self, engine: Engine, config: ServerConfig, security: Security | None = None) -> None:
        """Builds the server; nothing listens yet. Called on the event loop that will run it.

        Args:
            engine: The loaded model.
            config: Where to listen, and the limits.
            security: What protects it; None for nothing, which is good enough for this machine only.

        Raises:
            LegoError: The address is not safe to listen on, or the model's defaults lie outside the limits.
        """
        self._config = config
        self._security = Security(SecurityConfig(), config.host) if security is None else security
        self._guide = Guide(engine, config, log_content=self._security.config.log_content)
        self._service = GuidanceService(self._guide)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            interceptors=self._security.interceptors,
            options=[*_channel_options(config), *self._security.channel_options],
        )
        guidance_pb2_grpc.add_GuidanceServicer_to_server(self._service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.port = 0
        self.address = ""

    @property
    def exposure_warning(self) -> str:
        """What an operator who allowed it should be told at every start; empty if nothing lacks."""
        lacking = exposure(self._security.config, self._config.host)
        return lacking and f"{self._config.host} can be reached from other machines, and without {lacking}"

    @property
    def live_queries(self) -> int:
        """Queries the engine loop holds."""
        return self._guide.engine_loop.live

    async def start(self) -> None:
        """Listens; health answers NOT_SERVING until `warm_up` is done.

        Raises:
            LegoError: The address cannot be listened on.
        """
        await self._set_health(_NOT_SERVING)
        host = self._config.host
        host = f"[{host}]" if ":" in host else host  # as IPv6 addresses are written beside a port
        try:
            self.port = self._security.add_port(self._server, f"{host}:{self._config.port}")
        except RuntimeError as error:
            await self._guide.close()
            raise LegoError(
                f"cannot listen on {host}:{self._config.port}: the port is taken or the address is not this "
                "machine's; choose another --port (0 takes any free one) or --host"
            ) from error
        self.address = f"{host}:{self.port}"
        await self._server.start()

    async def warm_up(self) -> None:
        """Answers one query of its own, so that the first wearer does not pay for what is built on first use.

        Raises:
            LegoError: The model cannot answer; the reason has been logged.
        """
        began = time.perf_counter()
        picture = io.BytesIO()
        Image.new("RGB", (320, 240), (128, 128, 128)).save(picture, "JPEG")
        query = self._guide.check_query("how do I open the drawer?", OptionWishes(seed=0, steps=1))
        frame = await self._guide.prepare_frame(picture.getvalue())
        try:
            await self._guide.answer(query, frame)
        except RequestError as error:
            raise LegoError(
                "the model failed on a first query of the server's own, for the reason logged above: "
                "check its engines with lego-export verify, or rebuild them with lego-export build"
            ) from error
        _log.info("warm after %.1f s", time.perf_counter() - began)
        await self._set_health(_SERVING)

    async def stop(self) -> None:
        """Refuses new work, lets queries in flight finish within `shutdown_seconds`, and ends."""
        await self._set_health(_NOT_SERVING)
        self._service.drain()
        await self._server.stop(self._config.shutdown_seconds)
        await self._guide.close()

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)


async def serve(
    engine: Engine, config: ServerConfig, announce: Callable[[str], None], security: Security | None = None
) -> None:
    """Serves until SIGINT or SIGTERM.

    Args:
        engine: The loaded model.
        config: Where to listen, and the limits.
        announce: Told the line `listening on HOST:PORT` when the server is warm, and warnings.
        security: What protects the server; see `GuidanceServer`.
    """
    server = GuidanceServer(engine, config, security)
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    try:
        if warning := server.exposure_warning:
            announce(f"warning: {warning}")
        asked_to_stop = asyncio.create_task(stopping.wait())
        warming = asyncio.create_task(server.warm_up())
        await asyncio.wait((warming, asked_to_stop), return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():  # a large model takes long to warm up, and nobody waits for it now
            warming.cancel()
            return
        await warming
        announce(f"listening on {server.address}")
        await asked_to_stop
        _log.info("stopping: queries in flight have %.0f s", config.shutdown_seconds)
    finally:
        await server.stop()


def _channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    keepalive_ms = int(1000 * config.keepalive_seconds)
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Two servers on one port would share its connections at random; the second must fail instead.
        ("grpc.so_reuseport", 0),
        # Finds clients that vanished without a word, so that their work is freed.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients ping as often as we do; with gRPC's default of 5 minutes they would be cut off for too many pings.
        ("grpc.http2.min_ping_interval_without_data_ms", keepalive_ms // 2),
    ]
