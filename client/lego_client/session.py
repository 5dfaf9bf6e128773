"""One wearer's session with a guidance server: frames and queries up, events down, over one gRPC stream."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Self

import grpc
import grpc.aio
import numpy as np
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc as pb_grpc
from numpy.typing import NDArray

from lego_client.connection import Connection
from lego_client.diagnosis import tls_fault
from lego_client.encoding import EncodedFrame, encode_frame
from lego_client.errors import ServerError
from lego_client.events import Event, Guidance, GuidanceOptions, Progress, QueryFailed, ServerInfo
from lego_client.protocol import event_from_proto, options_to_proto, server_info_from_proto
from lego_client.tracing import SessionTraces

_CHANNEL_OPTIONS = [
    # A ping every 20 s notices a half-open link. A server must allow this rate
    # (grpc.http2.min_ping_interval_without_data_ms), or gRPC ends the connection with "too_many_pings".
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's 4 MiB is less than a large guidance frame may take.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]
_CANCEL_CONFIRMATION_S = 2.0


@dataclass(frozen=True)
class SentFrame:
    """A frame the server has: its id and exactly what was sent."""

    frame_id: int
    encoded: EncodedFrame


class GuidanceClient:
    """A session. Use it as `async with GuidanceClient("localhost:50051") as client`.

    Queries may follow one another on one session; a newer one supersedes an older one still unanswered.

    Attributes:
        target: HOST:PORT.
        info: What the server runs; known once connected.
        session_id: The server's name for this session; known once connected.
    """

    def __init__(
        self, target: str, timeout: float = 10.0, connection: Connection | None = None,
        traces: SessionTraces | None = None,
    ) -> None:  # fmt: skip
        """Names the server; nothing is sent yet.

        Args:
            target: HOST:PORT.
            timeout: Seconds the server may take to answer when connecting.
            connection: TLS and token; None for neither.
            traces: Where this session's spans go; None records none.

        Raises:
            LegoError: The target is not HOST:PORT, the timeout is not above 0, or a token would travel in the clear.
        """
        self.target = check_target(target)
        self._connection = Connection() if connection is None else connection
        self._connection.check(target)
        if not 0 < timeout < float("inf"):
            raise LegoError(f"the timeout is {timeout:g} s; it must be above 0")
        self.info = ServerInfo()
        self.session_id = ""
        self._timeout = timeout
        self._traces = traces or SessionTraces()
        self._next_frame_id = 1
        self._next_query_id = 1
        self._inboxes: dict[int, _Inbox] = {}
        self._refused_frame = ""
        self._failure: ServerError | None = None
        self._write_lock = asyncio.Lock()
        self._channel: grpc.aio.Channel | None = None
        self._call: grpc.aio.StreamStreamCall[pb.GuideRequest, pb.GuideResponse] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connects: asks what the server runs, then opens the stream.

        Raises:
            ServerError: No server answers there, or it is not a guidance server.
        """
        self._channel = self._connection.open_channel(self.target, _CHANNEL_OPTIONS)
        stub = pb_grpc.GuidanceStub(self._channel)
        metadata = self._connection.metadata
        try:
            info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=self._timeout, metadata=metadata)
            self.info = server_info_from_proto(info)
            self._call = stub.Guide(metadata=(*metadata, *self._traces.begin(self.target)))
            async with asyncio.timeout(self._timeout):
                first = await self._call.read()
            if not isinstance(first, pb.GuideResponse) or first.WhichOneof("message") != "session_started":
                raise ServerError(f"the server at {self.target} started no session; its version may not fit this one")
            self.session_id = first.session_started.session_id
        except grpc.aio.AioRpcError as error:
            await self._close_channel()
            raise await self._diagnosed(error) from error
        except TimeoutError as error:
            await self._close_channel()
            raise ServerError(f"the server at {self.target} did not answer within {self._timeout:g} s") from error
        except BaseException:
            await self._close_channel()
            raise
        self._reader = asyncio.create_task(self._read_events(self._call))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._reader is not None and self._call is not None:
            if kind is None and self._failure is None:  # part as friends: the server sees an end, not a break
                with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                    await self._call.done_writing()
                await asyncio.wait([self._reader], timeout=1.0)
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._close_channel()

    async def send_frame(self, pixels: NDArray[np.uint8]) -> SentFrame:
        """Encodes a frame off the event loop, within the server's limits, and sends it.

        Args:
            pixels: (H, W, 3) uint8 RGB.

        Raises:
            LegoError: The frame cannot be sent as it is.
            ServerError: The server went away.
        """
        encoded = await asyncio.to_thread(encode_frame, pixels, self.info.max_image_bytes, self.info.max_image_pixels)
        sent = SentFrame(self._next_frame_id, encoded)
        self._next_frame_id += 1
        await self._write(pb.GuideRequest(frame=pb.Frame(frame_id=sent.frame_id, image=encoded.jpeg)))
        return sent

    async def ask(
        self, text: str, frame: SentFrame | None = None, options: GuidanceOptions | None = None
    ) -> AsyncGenerator[Event, None]:
        """Asks a query and yields its events; the last is a `Guidance` or a `QueryFailed`.

        Leaving the iteration before that (`break` with `aclose`, or cancellation) cancels the query on the server.

        Args:
            text: What the wearer asks.
            frame: The frame asked about; None means the newest the server has.
            options: How to sample; None takes every default.

        Raises:
            LegoError: The query is empty or longer than the server allows.
            ServerError: The server went away.
        """
        self._check_query(text)
        query = pb.Query(
            query_id=self._next_query_id, text=text, options=options_to_proto(options or GuidanceOptions())
        )
        self._next_query_id += 1
        if frame is not None:
            query.frame_id = frame.frame_id
        inbox = self._inboxes[query.query_id] = _Inbox()
        answered = False
        try:
            with self._traces.query(query.query_id) as span:
                await self._write(pb.GuideRequest(query=query))
                while not answered:
                    event = await inbox.take()
                    answered = isinstance(event, Guidance | QueryFailed)
                    span.note(event)
                    yield event
        finally:
            if not answered and self._failure is None:
                with contextlib.suppress(ServerError, TimeoutError):
                    async with asyncio.timeout(_CANCEL_CONFIRMATION_S):
                        await self.cancel(query.query_id)
                        while not isinstance(await inbox.take(), Guidance | QueryFailed):
                            pass
            del self._inboxes[query.query_id]

    async def cancel(self, query_id: int) -> None:
        """Stops a query; its last event will be `QueryFailed` with the code "cancelled".

        Raises:
            ServerError: The server went away.
        """
        await self._write(pb.GuideRequest(cancel=pb.Cancel(query_id=query_id)))

    def _check_query(self, text: str) -> None:
        if not text.strip():
            raise LegoError("the query is empty; ask for example 'how do I open the drawer?'")
        limit = self.info.max_query_characters
        if limit and len(text) > limit:
            raise LegoError(f"the query has {len(text)} characters; this server allows {limit}: ask more briefly")

    async def _write(self, request: pb.GuideRequest) -> None:
        if self._failure is not None:
            raise self._failure
        if self._call is None:
            raise ServerError("the session is not open; use the client in 'async with'")
        try:
            async with self._write_lock:  # a gRPC stream takes one write at a time
                await self._call.write(request)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            # The reader learns why the stream ended; its words are better than "the RPC is done".
            if self._reader is not None:
                await asyncio.wait([self._reader], timeout=1.0)
            raise self._failure or ServerError(f"the server at {self.target} closed the session") from error

    async def _read_events(self, call: grpc.aio.StreamStreamCall[pb.GuideRequest, pb.GuideResponse]) -> None:
        try:
            while isinstance(response := await call.read(), pb.GuideResponse):  # anything else is the end
                event = event_from_proto(response)
                if event is not None:
                    self._deliver(event)
            failure = ServerError(f"the server at {self.target} ended the session; ask again in a moment")
        except grpc.aio.AioRpcError as error:
            failure = self._explained(error)
        self._failure = failure
        for inbox in self._inboxes.values():
            inbox.fail(failure)

    def _deliver(self, event: Event) -> None:
        if isinstance(event, QueryFailed) and event.query_id == 0:
            # A frame was refused. The query about it fails next, and should say why.
            self._refused_frame = event.message
            return
        inbox = self._inboxes.get(event.query_id)
        if inbox is None:  # a query already given up
            return
        if isinstance(event, QueryFailed) and event.code == "no_frame" and self._refused_frame:
            event = replace(event, message=f"{event.message} (the server refused a frame: {self._refused_frame})")
        inbox.put(event)

    async def _diagnosed(self, error: grpc.aio.AioRpcError) -> ServerError:
        """Explains why no connection came about."""
        if error.code() is grpc.StatusCode.UNAVAILABLE and self.info == ServerInfo():
            fault = await asyncio.to_thread(tls_fault, self.target, self._connection)
            if fault is not None:
                return ServerError(fault)
        return self._explained(error)

    def _explained(self, error: grpc.aio.AioRpcError) -> ServerError:
        details = " ".join((error.details() or "").split())
        match error.code():
            case grpc.StatusCode.UNAVAILABLE if self.session_id:
                return ServerError(f"the server at {self.target} went away; start it again and ask once more")
            case grpc.StatusCode.UNAVAILABLE if self.info != ServerInfo():  # it has answered once, so it is there
                return ServerError(f"the server at {self.target} takes no session now: {details or 'no reason given'}")
            case grpc.StatusCode.UNAVAILABLE if "resol" in details:  # gRPC has no status of its own for these two
                return ServerError(f"there is no host by the name in {self.target}; check its spelling and the network")
            case grpc.StatusCode.UNAVAILABLE if "HTTP/2" in details:
                return ServerError(f"what runs at {self.target} is not a LEGO guidance server; check the port")
            case grpc.StatusCode.UNAVAILABLE:
                return ServerError(
                    f"no server at {self.target}: start one with 'lego-server serve --engines DIR --port PORT'"
                )
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return ServerError(f"the server at {self.target} refused: {details or 'no reason given'}")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return ServerError(f"the server at {self.target} is busy: {details or 'no reason given'}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return ServerError(f"the server at {self.target} did not answer within {self._timeout:g} s")
            case grpc.StatusCode.UNIMPLEMENTED:
                return ServerError(f"what runs at {self.target} is not a LEGO guidance server; check the port")
            case code:
                return ServerError(f"the server at {self.target} failed ({code.name}): {details or 'no reason given'}")

    async def _close_channel(self) -> None:
        self._traces.end()
        if self._call is not None:
            self._call.cancel()
        if self._channel is not None:
            await self._channel.close()


class _Inbox:
    """The events of one query, waiting for its reader. Newest wins: progress not yet read is replaced."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._failure: ServerError | None = None
        self._arrived = asyncio.Event()

    def put(self, event: Event) -> None:
        waiting = self._events[-1] if self._events else None
        if isinstance(event, Progress) and isinstance(waiting, Progress):
            self._events.pop()
            event = replace(event, preview=event.preview or waiting.preview)
        self._events.append(event)
        self._arrived.set()

    def fail(self, failure: ServerError) -> None:
        self._failure = failure
        self._arrived.set()

    async def take(self) -> Event:
        """Waits for the next event; what arrived before the server went away is still handed out."""
        while not self._events:
            if self._failure is not None:
                raise self._failure
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()


def check_target(target: str) -> str:
    """Returns the target as given.

    Raises:
        LegoError: It is not HOST:PORT, or the port is not 1 to 65535.
    """
    match = re.fullmatch(r"(?P<host>[^:\s/]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>\d{1,5})", target)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise LegoError(f"the server is {target!r}; it must be HOST:PORT, such as localhost:50051")
    return target
