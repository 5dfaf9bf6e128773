"""One stream to a guidance server: how it is opened, and what its failures mean."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import grpc
import grpc.aio
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc as pb_grpc

from lego_client.connection import Connection
from lego_client.diagnosis import tls_fault
from lego_client.errors import ConnectionFailed, ServerError
from lego_client.events import ServerInfo
from lego_client.protocol import server_info_from_proto

_CHANNEL_OPTIONS = [
    # A ping every 20 s notices a half-open link. A server must allow this rate
    # (grpc.http2.min_ping_interval_without_data_ms), or gRPC ends the connection with "too_many_pings".
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # While a ping of gRPC's own is unanswered it sends none for keepalive, and waits for a minute by itself.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's 4 MiB is less than a large guidance frame may take.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # Each try is a connection of its own. Shared ones would wait by gRPC's backoff, of up to two minutes, under ours.
    ("grpc.use_local_subchannel_pool", 1),
]
# What trying again cannot cure; everything else may be a server that starts, stops, or is full.
_INCURABLE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)

_Call = grpc.aio.StreamStreamCall[pb.GuideRequest, pb.GuideResponse]


class Stream:
    """An open `Guide` call on a channel of its own.

    Attributes:
        info: What the server runs.
        started: The session that began with the stream.
        round_trip: Seconds from asking for it to its beginning, over a connection that was open.
    """

    def __init__(
        self, channel: grpc.aio.Channel, call: _Call, info: ServerInfo, started: pb.SessionStarted, round_trip: float,
        route: Route,
    ) -> None:  # fmt: skip
        self.info = info
        self.round_trip = round_trip
        self.started = started
        self._channel = channel
        self._call = call
        self._route = route
        self._write_lock = asyncio.Lock()

    async def read(self) -> pb.GuideResponse | None:
        """Returns the next message, None at the stream's end.

        Raises:
            ConnectionFailed: The stream broke.
        """
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._route.explained(error, had_session=True) from error
        return response if isinstance(response, pb.GuideResponse) else None

    async def write(self, request: pb.GuideRequest) -> bool:
        """Returns whether the stream took the message; if not, `read` tells why."""
        try:
            async with self._write_lock:  # a gRPC stream takes one write at a time
                await self._call.write(request)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return False
        return True

    async def end(self) -> None:
        """Says that nothing more will be written, so that the server sees an end and not a break."""
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            return

    async def close(self) -> None:
        """Drops the connection."""
        self._call.cancel()
        await self._channel.close()


@dataclass(frozen=True)
class Route:
    """How a server is reached.

    Attributes:
        target: HOST:PORT.
        connection: TLS and token.
        model: The model asked; empty for the server's default.
    """

    target: str
    connection: Connection
    model: str = ""

    async def open(self, time_limit: float, metadata: tuple[tuple[str, str], ...] = ()) -> Stream:
        """Connects, asks what the server runs, and opens a stream.

        Args:
            time_limit: Seconds the server may take for each of the two.
            metadata: To send along with the stream.

        Raises:
            LegoError: The server does not have the model.
            ServerError: No server answers there, or it is not a guidance server.
        """
        channel = self.connection.open_channel(self.target, _CHANNEL_OPTIONS)
        stub = pb_grpc.GuidanceStub(channel)
        own = self.connection.metadata
        info = ServerInfo()
        try:
            request = pb.GetServerInfoRequest(model=self.model)
            info = server_info_from_proto(await stub.GetServerInfo(request, timeout=time_limit, metadata=own))
            self._check_model(info)
            asked = time.monotonic()
            call = stub.Guide(metadata=(*own, *metadata))
            async with asyncio.timeout(time_limit):
                first = await call.read()
            round_trip = time.monotonic() - asked
            if not isinstance(first, pb.GuideResponse) or first.WhichOneof("message") != "session_started":
                raise ServerError(f"the server at {self.target} started no session; its version may not fit this one")
        except grpc.aio.AioRpcError as error:
            await channel.close()
            if self.model and info == ServerInfo() and error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise LegoError(
                    error.details() or f"the server at {self.target} has no model {self.model!r}"
                ) from error
            raise self.explained(error, had_info=info != ServerInfo()) from error
        except TimeoutError as error:
            await channel.close()
            raise ConnectionFailed(f"the server at {self.target} did not answer within {time_limit:g} s") from error
        except BaseException:
            await channel.close()
            raise
        return Stream(channel, call, info, first.session_started, round_trip, self)

    async def fault(self) -> ServerError | None:
        """Looks for a fault in how TLS is used here or there, once no connection came about; None if there is none."""
        found = await asyncio.to_thread(tls_fault, self.target, self.connection)
        return None if found is None else ServerError(found)

    def explained(
        self, error: grpc.aio.AioRpcError | grpc.Call, had_info: bool = False, had_session: bool = False
    ) -> ConnectionFailed:
        """Returns the failure as the wearer may read it.

        Args:
            error: What gRPC says.
            had_info: The server has answered once, so it is there.
            had_session: The stream was open.
        """
        details = " ".join((error.details() or "").split())
        return ConnectionFailed(
            self._sentence(error.code(), details, had_info, had_session),
            curable=error.code() not in _INCURABLE,
            retry_after_seconds=_pushback_seconds(error),
        )

    def _sentence(self, code: grpc.StatusCode, details: str, had_info: bool, had_session: bool) -> str:
        why = details or "no reason given"
        match code:
            case grpc.StatusCode.UNAVAILABLE if had_session:
                return f"the server at {self.target} went away; start it again and ask once more"
            case grpc.StatusCode.UNAVAILABLE if had_info:
                return f"the server at {self.target} takes no session now: {why}"
            case grpc.StatusCode.UNAVAILABLE if "resol" in details:  # gRPC has no status of its own for these two
                return f"there is no host by the name in {self.target}; check its spelling and the network"
            case grpc.StatusCode.UNAVAILABLE if "HTTP/2" in details:
                return f"what runs at {self.target} is not a LEGO guidance server; check the port"
            case grpc.StatusCode.UNAVAILABLE:
                return f"no server at {self.target}: start one with 'lego-server serve --engines DIR --port PORT'"
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return f"the server at {self.target} refused: {why}"
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return f"the server at {self.target} is busy: {why}"
            case grpc.StatusCode.DEADLINE_EXCEEDED if not had_session:
                return f"the server at {self.target} did not answer in time"
            case grpc.StatusCode.UNIMPLEMENTED:
                return f"what runs at {self.target} is not a LEGO guidance server; check the port"
        return f"the server at {self.target} failed ({code.name}): {why}"

    def _check_model(self, info: ServerInfo) -> None:
        if self.model and not info.models:  # one from before there was a choice would answer with the model it has
            raise LegoError(f"the server at {self.target} runs {info.model_name} only; leave --model out")


def _pushback_seconds(error: grpc.aio.AioRpcError | grpc.Call) -> float:
    """Returns for how long the server does not want to be asked again (gRFC A6), 0 if it does not say."""
    pushback = next((value for key, value in error.trailing_metadata() if key == "grpc-retry-pushback-ms"), "")
    text = pushback.decode(errors="replace") if isinstance(pushback, bytes) else pushback
    return int(text) / 1000 if text.isdecimal() else 0.0
