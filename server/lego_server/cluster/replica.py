"""A replica: one engine and its loop in a process of Ray Serve's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from lego_core.errors import LegoError
from ray import serve

from lego_server.assistant import Failed
from lego_server.backend import Cancellable, CheckedQuery, too_late, warm_up
from lego_server.cluster.frame_store import FrameStore
from lego_server.cluster.orders import Order, Reply, Taken
from lego_server.cluster.replica_metrics import ReplicaMetrics
from lego_server.cluster.replies import Replies
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.failures import RequestError, as_request_error
from lego_server.guide import Guide
from lego_server.logs import setup_logging
from lego_server.messages import QueryFailed
from lego_server.telemetry import Telemetry


class Replica:
    """Answers orders with one engine; Ray Serve makes as many of these as there is work for."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, load: Callable[[Path], Engine], directory: Path, model_version: str, config: ServerConfig
    ) -> None:
        """Loads the engine and has it answer once; only then does Ray Serve send queries.

        Args:
            load: Loads an engine directory.
            directory: Where it is on this machine.
            model_version: What must be in it.
            config: How queries share the engine.

        Raises:
            LegoError: The directory holds no such engine, or it cannot answer.
        """
        setup_logging(config.logging.format, config.logging.level)
        engine = await asyncio.to_thread(load, directory)
        if engine.manifest.model_version != model_version:
            raise LegoError(
                f"{directory} holds {engine.manifest.model_version} on this machine, but the server asks for "
                f"{model_version}: put the same engines on every machine, then send the server SIGHUP"
            )
        self._guide = Guide(engine, config, Telemetry(ReplicaMetrics()))
        self._frames = FrameStore(self._guide.prepare_frame)
        self._jobs: dict[str, Cancellable] = {}
        self._name = serve.get_replica_context().replica_id.unique_id
        await warm_up(self._guide)

    async def answer(self, order: Order) -> AsyncIterator[Reply]:
        """Yields what is to be told of a query: `Taken`, its events, and last an `Answer` or `QueryFailed`.

        Ending the iteration ends the query before its next engine call.
        """
        arrived = time.perf_counter()
        query = CheckedQuery(order.prompt, order.options, arrived, arrived + order.seconds)
        replies = Replies()
        try:
            frame = await self._frames.get(order.frame_key, order.frame)
            job = self._guide.submit(query, frame, replies.put, order.wearer)
        except RequestError as error:
            yield _refused(error)
            return
        self._jobs[order.query] = job
        job.defer(order.absent)
        # The server cancels at the deadline; this one is for when the server is gone.
        expiry = asyncio.get_running_loop().call_later(order.seconds, replies.put, Failed(too_late(query)))
        try:
            yield Taken(self._name)
            async for event in replies.read():
                yield _refused(as_request_error(event.error)) if isinstance(event, Failed) else event
        finally:
            expiry.cancel()
            job.cancel()
            del self._jobs[order.query]

    async def defer(self, query: str, absent: bool) -> None:
        """Lets others' queries go first while who asked this one is not there; it may be another replica's."""
        if query in self._jobs:
            self._jobs[query].defer(absent)

    def check_health(self) -> None:
        """Asked by Ray Serve time and again; a replica that raises is replaced.

        Raises:
            RuntimeError: An engine call is over its deadline.
        """
        if (call := self._guide.hung) is not None:
            raise RuntimeError(f"the engine has been in one call of {call.name} for {call.seconds:.0f} s")


def _refused(error: RequestError) -> QueryFailed:
    return QueryFailed(0, error.reason, str(error), error.retry_after)
