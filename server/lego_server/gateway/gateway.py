"""The gateway: who comes to its port, what is answered, and how a WebSocket becomes a stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Sequence
from http import HTTPStatus

from lego_core.errors import LegoError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from lego_server.config import ServerConfig
from lego_server.failures import RequestError, shutting_down
from lego_server.gateway.link import CLOSE_SECONDS, LiveConnection, WebLink, closing, going_away
from lego_server.gateway.listener import Listener
from lego_server.gateway.origins import Origins
from lego_server.gateway.page import Page, own_page, plain
from lego_server.health import SERVICES, Health
from lego_server.logs import log_event
from lego_server.metrics import Metrics
from lego_server.ports import listen_fault, reachable_host
from lego_server.refusals import Refusal
from lego_server.security.access import set_current_access
from lego_server.security.addresses import network_of
from lego_server.security.admission import GUIDE_METHOD, Caller
from lego_server.security.protection import Security
from lego_server.stream import Streams

GUIDE_PATH = "/guide"
HEALTH_PATH = "/health/"
SUBPROTOCOL = Subprotocol("lego.v1")
_TOKEN, _TRACE = "bearer.", "traceparent."
_ADVICE = "give the page one"
_SUBPROTOCOL_SYNTAX = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OPEN_SECONDS = 20.0  # for a request to come, and its answer to be taken
_STRANGERS_BYTES = 1024  # of a message, until its sender is admitted
_DROP_SECONDS = 1.0  # for what is dropped to be over
_WRITE_BUFFER_BYTES = 16 * 2**10  # beside the message being sent
_log = logging.getLogger(__name__)


class Gateway:
    """Serves the page and its WebSocket. `start` it, and `stop` it; all of it belongs to one event loop.

    Attributes:
        port: The TCP port listened on, once started.
        url: Of the page, once started, by an address of this machine.
    """

    def __init__(
        self, config: ServerConfig, security: Security, streams: Streams, health: Health, metrics: Metrics
    ) -> None:
        """Reads the page; nothing listens yet.

        Raises:
            LegoError: The page cannot be served.
        """
        self._settings = config.web
        self._message_bytes = config.limits.message_bytes
        self._keepalive_seconds = config.server.keepalive_seconds
        self._security = security
        self._streams = streams
        self._health = health
        self._metrics = metrics
        self._page = Page(config.web.page or own_page())
        self._origins = Origins(config.web.allowed_origins, security.tls is not None)
        self._server: Server | None = None
        self._listener: Listener | None = None
        self.port = 0
        self.url = ""

    async def start(self) -> None:
        """Listens.

        Raises:
            LegoError: The address cannot be listened on.
        """
        settings, security = self._settings, self._security
        assert settings.port is not None
        most = security.config.max_connections
        per_address = settings.max_connections_per_address if security.admission.counts_addresses else most
        try:
            self._listener = listener = Listener(settings.host, settings.port, most, per_address)
        except (OSError, UnicodeError) as error:
            raise LegoError(
                f"cannot serve the web page on {settings.host}:{settings.port} ({listen_fault(error)}); choose another "
                "--web-port (0 takes any free one) or --web-host"
            ) from error
        self._metrics.watch_web_connections(lambda: listener.connections)
        # Its lines of request and headers would hold tokens; at warning and above it has none.
        library_log = logging.getLogger("lego_server.gateway.websockets")
        library_log.setLevel(logging.WARNING)
        self._server = await serve(
            self._serve,
            sock=listener,
            ssl=None if security.tls is None else security.tls.context(),
            process_request=self._answer,
            select_subprotocol=lambda connection, offered: SUBPROTOCOL,
            create_connection=LiveConnection,
            compression=None,  # pictures are compressed already
            max_size=_STRANGERS_BYTES,
            max_queue=0,  # reads no further message before the last one is taken
            write_limit=_WRITE_BUFFER_BYTES,
            ping_interval=None,  # see LiveConnection
            open_timeout=_OPEN_SECONDS,
            close_timeout=CLOSE_SECONDS,
            server_header=None,
            logger=library_log,
        )
        self.port = listener.getsockname()[1]
        host = reachable_host(settings.host)
        host = f"[{host}]" if ":" in host else host
        self.url = f"http{'' if security.tls is None else 's'}://{host}:{self.port}/"

    async def stop(self, seconds: float) -> None:
        """Listens no more; gives those who are there so long to be told, and drops them."""
        if self._server is None or self._listener is None:
            return
        self._server.close(close_connections=False)
        for allowed in (seconds, _DROP_SECONDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(allowed):
                    await self._server.wait_closed()
            self._listener.drop_all()

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers a request; None lets a WebSocket be opened."""
        headers, path = request.headers, request.path.partition("?")[0]
        if wrong := self._origins.refuse_host(headers.get_all("Host")):
            return self._refused(HTTPStatus.MISDIRECTED_REQUEST, "host", wrong, headers)
        if path == GUIDE_PATH:
            if wrong := self._origins.refuse_origin(headers.get_all("Origin"), headers["Host"]):
                return self._refused(HTTPStatus.FORBIDDEN, "origin", wrong, headers)
            offered = _offered(headers)
            if SUBPROTOCOL not in offered or not all(map(_SUBPROTOCOL_SYNTAX.fullmatch, offered)):
                return plain(HTTPStatus.BAD_REQUEST, f"offer the WebSocket subprotocol {SUBPROTOCOL}")
            return None
        if request.method not in ("GET", "HEAD"):
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", ("Allow", "GET, HEAD"))
        service = path.removeprefix(HEALTH_PATH)
        answer = self._page.respond(path, headers) if service == path else self._tell_health(service)
        if request.method == "HEAD":
            answer.body = b""
        return answer

    def _refused(self, status: HTTPStatus, what: str, wrong: str, headers: Headers) -> Response:
        self._metrics.rejected(what)
        log_event(_log, logging.INFO, f"web_{what}_refused", header=headers.get_all(what.capitalize()))
        return plain(status, wrong)

    def _tell_health(self, service: str) -> Response:
        if service not in SERVICES:
            return plain(HTTPStatus.NOT_FOUND, "there are live, ready and model")
        if self._health.facts()[service]:
            return plain(HTTPStatus.OK, "SERVING")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "NOT_SERVING")

    async def _serve(self, connection: ServerConnection) -> None:
        """Carries a stream over a WebSocket that has just been opened, and says how it ended."""
        assert isinstance(connection, LiveConnection)
        link = WebLink(connection)
        code, reason = going_away(shutting_down())  # what ends a stream that its client has not
        try:
            caller, carrier = _known_of(connection)
            with self._security.admission.admitted(GUIDE_METHOD, caller) as access:
                set_current_access(access)
                connection.protocol.max_message_size = self._message_bytes
                await self._carry(link, connection, carrier)
        except Refusal as refusal:
            code, reason = closing(refusal)
        except RequestError as error:
            code, reason = closing(Refusal.of(error))
        except ConnectionClosed:
            return
        await link.close(code, reason)

    async def _carry(self, link: WebLink, connection: ServerConnection, carrier: Sequence[tuple[str, str]]) -> None:
        """Carries the stream until it ends or its connection does."""
        carrying = asyncio.create_task(self._streams.carry(link, carrier))
        watching = asyncio.create_task(link.drop_when_dead(self._keepalive_seconds))
        closed = asyncio.create_task(connection.wait_closed())
        try:
            await asyncio.wait((carrying, closed), return_when=asyncio.FIRST_COMPLETED)
            if carrying.done():
                await carrying
        finally:
            tasks = carrying, watching, closed
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # what ended a broken stream is told already


def _known_of(connection: ServerConnection) -> tuple[Caller, list[tuple[str, str]]]:
    """Returns who has opened a WebSocket, and the trace they ask in."""
    assert connection.request is not None
    headers = connection.request.headers
    offered = _offered(headers)
    shown = [each.removeprefix(_TOKEN) for each in offered if each.startswith(_TOKEN)]
    for value in headers.get_all("Authorization"):  # who is no browser may send it as with gRPC
        kind, _, bearer = value.partition(" ")
        shown.append(bearer if kind.lower() == "bearer" else "")
    carrier = [(name, value) for name in ("traceparent", "tracestate") for value in headers.get_all(name)]
    carrier += [("traceparent", each.removeprefix(_TRACE)) for each in offered if each.startswith(_TRACE)]
    secret = shown[0] if len(shown) == 1 and shown[0] else None
    address = network_of(str(connection.remote_address[0]))
    return Caller(address, secret, _ADVICE, _common_name(connection)), carrier


def _offered(headers: Headers) -> list[str]:
    return [each.strip() for value in headers.get_all("Sec-WebSocket-Protocol") for each in value.split(",")]


def _common_name(connection: ServerConnection) -> str:
    certificate = connection.transport.get_extra_info("peercert") or {}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if names else ""
