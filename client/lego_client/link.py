"""A connection that comes back: one task owns the stream, reads it, and opens another when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb

from lego_client.backoff import Backoff, Outage
from lego_client.errors import ConnectionFailed, ServerError
from lego_client.events import ServerInfo
from lego_client.stream import Route, Stream

_PARTING_S = 1.0


@dataclass(frozen=True)
class Hooks:
    """Whom the link tells what.

    Attributes:
        connected: A stream is open; the second value says whether the session that was goes on (True) or another began.
        received: A message of the session, each once.
        lost: The stream broke; the link tries to open another.
        ended: There will be no other.
    """

    connected: Callable[[pb.SessionStarted, bool], Awaitable[None]]
    received: Callable[[pb.GuideResponse], None]
    lost: Callable[[ConnectionFailed], None]
    ended: Callable[[ServerError], None]


class Link:
    """Keeps a session's stream.

    Attributes:
        info: What the server runs; known once connected.
        failure: Why there is no stream and will be none.
    """

    def __init__(self, route: Route, timeout: float, backoff: Backoff, hooks: Hooks) -> None:
        """Names the server; nothing is sent yet.

        Args:
            route: How it is reached.
            timeout: Seconds it may take to answer when connecting.
            backoff: How to try again.
            hooks: Told of everything.
        """
        self.info = ServerInfo()
        self.failure: ServerError | None = None
        self._route = route
        self._timeout = timeout
        self._backoff = backoff
        self._hooks = hooks
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._stream: Stream | None = None
        self._token = ""
        self._received = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether there is a stream now."""
        return self._stream is not None and self.failure is None

    @property
    def round_trip(self) -> float:
        """Seconds in which the server answered a short message when the stream was opened; 0 without a stream."""
        return 0.0 if self._stream is None else self._stream.round_trip

    async def connect(self, wait_seconds: float = 0.0, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        """Opens the first stream.

        Args:
            wait_seconds: For how long to try again where no server answers.
            metadata: To send along with every stream.

        Raises:
            LegoError: The server does not have the model.
            ServerError: No server answers there, or it is not a guidance server.
        """
        self._metadata = metadata
        outage = Outage(Backoff(wait_seconds, self._backoff.base, self._backoff.cap))
        try:
            stream = await self._route.open(self._timeout, metadata)
        except ConnectionFailed as failure:
            if fault := await self._route.fault() if failure.curable else None:
                raise fault from failure
            if not failure.curable or not wait_seconds:
                raise
            stream, _, _ = await self._open_again(outage, failure)
        await self._begin(stream, stream.started, resumed=False)
        self._task = asyncio.create_task(self._run(stream))

    async def write(self, request: pb.GuideRequest) -> bool:
        """Sends a message if there is a stream; returns whether it went out, not whether it arrived.

        Raises:
            ServerError: There will be no stream again.
        """
        self.check()
        return self._stream is not None and await self._stream.write(request)

    def check(self) -> None:
        """Raises what ended the link, if something did.

        Raises:
            ServerError: There is no stream and will be none.
        """
        if self.failure is not None:
            raise self.failure
        if self._task is None:
            raise ServerError("the session is not open; use the client in 'async with'")

    async def close(self, as_friends: bool) -> None:
        """Ends everything.

        Args:
            as_friends: Let the server see an end rather than a break.
        """
        stream, task = self._stream, self._task
        if task is None:
            return
        if as_friends and stream is not None:
            self._backoff = Backoff(0.0)  # the end that follows is no outage
            await stream.end()
            await asyncio.wait([task], timeout=_PARTING_S)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if self._stream is not None:
            await self._stream.close()
            self._stream = None

    async def _run(self, stream: Stream) -> None:
        outage: Outage | None = None
        try:
            while True:
                opened, before = self._backoff.clock(), self._received
                failure = await self._listen(stream)
                self._stream = None
                await stream.close()
                # A stream that breaks at once, before anything came of it, is still the same outage.
                if self._received != before or self._backoff.clock() - opened > self._backoff.cap:
                    outage = None
                if not failure.curable or not self._backoff.seconds:
                    raise failure
                outage = outage or Outage(self._backoff)
                self._hooks.lost(failure)
                stream, started, resumed = await self._open_again(outage, failure)
                await self._begin(stream, started, resumed)
        except (ServerError, LegoError) as error:
            self._end(error if isinstance(error, ServerError) else ServerError(str(error)))
        except Exception as error:  # queries must not wait for ever, whatever it is
            self._end(ServerError(f"the session with {self._route.target} failed ({error}); ask again in a new one"))

    def _end(self, failure: ServerError) -> None:
        self.failure = failure
        self._hooks.ended(failure)

    async def _listen(self, stream: Stream) -> ConnectionFailed:
        """Passes on what comes, each message once, and returns why it ended."""
        try:
            while (response := await stream.read()) is not None:
                if 0 < response.sequence <= self._received:
                    continue
                self._received = max(self._received, response.sequence)
                self._hooks.received(response)
        except ConnectionFailed as failure:
            return failure
        return ConnectionFailed(f"the server at {self._route.target} ended the session; ask again in a moment")

    async def _open_again(self, outage: Outage, failure: ConnectionFailed) -> tuple[Stream, pb.SessionStarted, bool]:
        """Returns a new stream, what its session began with, and whether that is the one that was.

        Raises:
            ServerError: The outage lasted too long, or trying again is no cure.
        """
        while True:
            await outage.pause(failure.retry_after_seconds)
            if outage.seconds_left <= 0:
                raise ServerError(f"the connection was lost and did not come back in time: {failure}") from failure
            try:
                stream = await self._route.open(min(self._timeout, outage.seconds_left), self._metadata)
                try:
                    started, resumed = await self._resume(stream)
                except BaseException:
                    await stream.close()
                    raise
            except ConnectionFailed as error:
                if not error.curable:
                    raise
                failure = error
            else:
                return stream, started, resumed

    async def _resume(self, stream: Stream) -> tuple[pb.SessionStarted, bool]:
        """Asks for the session that was; anything but a yes means that the stream's own is used."""
        if not self._token or not stream.started.resume_token:
            return stream.started, False
        lost = ConnectionFailed(f"the server at {self._route.target} went away while the session was resumed")
        if not await stream.write(pb.GuideRequest(resume=pb.Resume(token=self._token, received=self._received))):
            raise lost
        try:
            async with asyncio.timeout(self._timeout):
                reply = await stream.read()
        except TimeoutError as error:
            raise lost from error
        if reply is None:
            raise lost
        if reply.WhichOneof("message") == "session_started" and reply.session_started.resumed:
            return reply.session_started, True
        return stream.started, False

    async def _begin(self, stream: Stream, started: pb.SessionStarted, resumed: bool) -> None:
        self.info = stream.info
        self._stream = stream
        if not resumed:
            self._received = 0
        self._token = started.resume_token or (self._token if resumed else "")
        await self._hooks.connected(started, resumed)
