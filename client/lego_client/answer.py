"""One query answered: its events collected, with the moments at which the wearer saw them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from lego_core.errors import LegoError
from PIL import Image

from lego_client.errors import ServerError
from lego_client.events import DescriptionPiece, Event, Guidance, GuidanceOptions, Progress, QueryFailed, QueryRestarted
from lego_client.pictures import open_jpeg
from lego_client.session import GuidanceClient, SentFrame


@dataclass(frozen=True)
class Moment:
    """Something that became visible `seconds` after the query was sent."""

    seconds: float
    event: Event


@dataclass(frozen=True)
class Answer:
    """A query with its guidance.

    Attributes:
        query: What the wearer asked.
        source: The name of the frame source.
        frame: The frame asked about, as sent.
        options: As asked for; what was used stands in `guidance`.
        guidance: The server's answer.
        moments: Every event in order.
    """

    query: str
    source: str
    frame: SentFrame
    options: GuidanceOptions
    guidance: Guidance
    moments: tuple[Moment, ...]

    @property
    def description(self) -> str:
        """How to do it, in one sentence."""
        return self.guidance.description

    @property
    def picture(self) -> Image.Image:
        """The guidance frame, decoded: RGB.

        Raises:
            ServerError: The server sent a picture that is none.
        """
        return open_jpeg(self.guidance.image)

    @property
    def first_words_seconds(self) -> float | None:
        """Seconds from the query to the first piece of description; None when none was streamed."""
        return next((m.seconds for m in self.moments if isinstance(m.event, DescriptionPiece) and m.event.text), None)

    @property
    def seconds(self) -> float:
        """Seconds from the query to the guidance frame, as the wearer saw it."""
        return self.moments[-1].seconds

    @property
    def previews(self) -> list[tuple[int, bytes]]:
        """Denoising step and JPEG bytes of every preview of the picture that came in the end."""
        found: list[tuple[int, bytes]] = []
        for moment in self.moments:
            match moment.event:
                case QueryRestarted():
                    found.clear()
                case Progress(step=step, preview=preview) if preview:
                    found.append((step, preview))
        return found


async def ask(
    client: GuidanceClient,
    query: str,
    frame: SentFrame,
    *,
    source: str,
    options: GuidanceOptions,
    time_limit: float,
    deadline_seconds: float | None = None,
    retries: int = 0,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Answer:
    """Asks one query and waits for its guidance.

    Args:
        client: A connected session.
        query: What the wearer asks.
        frame: The frame asked about.
        source: Where the frame came from, for the record.
        options: How to sample.
        time_limit: Seconds the whole answer may take; then the query is cancelled.
        deadline_seconds: From now; the server drops the query then. None takes the server's own limit.
        retries: How often to ask again when the server has no room and says when it may have.
        on_event: Called with each event as it arrives.

    Raises:
        LegoError: The query or an option is not acceptable to the server.
        ServerError: The server failed, is overloaded, went away or took too long.
    """
    moments: list[Moment] = []
    asked = time.monotonic()
    try:
        asking = client.ask(query, frame, options, deadline_seconds=deadline_seconds, retries=retries)
        async with asyncio.timeout(time_limit), aclosing(asking) as events:
            async for event in events:
                moments.append(Moment(time.monotonic() - asked, event))
                on_event(event)
                if isinstance(event, QueryFailed):
                    raise failure(event)
                if isinstance(event, Guidance):
                    return Answer(query, source, frame, options, event, tuple(moments))
    except TimeoutError as error:
        raise ServerError(
            f"no answer within {time_limit:g} s; the query was cancelled: ask with fewer steps or a longer timeout"
        ) from error
    raise ServerError("the server ended the query without an answer; ask again")


def failure(event: QueryFailed) -> LegoError | ServerError:
    """Returns the exception for a query without a picture: the user's to put right, or the server's."""
    message = event.message or f"the query failed with the code {event.code!r}"
    match event.code:
        case "invalid" | "no_frame" | "unknown_query":
            return LegoError(message)
        case "overloaded":
            return ServerError(f"the server is overloaded: {message}")
        case "deadline_exceeded":
            return ServerError(f"the answer would have come too late: {message}")
        case "superseded":
            return ServerError(f"a newer query took this one's place: {message}")
        case _:
            return ServerError(message)
