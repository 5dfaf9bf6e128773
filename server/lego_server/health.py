"""Health as `grpc.health.v1` tells it, true to the facts at the moment it is asked.

`live`   the event loop answers.
`ready`  queries are welcome: warmed up, not stopping, no engine call over its deadline. So are "" and the service.
`model`  every model is loaded, and its last engine call neither failed nor hangs.

Where replicas have the engines, a model is loaded while one of them runs; Ray Serve replaces one whose engine hangs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from lego_server.backend import Backend
from lego_server.engines.watched import EngineCall
from lego_server.logs import log_event

SERVICES = ("live", "ready", "model")
_PERIOD = 0.5  # seconds between two looks: how late those may hear of a change who watch instead of asking
_log = logging.getLogger(__name__)


class Health(health_pb2_grpc.HealthServicer):
    """Serves `grpc.health.v1.Health`, and logs when an engine call hangs.

    Attributes:
        warm: Whether the first query of the server's own has been answered.
        draining: Whether the server is stopping.
    """

    def __init__(self, backends: Callable[[], Iterable[Backend[Any]]], service: str) -> None:
        self._backends = backends
        self._ready_names = ("ready", "", service)
        self._statuses = health.aio.HealthServicer()
        self._hung: EngineCall | None = None
        self._watch: asyncio.Task[None] | None = None
        self.warm = False
        self.draining = False

    async def Check(  # the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The status of one of the services above."""
        await self.update()
        return await self._statuses.Check(request, context)

    async def Watch(  # the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> None:
        """The status now, and whenever it changes."""
        await self.update()
        await self._statuses.Watch(request, context)

    async def start(self) -> None:
        """Says what holds now, and goes on looking until `stop`."""
        await self.update()
        self._watch = asyncio.create_task(self._look())

    def stop(self) -> None:
        """Looks no more."""
        if self._watch is not None:
            self._watch.cancel()

    def facts(self) -> dict[str, bool]:
        """Returns what holds now: every service, and whether it is SERVING."""
        backends = list(self._backends())
        hung = next((call for each in backends if (call := each.hung) is not None), None)
        self._log_change(hung)
        ready = self.warm and not self.draining and hung is None and all(each.able for each in backends)
        model = hung is None and not any(each.failed for each in backends)
        return {"live": True, "model": model, **dict.fromkeys(self._ready_names, ready)}

    async def update(self) -> None:
        """Brings every status up to date."""
        kinds = health_pb2.HealthCheckResponse
        for name, serving in self.facts().items():
            await self._statuses.set(name, kinds.SERVING if serving else kinds.NOT_SERVING)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD)
            await self.update()

    def _log_change(self, hung: EngineCall | None) -> None:
        before, self._hung = self._hung, hung
        if hung is not None and hung is not before:
            log_event(_log, logging.ERROR, "engine_call_hung", call=hung.name, rows=hung.rows, seconds=hung.seconds)
        if before is not None and hung is not before:
            log_event(_log, logging.WARNING, "engine_call_back", call=before.name, seconds=before.seconds)
