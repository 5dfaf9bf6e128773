"""The questions of a recording asked again: does a server answer as it was answered then?"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np

from lego_client.errors import ServerError
from lego_client.events import Guidance, GuidanceOptions, QueryFailed
from lego_client.pictures import open_jpeg
from lego_client.recording.happenings import Heard
from lego_client.recording.recording import Question, Recording
from lego_client.session import GuidanceClient


@dataclass(frozen=True)
class Comparison:
    """A question's answers then and now.

    Attributes:
        query: What was asked.
        then: The recorded outcome, with its picture; None where the recording does not say.
        now: The new one.
        psnr: Of the new picture against the recorded one in decibels, infinite where they are equal to the pixel; None
            where there are not two pictures of one size.
    """

    query: str
    then: Guidance | QueryFailed | None
    now: Guidance | QueryFailed
    psnr: float | None

    @property
    def same_description(self) -> bool | None:
        """Whether the words are the same; None where there are not two answers."""
        if isinstance(self.then, Guidance) and isinstance(self.now, Guidance):
            return self.then.description == self.now.description
        return None


async def compare(
    recording: Recording,
    client: GuidanceClient,
    *,
    time_limit: float,
    retries: int = 0,
    on_question: Callable[[Question], None] = lambda question: None,
) -> list[Comparison]:
    """Asks each question about the same bytes of the same frame, with the options and the seed of its recorded answer.

    Args:
        recording: Its questions about frames that are missing are passed over.
        client: A connected session.
        time_limit: Seconds one answer may take.
        retries: How often to ask again when the server has no room.
        on_question: Told of each before it is asked.

    Raises:
        LegoError: The server does not take a question or an option; or a frame is no picture.
        ServerError: The server went away for good, or sent a picture that is none.
    """
    found: list[Comparison] = []
    for question in recording.questions():
        if question.frame is None:
            continue
        on_question(question)
        then = _recorded(recording, question)
        frame = await client.send_frame(recording.frame(question).encoded)
        asking = client.ask(
            question.asked.text, frame, _options(question, then), deadline_seconds=time_limit, retries=retries
        )
        now: Guidance | QueryFailed | None = None
        async with aclosing(asking) as events:
            async for event in events:
                if isinstance(event, Guidance | QueryFailed):
                    now = event
        if now is None:
            raise ServerError("the server ended the query without an answer; ask again")
        found.append(Comparison(question.asked.text, then, now, _psnr(then, now)))
    return found


def psnr(one: bytes, other: bytes) -> float | None:
    """Returns the peak signal-to-noise ratio of two pictures in decibels; None where their sizes differ.

    Raises:
        ServerError: One is no picture.
    """
    pixels, others = (np.asarray(open_jpeg(data), np.float64) for data in (one, other))
    if pixels.shape != others.shape:
        return None
    error = float(np.mean((pixels - others) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def _recorded(recording: Recording, question: Question) -> Guidance | QueryFailed | None:
    """Returns how a question ended, with its picture."""
    if question.outcome is None:
        return None
    last = recording.load(question.entries[-1])
    assert isinstance(last, Heard) and isinstance(last.event, Guidance | QueryFailed)
    return last.event


def _options(question: Question, then: Guidance | QueryFailed | None) -> GuidanceOptions:
    options = replace(question.asked.options, preview_every=None, preview=None)
    return replace(options, seed=then.seed) if isinstance(then, Guidance) else options


def _psnr(then: Guidance | QueryFailed | None, now: Guidance | QueryFailed) -> float | None:
    if isinstance(then, Guidance) and isinstance(now, Guidance):
        return psnr(then.image, now.image)
    return None
