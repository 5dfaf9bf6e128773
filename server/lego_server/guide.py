"""What all sessions share: one model's assistant and engine loop, and the limits on what may reach them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from lego_core.errors import LegoError
from lego_core.manifest import Manifest

from lego_server.assistant import Answer, Assistant, Event, Failed, Question
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.engines.watched import WatchedEngine
from lego_server.failures import Reason, RequestError
from lego_server.frames import PreparedFrame, prepare_frame
from lego_server.loop import EngineLoop, Job, Listener
from lego_server.options import OptionWishes, SamplingOptions, resolve_options
from lego_server.telemetry import Telemetry
from lego_server.texts import PromptTokens


@dataclass(frozen=True)
class CheckedQuery:
    """A query whose words and options are known to be good."""

    prompt: PromptTokens
    options: SamplingOptions
    arrived: float


class Guide:
    """One loaded model at the service of many sessions."""

    def __init__(self, engine: Engine, config: ServerConfig, telemetry: Telemetry | None = None) -> None:
        """Starts the engine thread.

        Args:
            engine: The loaded model.
            config: The limits.
            telemetry: Where observations go; None keeps figures that nobody asks for.

        Raises:
            LegoError: The model's own defaults lie outside the server's limits.
        """
        defaults = engine.manifest.lego.guidance
        # A model cannot be sampled in more steps than it was trained with.
        self.max_steps = min(config.limits.max_steps, engine.manifest.schedule.train_timesteps)
        if defaults.steps > config.limits.max_steps:
            raise LegoError(
                f"max_steps is {config.limits.max_steps}, but this model's default is {defaults.steps} steps: raise it"
            )
        self.config = config
        self.engine_name = engine.name
        self.manifest: Manifest = engine.manifest
        sharing = config.engine
        self.telemetry = telemetry or Telemetry()
        self.engine = WatchedEngine(engine, self.telemetry.metrics, sharing.engine_call_seconds)
        self.engine_loop = EngineLoop(self.engine, sharing.max_active, sharing.max_waiting, sharing.max_batch)
        self.telemetry.metrics.watch_queue(lambda: self.engine_loop.waiting, lambda: self.engine_loop.active)
        self.telemetry.metrics.serving(self.manifest.model_version, engine.name)
        self._texts = engine.texts
        self._assistant = Assistant(engine.manifest, engine.texts)

    def check_query(self, text: str, wishes: OptionWishes) -> CheckedQuery:
        """Checks a query before it costs anything.

        Raises:
            RequestError: INVALID, naming the field, its value and its range.
        """
        arrived = time.perf_counter()
        limit = self.config.limits.max_query_characters
        if not text.strip():
            raise RequestError(Reason.INVALID, "the query is empty; ask for example 'how do I open the drawer?'")
        if len(text) > limit:
            raise RequestError(Reason.INVALID, f"the query has {len(text)} characters; the limit is {limit}")
        longest = self.config.limits.max_description_characters
        options = resolve_options(wishes, self.manifest.lego, self.max_steps, longest)
        try:
            prompt = self._texts.prompt(text, options.fidelity)
        except LegoError as error:
            raise RequestError(Reason.INVALID, str(error)) from error
        return CheckedQuery(prompt, options, arrived)

    async def prepare_frame(self, data: bytes, arrived: float | None = None) -> PreparedFrame:
        """Decodes a frame off the event loop; it came in now, or at `arrived` by `time.perf_counter()`.

        Raises:
            RequestError: INVALID: not a picture, damaged, or above a limit.
        """
        arrived = time.perf_counter() if arrived is None else arrived
        return await asyncio.to_thread(prepare_frame, data, self.config.limits, self.manifest.lego, arrived)

    def submit(self, query: CheckedQuery, frame: PreparedFrame, listener: Listener) -> Job:
        """Hands a query to the engine loop; `listener` hears its events on the running event loop.

        Raises:
            RequestError: OVERLOADED.
        """
        question = Question(frame, query.prompt, query.options, query.arrived, time.perf_counter())
        watch = self.telemetry.watch(question)
        return self.engine_loop.submit(watch.steps(self._assistant.answer(question)), watch.listener(listener))

    async def answer(self, query: CheckedQuery, frame: PreparedFrame) -> Answer:
        """Answers one query; cancelling this coroutine stops the engine's work on it within one call.

        Raises:
            RequestError: OVERLOADED, or INTERNAL.
        """
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def hear(event: Event) -> None:
            if done.done():
                return
            if isinstance(event, Answer):
                done.set_result(event)
            elif isinstance(event, Failed):
                done.set_exception(RequestError(Reason.INTERNAL, INTERNAL_ERROR))

        job = self.submit(query, frame, hear)
        try:
            return await done
        finally:
            job.cancel()

    async def close(self) -> None:
        """Drops all work and ends the engine thread."""
        await asyncio.to_thread(self.engine_loop.close)


INTERNAL_ERROR = "the server failed on this query; ask again, and if it fails again tell its operator to read the log"
