"""What all sessions share: one model's assistant and engine loop, and the limits on what may reach them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from lego_core.errors import LegoError
from lego_core.manifest import Manifest

from lego_server.assistant import Answer, Assistant, Event, Failed, Question
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.failures import Reason, RequestError
from lego_server.frames import PreparedFrame, prepare_frame
from lego_server.loop import EngineLoop, Job, Listener
from lego_server.options import OptionWishes, SamplingOptions, resolve_options
from lego_server.texts import PromptTokens

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedQuery:
    """A query whose words and options are known to be good."""

    prompt: PromptTokens
    options: SamplingOptions
    arrived: float


class Guide:
    """One loaded model at the service of many sessions."""

    def __init__(self, engine: Engine, config: ServerConfig, log_content: bool = False) -> None:
        """Starts the engine thread.

        Args:
            engine: The loaded model.
            config: The limits.
            log_content: Write queries into the log. Otherwise nothing that a wearer says or sees goes there.

        Raises:
            LegoError: The model's own defaults lie outside the server's limits.
        """
        defaults = engine.manifest.lego.guidance
        # A model cannot be sampled in more steps than it was trained with.
        self.max_steps = min(config.max_steps, engine.manifest.schedule.train_timesteps)
        if defaults.steps > config.max_steps:
            raise LegoError(
                f"max_steps is {config.max_steps}, but this model's default is {defaults.steps} steps: raise it"
            )
        self.config = config
        self._log_content = log_content
        self.engine_name = engine.name
        self.manifest: Manifest = engine.manifest
        self.engine_loop = EngineLoop(engine, config.max_active, config.max_waiting, config.max_batch)
        self._texts = engine.texts
        self._assistant = Assistant(engine.manifest, engine.texts)

    def check_query(self, text: str, wishes: OptionWishes) -> CheckedQuery:
        """Checks a query before it costs anything.

        Raises:
            RequestError: INVALID, naming the field, its value and its range.
        """
        arrived = time.perf_counter()
        limit = self.config.max_query_characters
        if not text.strip():
            raise RequestError(Reason.INVALID, "the query is empty; ask for example 'how do I open the drawer?'")
        if len(text) > limit:
            raise RequestError(Reason.INVALID, f"the query has {len(text)} characters; the limit is {limit}")
        options = resolve_options(wishes, self.manifest.lego, self.max_steps, self.config.max_description_characters)
        try:
            prompt = self._texts.prompt(text, options.fidelity)
        except LegoError as error:
            raise RequestError(Reason.INVALID, str(error)) from error
        if self._log_content:
            _log.info("query %r, description %r", text, options.description)
        return CheckedQuery(prompt, options, arrived)

    async def prepare_frame(self, data: bytes) -> PreparedFrame:
        """Decodes a frame off the event loop.

        Raises:
            RequestError: INVALID: not a picture, damaged, or above a limit.
        """
        return await asyncio.to_thread(prepare_frame, data, self.config, self.manifest.lego)

    def submit(self, query: CheckedQuery, frame: PreparedFrame, listener: Listener) -> Job:
        """Hands a query to the engine loop; `listener` hears its events on the running event loop.

        Raises:
            RequestError: OVERLOADED.
        """
        question = Question(frame, query.prompt, query.options, query.arrived, time.perf_counter())
        return self.engine_loop.submit(self._assistant.answer(question), listener)

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
