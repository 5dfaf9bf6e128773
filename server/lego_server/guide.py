"""One loaded model at the service of many sessions: assistant, engine loop, and the limits on what reaches them."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from lego_core.errors import LegoError
from lego_core.manifest import Manifest

from lego_server.assistant import Answer, Assistant, Event, Failed, Question
from lego_server.config import ServerConfig
from lego_server.engines.base import Engine
from lego_server.engines.watched import WatchedEngine
from lego_server.failures import Reason, RequestError, as_request_error
from lego_server.frames import PreparedFrame, prepare_frame
from lego_server.loop import EngineLoop, Listener
from lego_server.options import OptionWishes, SamplingOptions, resolve_options
from lego_server.telemetry import Telemetry
from lego_server.texts import PromptTokens

_log = logging.getLogger(__name__)


class Cancellable(Protocol):
    """A query that has been handed on."""

    def cancel(self) -> None:
        """Ends it before its next engine call; its listener hears no more. Safe from any thread."""

    def defer(self, absent: bool) -> None:
        """Lets those who are there go first while who asked is not. Safe from any thread."""


@dataclass(frozen=True)
class CheckedQuery:
    """A query whose words and options are known to be good.

    Attributes:
        prompt: What the VLLM reads.
        options: How to sample.
        arrived: `time.perf_counter()` when it came in.
        deadline: The same when its answer is worth nothing any more.
    """

    prompt: PromptTokens
    options: SamplingOptions
    arrived: float
    deadline: float


class Guide:
    """Checks queries for one model, and answers them."""

    def __init__(self, engine: Engine, config: ServerConfig, telemetry: Telemetry | None = None) -> None:
        """Starts the engine threads.

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
        self.engine_loop = EngineLoop(
            self.engine, sharing.max_active, sharing.max_waiting, sharing.max_batch, sharing.lanes
        )
        self.telemetry.metrics.serving(self.manifest.model_version, engine.name)
        self._texts = engine.texts
        self._assistant = Assistant(engine.manifest, engine.texts)

    def check_query(self, text: str, wishes: OptionWishes, seconds: float | None = None) -> CheckedQuery:
        """Checks a query before it costs anything.

        Args:
            text: What the wearer asked.
            wishes: How to sample.
            seconds: From now, in which it must be answered; None for the server's limit, to which more is cut.

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
        options = resolve_options(wishes, self.manifest, self.max_steps, longest)
        try:
            prompt = self._texts.prompt(text, options.fidelity)
        except LegoError as error:
            raise RequestError(Reason.INVALID, str(error)) from error
        if self.config.security.log_content:
            _log.info("query %r, description %r", text, options.description)
        allowed = self.config.limits.query_seconds
        return CheckedQuery(prompt, options, arrived, arrived + (allowed if seconds is None else min(seconds, allowed)))

    async def prepare_frame(self, data: bytes, arrived: float | None = None) -> PreparedFrame:
        """Decodes a frame off the event loop; it came in now, or at `arrived` by `time.perf_counter()`.

        Raises:
            RequestError: INVALID: not a picture, damaged, or above a limit.
        """
        arrived = time.perf_counter() if arrived is None else arrived
        return await asyncio.to_thread(prepare_frame, data, self.config.limits, self.manifest.lego, arrived)

    @property
    def idle(self) -> bool:
        """Whether no query is being answered or waits."""
        return self.engine_loop.live == 0

    def encode_ahead(self, frame: PreparedFrame) -> None:
        """Encodes a frame that a query may soon be about, unless there is something else to do."""
        self.engine_loop.submit_idle(self._assistant.encode(frame))

    def refuse_if_full(self, query: CheckedQuery) -> None:
        """Refuses a query before the work on its frame is done.

        Raises:
            RequestError: OVERLOADED or UNAVAILABLE.
        """
        self.engine_loop.refuse_if_full(query.deadline, query.options.steps)

    def submit(self, query: CheckedQuery, frame: PreparedFrame, listener: Listener, wearer: str = "") -> Cancellable:
        """Hands a query to the engine loop; `listener` hears its events on the running event loop.

        It is for the caller to cancel it at its deadline.

        Raises:
            RequestError: OVERLOADED or UNAVAILABLE.
        """
        question = Question(frame, query.prompt, query.options, query.arrived, time.perf_counter())
        watch = self.telemetry.watch(question)
        steps = watch.steps(self._assistant.answer(question))
        return self.engine_loop.submit(steps, watch.listener(listener), wearer, query.deadline, query.options.steps)

    async def answer(self, query: CheckedQuery, frame: PreparedFrame, wearer: str = "") -> Answer:
        """Answers one query; cancelling this coroutine stops the engine's work on it within one call.

        Raises:
            RequestError: OVERLOADED, UNAVAILABLE, DEADLINE_EXCEEDED or INTERNAL.
        """
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def hear(event: Event) -> None:
            if done.done():
                return
            if isinstance(event, Answer):
                done.set_result(event)
            elif isinstance(event, Failed):
                done.set_exception(as_request_error(event.error))

        job = self.submit(query, frame, hear, wearer)
        try:
            async with asyncio.timeout(query.deadline - time.perf_counter()):
                return await done
        except TimeoutError:
            raise too_late(query) from None
        finally:
            job.cancel()

    async def close(self) -> None:
        """Drops all work and ends the engine threads."""
        await asyncio.to_thread(self.engine_loop.close)


def too_late(query: CheckedQuery) -> RequestError:
    """Returns the failure of a query whose deadline has passed."""
    seconds = query.deadline - query.arrived
    return RequestError(
        Reason.DEADLINE_EXCEEDED,
        f"the query was not answered within its {seconds:.3g} s; ask again, or give it more time",
        retry_after=0.5,
    )
