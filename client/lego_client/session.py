"""One wearer's session with a guidance server: frames and queries up, events down, over connections that may break."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Self

import numpy as np
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from numpy.typing import NDArray

from lego_client.backoff import Backoff
from lego_client.connection import Connection
from lego_client.encoding import EncodedFrame
from lego_client.errors import ConnectionFailed, ServerError
from lego_client.events import (
    ConnectionLost,
    Event,
    Guidance,
    GuidanceOptions,
    QueryFailed,
    QueryRestarted,
    Reconnected,
    ServerInfo,
)
from lego_client.frames import FrameSender
from lego_client.link import Hooks, Link
from lego_client.observer import SessionObserver
from lego_client.pending import PendingQuery, SentFrame
from lego_client.protocol import event_from_proto, options_to_proto
from lego_client.sending import Sending
from lego_client.stream import Route
from lego_client.tracing import SessionTraces

__all__ = ["GuidanceClient", "SentFrame", "check_patience", "check_query", "check_target"]

_CANCEL_CONFIRMATION_S = 2.0
_DEADLINE_GRACE_S = 1.0  # the server says it first, and better, where it can
_LONGEST_DEADLINE_S = 24 * 3600
_MOST_RESTARTS = 5  # a query that takes its server down each time must not do so for ever


class GuidanceClient:
    """A session. Use it as `async with GuidanceClient("localhost:50051") as client`.

    Queries may follow one another on one session; a newer one supersedes an older one still unanswered. A connection
    that breaks is opened again, and what was under way goes on, or is asked anew where the server has lost it.

    Attributes:
        target: HOST:PORT.
        session_id: The server's name for this session; known once connected.
    """

    def __init__(
        self, target: str, timeout: float = 10.0, connection: Connection | None = None,
        traces: SessionTraces | None = None, *, model: str = "", backoff: Backoff | None = None,
        wait_seconds: float = 0.0, sending: Sending | None = None, observer: SessionObserver | None = None,
    ) -> None:  # fmt: skip
        """Names the server; nothing is sent yet.

        Args:
            target: HOST:PORT.
            timeout: Seconds the server may take to answer when connecting.
            connection: TLS and token; None for neither.
            traces: Where this session's spans go; None records none.
            model: The model asked, one of `ServerInfo.models`; empty for the server's default.
            backoff: How, and for how long, to come back after the connection was lost; `Backoff(0)` does not.
            wait_seconds: For how long to wait for a server that is not there when connecting first.
            sending: How much of what is seen is sent; None for the defaults.
            observer: Told of everything, such as a recorder.

        Raises:
            LegoError: The target is not HOST:PORT, a time is out of range, or a token would travel in the clear.
        """
        self.target = check_target(target)
        connection = Connection() if connection is None else connection
        connection.check(target)
        if not 0 < timeout < float("inf"):
            raise LegoError(f"the timeout is {timeout:g} s; it must be above 0")
        if not 0 <= wait_seconds < float("inf"):
            raise LegoError(f"wait is {wait_seconds:g} s; it must be 0 or more")
        self.session_id = ""
        self._model = model
        self._wait_seconds = wait_seconds
        self._backoff = backoff or Backoff()
        self._traces = traces or SessionTraces()
        self._observer = observer or SessionObserver()
        hooks = Hooks(self._connected, self._received, self._lost, self._ended)
        self._link = Link(Route(self.target, connection, model), timeout, self._backoff, hooks)
        self._session_number = 0
        self._stream_number = 0
        self._next_query_id = 1
        self._frames = FrameSender(self._link, self._observer, sending, self._traces)
        self._refused_frame = ""
        self._queries: dict[int, PendingQuery] = {}
        self._newest_query: PendingQuery | None = None
        self._abandoned: set[int] = set()

    @property
    def info(self) -> ServerInfo:
        """What the server runs; known once connected."""
        return self._link.info

    @property
    def online(self) -> bool:
        """Whether there is a connection just now."""
        return self._link.up

    @property
    def newest_frame(self) -> SentFrame | None:
        """The frame sent last; None before the first, and when the server has refused one since."""
        return self._frames.newest

    def check(self) -> None:
        """Looks whether the session can go on, now or once the connection is back.

        Raises:
            ServerError: The server went away for good.
        """
        self._link.check()

    async def __aenter__(self) -> Self:
        """Connects: asks what the server runs, then opens the stream.

        Raises:
            LegoError: The server does not have the model.
            ServerError: No server answers there, or it is not a guidance server.
        """
        self._observer.opened()
        try:
            await self._link.connect(self._wait_seconds, self._traces.begin(self.target))
        except BaseException:
            self._traces.end()
            raise
        self._frames.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._observer = SessionObserver()  # the end that follows is no outage
        await self._frames.stop()
        await self._link.close(as_friends=kind is None)
        self._traces.end()

    async def send_frame(self, pixels: NDArray[np.uint8] | EncodedFrame, captured: float | None = None) -> SentFrame:
        """Encodes a frame off the event loop, within the server's limits, and sends it once the server has room.

        While the connection is lost it is only kept: it will be sent when it is asked about.

        Args:
            pixels: (H, W, 3) uint8 RGB; or a frame encoded before, which is sent byte for byte.
            captured: When the camera saw it, in seconds of `time.monotonic`; None for now.

        Raises:
            LegoError: The frame cannot be sent as it is.
            ServerError: The server went away for good.
        """
        return await self._frames.send(pixels, captured)

    def offer_frame(self, pixels: NDArray[np.uint8], captured: float | None = None) -> None:
        """Sends a frame soon, unless a newer one is offered before the server has room: for live views.

        A client that saves data sends none of them.

        Args:
            pixels: (H, W, 3) uint8 RGB; not to be changed afterwards.
            captured: When the camera saw it, in seconds of `time.monotonic`; None for now.

        Raises:
            LegoError: An earlier frame could not be sent as it was.
            ServerError: The server went away for good.
        """
        self._frames.offer(pixels, captured)

    async def ask(
        self, text: str, frame: SentFrame | None = None, options: GuidanceOptions | None = None, *,
        deadline_seconds: float | None = None, retries: int = 0,
    ) -> AsyncGenerator[Event, None]:  # fmt: skip
        """Asks a query and yields its events; the last is a `Guidance` or a `QueryFailed`, and there is one of them.

        Leaving the iteration before that (`break` with `aclose`, or cancellation) cancels the query on the server.

        Args:
            text: What the wearer asks.
            frame: The frame asked about; None means the newest the server has.
            options: How to sample; None takes every default.
            deadline_seconds: From now; a later answer is worth nothing. None takes the server's own limit.
            retries: How often to ask again when the server has no room and says when it may have.

        Raises:
            LegoError: The query is empty, no text or longer than the server allows, or a value is out of range.
            ServerError: The server went away for good, or the query lost its connection again and again.
        """
        self._check_query(text, deadline_seconds, retries)
        deadline = None if deadline_seconds is None else asyncio.get_running_loop().time() + deadline_seconds
        query = PendingQuery(text, frame, options_to_proto(options or GuidanceOptions()), deadline, retries)
        self._newest_query = query
        self._register(query)
        self._observer.asked(query, frame or self._frames.newest, self._model)
        if not self._link.up:
            query.inbox.put(ConnectionLost(f"the server at {self.target} cannot be reached"))
        answered = False
        try:
            with self._traces.query(query.query_id) as span:
                await self._submit(query)
                while not answered:
                    for event in await self._next_events(query):
                        answered = isinstance(event, Guidance | QueryFailed)
                        span.note(event)
                        self._observer.heard(event)
                        yield event
        finally:
            if not answered and self._link.failure is None:
                await self._abandon(query)
            self._queries.pop(query.query_id, None)

    async def cancel(self, query_id: int) -> None:
        """Stops a query; its last event will be `QueryFailed` with the code "cancelled".

        Raises:
            ServerError: The server went away for good.
        """
        query = self._queries.get(query_id)
        if query is not None:
            query.cancelled = True
        if not await self._link.write(pb.GuideRequest(cancel=pb.Cancel(query_id=query_id))):
            self._abandoned.add(query_id)
            if query is not None:
                query.inbox.put(_cancelled(query_id))

    def _check_query(self, text: str, deadline_seconds: float | None, retries: int) -> None:
        self._link.check()
        check_query(text)
        limit = self.info.max_query_characters
        if limit and len(text) > limit:
            raise LegoError(f"the query has {len(text)} characters; this server allows {limit}: ask more briefly")
        check_patience(deadline_seconds, retries)

    # Queries

    def _register(self, query: PendingQuery) -> None:
        """Gives a query an id of its own, in place of the one it may have had."""
        self._queries.pop(query.query_id, None)
        query.query_id = self._next_query_id
        self._next_query_id += 1
        query.heard = query.repeated = False
        self._queries[query.query_id] = query

    async def _submit(self, query: PendingQuery) -> None:
        """Sends a query, after its frame where the session lacks it. Without a stream, `_catch_up` sends it later."""
        query.session, query.stream = self._session_number, self._stream_number
        frame = query.frame or self._frames.newest
        frame_id = None if frame is None else await self._frames.ensure(frame)
        message = query.message(None if query.frame is None else frame_id, self._model)
        await self._link.write(pb.GuideRequest(query=message))

    async def _next_events(self, query: PendingQuery) -> list[Event]:
        """Waits for something to happen to a query, and returns what of it the wearer should know."""
        try:
            async with asyncio.timeout_at(None if query.deadline is None else query.deadline + _DEADLINE_GRACE_S):
                event = await query.inbox.take()
        except TimeoutError:
            await self.cancel(query.query_id)
            return [QueryFailed(query.query_id, "deadline_exceeded", "no answer before the query's deadline")]
        if isinstance(event, Reconnected):
            return [event, *await self._catch_up(query)]
        if isinstance(event, ConnectionLost):
            return [event]
        if event.query_id != query.query_id:  # of an id that it had before
            return []
        match event:
            case QueryFailed(code="invalid") if query.repeated:
                # Perhaps only the id is: the server may have had the query before. Another id makes it sure.
                query.repeated = False
                return [] if query.heard else await self._restart(query)
            case QueryFailed(code="overloaded" | "unavailable") if event.retry_after_seconds and query.retries:
                return await self._ask_later(query, event)
        query.heard = True
        return [event]

    async def _catch_up(self, query: PendingQuery) -> list[Event]:
        """After the connection came back: sends what the session lacks of a query."""
        if query.cancelled:
            await self._link.write(pb.GuideRequest(cancel=pb.Cancel(query_id=query.query_id)))
            return [_cancelled(query.query_id)]
        if query.session != self._session_number:
            query.restarts += 1
            if query.restarts > _MOST_RESTARTS:
                raise ServerError(
                    f"the server at {self.target} lost this query {query.restarts} times; ask again, or another way"
                )
            return await self._restart(query)
        if not query.heard and query.stream != self._stream_number:  # it may have been lost on the way
            query.repeated = True
            await self._submit(query)
        return []

    async def _restart(self, query: PendingQuery) -> list[Event]:
        if query is not self._newest_query:
            return [QueryFailed(query.query_id, "superseded", "a newer query was asked")]
        earlier = query.query_id
        self._register(query)
        self._observer.asked_anew(query.query_id, earlier)
        await self._submit(query)
        return [QueryRestarted(query.query_id)]

    async def _ask_later(self, query: PendingQuery, refusal: QueryFailed) -> list[Event]:
        wait = refusal.retry_after_seconds * (1 + 0.5 * self._backoff.uniform())
        if query.deadline is not None and asyncio.get_running_loop().time() + wait >= query.deadline:
            return [refusal]
        query.retries -= 1
        await asyncio.sleep(wait)
        if query.cancelled:
            return [_cancelled(query.query_id)]
        return await self._restart(query)

    async def _abandon(self, query: PendingQuery) -> None:
        """Cancels a query that nobody waits for any more, and gives the server a moment to confirm."""
        with contextlib.suppress(ServerError):
            try:
                async with asyncio.timeout(_CANCEL_CONFIRMATION_S):
                    await self.cancel(query.query_id)
                    while not isinstance(await query.inbox.take(), Guidance | QueryFailed):
                        pass
            except TimeoutError:
                self._abandoned.add(query.query_id)

    # What the link tells

    async def _connected(self, started: pb.SessionStarted, resumed: bool) -> None:
        self.session_id = started.session_id
        self._stream_number += 1
        if not resumed:
            self._session_number += 1
            self._refused_frame = ""
        self._frames.window.connected(started.frame_credits, resumed, self._link.round_trip)
        self._observer.connected(self.target, self.session_id, self.info, resumed)
        abandoned, self._abandoned = self._abandoned, set()
        if resumed:
            for query_id in abandoned:
                await self._link.write(pb.GuideRequest(cancel=pb.Cancel(query_id=query_id)))
        self._tell_all(Reconnected(resumed))

    def _received(self, response: pb.GuideResponse) -> None:
        if response.WhichOneof("message") == "frame_received":
            self._frames.window.received(response.frame_received.frame_id)
            return
        event = event_from_proto(response)
        if event is None:
            return
        if isinstance(event, QueryFailed) and event.query_id == 0:
            # A frame was refused. The query about it fails next, and should say why.
            self._refused_frame = event.message
            self._frames.newest = None  # it may be that one
            return
        query = self._queries.get(event.query_id)
        if query is None:  # a query already given up
            return
        if isinstance(event, QueryFailed) and event.code == "no_frame" and self._refused_frame:
            event = replace(event, message=f"{event.message} (the server refused a frame: {self._refused_frame})")
        query.inbox.put(event)

    def _lost(self, failure: ConnectionFailed) -> None:
        self._frames.window.lost()
        self._observer.disconnected(str(failure), for_good=False)
        self._tell_all(ConnectionLost(str(failure)))

    def _ended(self, failure: ServerError) -> None:
        self._frames.window.lost()
        self._observer.disconnected(str(failure), for_good=True)
        for query in self._queries.values():
            query.inbox.fail(failure)

    def _tell_all(self, event: Event) -> None:
        for query in self._queries.values():
            query.inbox.put(event)


def check_target(target: str) -> str:
    """Returns the target as given.

    Raises:
        LegoError: It is not HOST:PORT, or the port is not 1 to 65535.
    """
    match = re.fullmatch(r"(?P<host>[^:\s/]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>\d{1,5})", target)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise LegoError(f"the server is {target!r}; it must be HOST:PORT, such as localhost:50051")
    return target


def check_query(text: str) -> None:
    """Checks what a wearer asks.

    Raises:
        LegoError: It is empty, or was typed in another encoding than this machine's.
    """
    if not text.strip():
        raise LegoError("the query is empty; ask for example 'how do I open the drawer?'")
    try:
        text.encode()
    except UnicodeEncodeError:  # Python keeps bytes that it could not read as halves of characters
        raise LegoError(f"the query {text!r} holds bytes that are no text; type it again, in UTF-8") from None


def check_patience(deadline_seconds: float | None, retries: int) -> None:
    """Checks what `GuidanceClient.ask` takes.

    Raises:
        LegoError: The deadline is not from 0 to a day, or the retries are not from 0 to 100.
    """
    if deadline_seconds is not None and not 0 < deadline_seconds <= _LONGEST_DEADLINE_S:
        raise LegoError(f"the deadline is {deadline_seconds:g} s; it must be above 0 and at most {_LONGEST_DEADLINE_S}")
    if not 0 <= retries <= 100:
        raise LegoError(f"retries is {retries}; it must be from 0 to 100")


def _cancelled(query_id: int) -> QueryFailed:
    return QueryFailed(query_id, "cancelled", "cancelled as asked")
