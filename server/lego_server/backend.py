"""What answers queries with one model, as sessions and the service see it.

`guide.Guide` does so with an engine of this process, `cluster.remote.RemoteGuide` with replicas elsewhere.
"""

from __future__ import annotations

import asyncio
import io
import logging
import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from PIL import Image

from lego_server.assistant import Answer, Event, Failed
from lego_server.config import ServerConfig
from lego_server.engines.watched import EngineCall
from lego_server.failures import Reason, RequestError, as_request_error
from lego_server.loop import Listener
from lego_server.options import OptionWishes, SamplingOptions, resolve_options
from lego_server.telemetry import Telemetry
from lego_server.texts import PromptTokens, Texts

Frame = TypeVar("Frame")  # a frame as the backend that prepared it has it
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


class Backend(ABC, Generic[Frame]):
    """Checks queries for one model, and answers them.

    Attributes:
        manifest: The model's.
        engine_name: Kind and device of what runs it, such as "onnx-cpu".
        config: The limits.
        telemetry: Where observations go.
        max_steps: Most denoising steps of a query.
    """

    def __init__(
        self, manifest: Manifest, texts: Texts, engine_name: str, config: ServerConfig, telemetry: Telemetry | None
    ) -> None:
        """Takes a model's description.

        Raises:
            LegoError: The model's own defaults lie outside the server's limits.
        """
        defaults = manifest.lego.guidance
        # A model cannot be sampled in more steps than it was trained with.
        self.max_steps = min(config.limits.max_steps, manifest.schedule.train_timesteps)
        if defaults.steps > config.limits.max_steps:
            raise LegoError(
                f"max_steps is {config.limits.max_steps}, but this model's default is {defaults.steps} steps: raise it"
            )
        self.manifest = manifest
        self.engine_name = engine_name
        self.config = config
        self.telemetry = telemetry or Telemetry()
        self._texts = texts

    @property
    @abstractmethod
    def active(self) -> int:
        """Queries that share an engine."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Queries that wait for their first turn."""

    @property
    @abstractmethod
    def live(self) -> int:
        """Queries of both kinds."""

    @property
    def idle(self) -> bool:
        """Whether no query is being answered or waits."""
        return self.live == 0

    @property
    @abstractmethod
    def able(self) -> bool:
        """Whether queries are answered just now. Safe from any thread, as are `failed` and `hung`."""

    @property
    @abstractmethod
    def failed(self) -> bool:
        """Whether the model cannot be relied upon: its last engine call raised an error, or nothing runs it."""

    @property
    @abstractmethod
    def hung(self) -> EngineCall | None:
        """An engine call of this process that is over its deadline."""

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

    @abstractmethod
    async def prepare_frame(self, data: bytes, arrived: float | None = None) -> Frame:
        """Makes a frame ready to be asked about; it came in now, or at `arrived` by `time.perf_counter()`.

        Raises:
            RequestError: INVALID: not a picture, damaged, or above a limit.
        """

    @abstractmethod
    def encode_ahead(self, frame: Frame) -> None:
        """Encodes a frame that a query may soon be about, unless there is something else to do."""

    @abstractmethod
    def forget_description(self, frame: Frame) -> None:
        """Frees what the last query about a frame left in the engine's memory, beside its encoding."""

    @abstractmethod
    def refuse_if_full(self, query: CheckedQuery) -> None:
        """Refuses a query before the work on its frame is done.

        Raises:
            RequestError: OVERLOADED or UNAVAILABLE.
        """

    @abstractmethod
    def submit(self, query: CheckedQuery, frame: Frame, listener: Listener, wearer: str = "") -> Cancellable:
        """Hands a query on; `listener` hears its events on the running event loop.

        It is for the caller to cancel it at its deadline.

        Raises:
            RequestError: OVERLOADED or UNAVAILABLE.
        """

    async def answer(self, query: CheckedQuery, frame: Frame, wearer: str = "") -> Answer:
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

    @abstractmethod
    def hand_back_waiting(self) -> None:
        """Ends every query that has not had a turn, as UNAVAILABLE: another server may answer it sooner."""

    @abstractmethod
    async def close(self, replaced: bool = False) -> None:
        """Drops all work and gives back what it runs on.

        Args:
            replaced: Whether another has taken its place for good.
        """


class Deployed(ABC):
    """A model that has been loaded elsewhere.

    Attributes:
        manifest: The model's.
    """

    manifest: Manifest

    @abstractmethod
    def backend(self, config: ServerConfig, telemetry: Telemetry) -> Backend[Any]:
        """Returns what answers with it from here; called on the event loop that will use it."""


def too_late(query: CheckedQuery) -> RequestError:
    """Returns the failure of a query whose deadline has passed."""
    seconds = query.deadline - query.arrived
    return RequestError(
        Reason.DEADLINE_EXCEEDED,
        f"the query was not answered within its {seconds:.3g} s; ask again, or give it more time",
        retry_after=0.5,
    )


async def warm_up(backend: Backend[Any]) -> None:
    """Has a model answer a query of the server's own.

    Raises:
        LegoError: It cannot; the reason has been logged.
    """
    began = time.perf_counter()
    picture = io.BytesIO()
    Image.new("RGB", (320, 240), (128, 128, 128)).save(picture, "JPEG")
    query = backend.check_query(
        "how do I open the drawer?", OptionWishes(seed=0, steps=1, guidance_interval=(0.0, 1.0))
    )
    frame = await backend.prepare_frame(picture.getvalue())
    try:
        await backend.answer(replace(query, deadline=math.inf), frame)
    except RequestError as error:
        raise LegoError(
            "the model failed on a first query of the server's own, for the reason logged above: if it is memory, give "
            "it more; else check its engines with lego-export verify, or rebuild them with lego-export build"
        ) from error
    _log.info("warm after %.1f s", time.perf_counter() - began)
