"""One loaded model at the service of many sessions: assistant, engine loop, and the limits on what reaches them."""

from __future__ import annotations

import asyncio
import time

from lego_core.branches import cost

from lego_server.assistant import Assistant, Question
from lego_server.backend import Backend, Cancellable, CheckedQuery
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.engines.watched import EngineCall, WatchedEngine
from lego_server.frames import PreparedFrame, prepare_frame
from lego_server.loop import EngineLoop, Listener
from lego_server.repeatable import Repeatable
from lego_server.telemetry import Telemetry


class Guide(Backend[PreparedFrame]):
    """Answers queries with an engine of this process."""

    def __init__(self, engine: Engine, config: ServerConfig, telemetry: Telemetry | None = None) -> None:
        """Starts the engine threads.

        Args:
            engine: The loaded model.
            config: The limits.
            telemetry: Where observations go; None keeps figures that nobody asks for.

        Raises:
            LegoError: The model's own defaults lie outside the server's limits.
        """
        super().__init__(engine.manifest, engine.texts, engine.name, config, telemetry)
        sharing = config.engine
        self.engine = WatchedEngine(engine, self.telemetry.metrics, sharing.engine_call_seconds)
        self.engine_loop = EngineLoop(
            self.engine, sharing.max_active, sharing.max_waiting, sharing.max_batch, sharing.lanes
        )
        self.telemetry.metrics.serving(self.manifest.model_version, engine.name)
        self._assistant = Assistant(engine.manifest, engine.texts)

    @property
    def active(self) -> int:
        """See `Backend.active`."""
        return self.engine_loop.active

    @property
    def waiting(self) -> int:
        """See `Backend.waiting`."""
        return self.engine_loop.waiting

    @property
    def live(self) -> int:
        """See `Backend.live`."""
        return self.engine_loop.live

    @property
    def able(self) -> bool:
        """See `Backend.able`."""
        return self.engine.hung is None

    @property
    def failed(self) -> bool:
        """See `Backend.failed`."""
        return self.engine.failed

    @property
    def hung(self) -> EngineCall | None:
        """See `Backend.hung`."""
        return self.engine.hung

    async def prepare_frame(self, data: bytes, arrived: float | None = None) -> PreparedFrame:
        """Decodes a frame off the event loop; see `Backend.prepare_frame`."""
        arrived = time.perf_counter() if arrived is None else arrived
        return await asyncio.to_thread(prepare_frame, data, self.config.limits, self.manifest.lego, arrived)

    def encode_ahead(self, frame: PreparedFrame) -> None:
        """See `Backend.encode_ahead`."""
        self.engine_loop.submit_idle(self._assistant.encode(frame))

    def forget_description(self, frame: PreparedFrame) -> None:
        """See `Backend.forget_description`."""
        frame.described = None

    def refuse_if_full(self, query: CheckedQuery) -> None:
        """See `Backend.refuse_if_full`."""
        self.engine_loop.refuse_if_full(query.deadline, cost(query.options.evaluations()))

    def submit(self, query: CheckedQuery, frame: PreparedFrame, listener: Listener, wearer: str = "") -> Cancellable:
        """Hands a query to the engine loop; see `Backend.submit`."""
        question = Question(frame, query.prompt, query.options, query.arrived, time.perf_counter())
        watch = self.telemetry.watch(
            query.arrived, question.prepared, frame.arrived, query.options.steps, frame.decoding
        )
        answer = Repeatable(lambda: self._assistant.answer(question))
        steps = watch.steps(answer, lambda: self.engine.last_call)
        return self.engine_loop.submit(
            steps, watch.listener(listener), wearer, query.deadline, cost(query.options.evaluations()), answer.restart
        )

    def hand_back_waiting(self) -> None:
        """See `Backend.hand_back_waiting`."""
        self.engine_loop.hand_back_waiting()

    async def close(self, replaced: bool = False) -> None:
        """Drops all work and ends the engine threads."""
        await asyncio.to_thread(self.engine_loop.close)
