"""Streams: what carries a session, by whichever transport its client has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import grpc
from lego_proto.v1 import guidance_pb2 as pb

from lego_server.failures import INTERNAL_ERROR, RequestError, shutting_down
from lego_server.models import Models
from lego_server.refusals import Refusal
from lego_server.security.access import current_access
from lego_server.sessions import OpenSession, Sessions
from lego_server.wire import response_to_proto, server_info_to_proto, take_request

_PARTING_SECONDS = 0.1
_LAST_WORDS_SECONDS = 5.0  # for a client to take in the end of its session; one that does not read is cut off then
_log = logging.getLogger(__name__)


class Link(Protocol):
    """One client's connection, as a transport offers it to a stream.

    A link that breaks cancels whoever carries its stream, or fails its `send`.
    """

    @property
    def requests(self) -> AsyncIterator[pb.GuideRequest]:
        """What the client says, until it has said all it will say.

        Raises:
            RequestError: What came is no message of the protocol.
        """

    @property
    def parted(self) -> bool:
        """Whether the client has gone for good, so that nothing need be kept for it."""

    async def send(self, response: pb.GuideResponse) -> None:
        """Sends a message; waits while the client takes in less than it is told."""


class Streams:
    """Opens, carries and ends the streams of a server. All methods belong to one event loop."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._telemetry = models.telemetry
        self._sessions = Sessions(models)
        self._draining = False

    async def carry(self, link: Link, carrier: Iterable[tuple[str, str | bytes]]) -> None:
        """Carries a wearer's session, which outlives a broken stream for a while, until it ends.

        Args:
            link: To the wearer's client.
            carrier: What came with the call, perhaps with a trace.

        Raises:
            Refusal: There will be no session, or it ends otherwise than by its client.
        """
        self.refuse_if_draining()
        try:
            opened = self._sessions.open(current_access().name, current_access().wearer)
        except RequestError as error:
            self._telemetry.metrics.rejected("sessions")
            raise Refusal.of(error) from error
        self._telemetry.enter_call(carrier, session=opened.session.session_id)
        await _Stream(opened, self._sessions, self._models, link).carry()

    def refuse_if_draining(self) -> None:
        """Raises a Refusal if the server takes no new work."""
        if self._draining:
            self._telemetry.metrics.rejected("draining")
            raise Refusal.of(shutting_down())

    @property
    def session_count(self) -> int:
        """Sessions there are, those that wait for their client included."""
        return len(self._sessions)

    @property
    def answering(self) -> bool:
        """Whether a query of any session is being answered."""
        return self._sessions.answering

    def drain(self) -> None:
        """Takes no new stream and no new query; each session ends once its query is answered."""
        self._draining = True
        self._sessions.drain()

    def hand_back(self) -> None:
        """Ends every query that is still being answered, with word of when to ask again."""
        self._sessions.hand_back()


class _Stream:
    """Carries its own new session, or goes on with one whose stream broke."""

    def __init__(self, opened: OpenSession, sessions: Sessions, models: Models, link: Link) -> None:
        self._opened = opened
        self._number = opened.stream
        self._sessions = sessions
        self._models = models
        self._link = link
        self._heard = asyncio.get_running_loop().time()
        self._silence: asyncio.TimerHandle | None = None
        self._too_silent = False
        self._announce: bool | None = False  # whether to tell that the session begins (False) or goes on (True)
        self._cut_off: asyncio.TimerHandle | None = None

    async def carry(self) -> None:
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())
        self._opened.dismiss = self._dismiss
        self._watch_silence()
        try:
            await asyncio.wait((self._writer,))
            broken = self._reader.exception() if self._reader.done() and not self._reader.cancelled() else None
            self._reader.cancel()  # before any end, which it would take for an error of its own
            if self._number != self._opened.stream:
                raise Refusal(grpc.StatusCode.ABORTED, "the session goes on in another stream")
            if self._too_silent:
                raise Refusal(
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    f"nothing came from the client for {self._sessions.idle_seconds:g} s; open another session",
                )
            if isinstance(broken, RequestError):
                raise Refusal.of(broken)
            if broken is not None:
                raise Refusal(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
            self._writer.result()
            self._sessions.end(self._opened)
        finally:
            if self._number == self._opened.stream:
                self._opened.dismiss = _stay
            self._sessions.leave(self._opened, self._number, self._link.parted)
            for timer in (self._silence, self._cut_off):
                if timer is not None:
                    timer.cancel()
            for task in (self._reader, self._writer):
                task.cancel()
                task.add_done_callback(_look_at_error)

    async def _write(self) -> None:
        """Tells the client all there is to tell, until its session ends or goes on in another stream."""
        while self._announce is not None:  # once, and once more where the client resumes a session
            resumed, self._announce = self._announce, None
            outbox = self._opened.session.outbox
            await self._link.send(self._started(resumed))
            if self._announce is not None:  # resumed meanwhile: what was to be read is not the session any more
                continue
            async for sequence, message in outbox.read():
                await self._link.send(response_to_proto(sequence, message))

    def _dismiss(self) -> None:
        """The session has ended or goes on in another stream: nothing of this client's reaches it any more."""
        self._reader.cancel()
        self._cut_off_soon()

    def _cut_off_soon(self) -> None:
        # A client that does not read would be waited for for ever.
        self._cut_off = asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._writer.cancel)

    def _started(self, resumed: bool) -> pb.GuideResponse:
        """Returns what a session, or its going on, begins with."""
        settings = self._models.config.sessions
        max_image_pixels = current_access().max_image_pixels(self._models.config.limits.max_image_pixels)
        return pb.GuideResponse(
            session_started=pb.SessionStarted(
                session_id=self._opened.session.session_id,
                server=server_info_to_proto(self._models.default, self._models, max_image_pixels),
                resume_token=self._opened.token if settings.resume_seconds else "",
                resume_seconds=settings.resume_seconds,
                resumed=resumed,
                frame_credits=settings.frame_credits,
            )
        )

    async def _read(self) -> None:
        """Feeds the session from its client until the client has said all it will say.

        Raises:
            RequestError: What came is no message of the protocol; the session is closed.
            Exception: An error of the server's own; it is logged, and the session closed.
        """
        try:
            first = True
            async for request in self._link.requests:
                self._heard = asyncio.get_running_loop().time()
                # A client that asks but never reads is not read from either; its transport's flow control stops it.
                await self._opened.session.outbox.room()
                if request.WhichOneof("message") == "resume" and first:
                    self._resume(request.resume)
                else:
                    await take_request(request, self._opened.session)
                first = False
        except Exception as error:
            if not isinstance(error, RequestError):
                _log.exception("session %s: reading its requests failed", self._opened.session.session_id)
            self._opened.session.close()
            self._cut_off_soon()
            raise
        else:
            # A broken stream looks like one that was ended, until this call is cancelled a moment later.
            await asyncio.sleep(_PARTING_SECONDS)
            self._opened.session.finish()

    def _watch_silence(self) -> None:
        """Ends the session if its client has said nothing for too long and waits for nothing; else looks later."""
        if self._number != self._opened.stream:  # another stream carries it by now
            return
        loop, limit = asyncio.get_running_loop(), self._sessions.idle_seconds
        if self._opened.session.answering:
            self._heard = loop.time()
        left = self._heard + limit - loop.time()
        self._too_silent = left <= 0
        if self._too_silent:
            # Not left to `carry`, which waits a while for a client that does not read.
            self._sessions.end(self._opened)
        else:
            self._silence = loop.call_later(left, self._watch_silence)

    def _resume(self, resume: pb.Resume) -> None:
        fresh = self._opened
        fresh.dismiss = _stay  # neither resuming the session it has just been given nor giving it up ends this stream
        found = self._sessions.resume(resume.token, fresh.opener, resume.received)
        if found is not None:
            self._opened, self._number = found, found.stream
            if found is not fresh:
                self._sessions.end(fresh)
        self._opened.dismiss = self._dismiss
        self._announce = found is not None
        fresh.session.outbox.release()


def _stay() -> None:
    """Dismisses nobody."""


def _look_at_error(task: asyncio.Task[None]) -> None:
    """Keeps asyncio from complaining of an error that nobody has looked at: the stream was broken already."""
    if not task.cancelled():
        task.exception()
