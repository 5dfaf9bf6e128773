"""A first-person clip played through a real session, with queries asked at their times."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lego_core.errors import LegoError
from lego_core.files import read_json
from numpy.typing import NDArray

from lego_client.answer import Answer, ask
from lego_client.events import Event, GuidanceOptions
from lego_client.session import GuidanceClient
from lego_client.sharpness import sharpest
from lego_client.sources import CapturedFrame
from lego_client.sources.factory import existing_path
from lego_client.sources.video import VideoFile

_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class TimedQuery:
    """A query and its moment: seconds from the start of the clip."""

    time: float
    query: str


@dataclass(frozen=True)
class TimedAnswer:
    """An answer and its place in the clip: seconds at which its query was asked."""

    time: float
    answer: Answer


class PlayObserver:
    """Told what happens while a clip plays. Every method may be overridden; none needs to be."""

    def seen(self, pixels: NDArray[np.uint8]) -> None:
        """A frame of the clip was played: (H, W, 3) uint8 RGB."""

    def asked(self, query: TimedQuery) -> None:
        """A query was sent."""

    def event(self, event: Event) -> None:
        """Something arrived for the query sent last."""

    def answered(self, answer: TimedAnswer) -> None:
        """The query sent last has its guidance."""


def load_queries(spec: str) -> list[TimedQuery]:
    """Reads `[{"time": seconds, "query": "..."}, ...]`, in any order.

    Raises:
        LegoError: The file is missing, no such list, or an entry of it is not as it should be.
    """
    path = existing_path(spec)
    try:
        entries = read_json(path)
    except (OSError, ValueError) as error:
        raise LegoError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise LegoError(f'{path} holds no queries; it needs a list such as [{{"time": 1.5, "query": "..."}}]')
    return sorted((_query(path, number, entry) for number, entry in enumerate(entries, 1)), key=lambda q: q.time)


async def play_clip(
    client: GuidanceClient,
    clip: VideoFile,
    queries: list[TimedQuery],
    *,
    options: GuidanceOptions,
    time_limit: float,
    deadline_seconds: float | None = None,
    retries: int = 0,
    observer: PlayObserver | None = None,
) -> list[TimedAnswer]:
    """Streams the clip's frames up as it plays and asks every query about the sharpest of the frames just seen.

    The clip plays on while a query is answered; queries wait for one another, so that none supersedes another.

    Args:
        client: A connected session.
        clip: Not yet started; it is closed at the end.
        queries: In order of time. One after the end is asked at the end.
        options: How to sample.
        time_limit: Seconds one answer may take.
        deadline_seconds: From each query; the server drops it then. None takes the server's own limit.
        retries: How often to ask a query again when the server has no room and says when it may have.
        observer: Told of everything on the way.

    Raises:
        LegoError: The clip cannot be read, or the server refuses a query or option.
        ServerError: The server failed, went away or took too long.
    """
    observer = observer or PlayObserver()
    due: asyncio.Queue[tuple[TimedQuery, CapturedFrame] | None] = asyncio.Queue()
    answers: list[TimedAnswer] = []
    with clip:
        streaming = asyncio.create_task(_stream(client, clip, deque(queries), due.put_nowait, observer.seen))
        try:
            while (item := await due.get()) is not None:
                query, seen = item
                frame = await client.send_frame(seen.pixels, seen.captured)
                observer.asked(query)
                answer = await ask(
                    client, query.query, frame, source=f"{clip.name} at {seen.time:.2f} s", options=options,
                    time_limit=time_limit, deadline_seconds=deadline_seconds, retries=retries,
                    on_event=observer.event,
                )  # fmt: skip
                answers.append(TimedAnswer(query.time, answer))
                observer.answered(answers[-1])
            await streaming
        finally:
            streaming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):  # its failure was raised by the await above
                await streaming
    return answers


async def _stream(
    client: GuidanceClient,
    clip: VideoFile,
    queries: deque[TimedQuery],
    ask_about: Callable[[tuple[TimedQuery, CapturedFrame] | None], None],
    seen: Callable[[NDArray[np.uint8]], None],
) -> None:
    """Offers the newest frame whenever there is one, and hands out each query when its time has come."""
    sent = 0
    try:
        while True:
            frames = await asyncio.to_thread(clip.wait_for, sent + 1, _LONGEST_WAIT_S)
            newest = frames[-1]
            ended = newest.sequence == sent
            if ended and not clip.finished:  # played so slowly that the next frame is not due yet
                continue
            while queries and (ended or queries[0].time <= newest.time):
                query = queries.popleft()
                just_seen = [frame for frame in frames if frame.time <= query.time] or frames
                ask_about((query, await asyncio.to_thread(sharpest, just_seen)))
            if ended:
                return
            client.offer_frame(newest.pixels, newest.captured)
            seen(newest.pixels)
            sent = newest.sequence
    finally:
        ask_about(None)


def _query(path: Path, number: int, entry: object) -> TimedQuery:
    match entry:
        case {"time": bool()}:  # which Python takes for a number
            pass
        case {"time": int() | float() as time, "query": str() as query} if 0 <= time < math.inf and query.strip():
            return TimedQuery(float(time), query)
    raise LegoError(f'{path}: query {number} is {entry!r}; it must be {{"time": seconds from 0, "query": "words"}}')
