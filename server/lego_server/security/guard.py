"""The guard at the door: every call is counted by its address, then known by its token or certificate, then served."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from lego_core.secrecy import is_loopback

from lego_server.failures import Reason, RequestError
from lego_server.security.access import Access, set_current_access
from lego_server.security.addresses import AddressBook, address_of
from lego_server.security.config import SecurityConfig
from lego_server.security.exposure import refuse_exposure
from lego_server.security.quota import CROWDED_RETRY_SECONDS, Limits, Usage
from lego_server.security.reloading import Reloading
from lego_server.security.tls import TlsFiles
from lego_server.security.tokens import Token, find_token, hash_of, read_tokens

# Orchestrators ask it without a token; it tells no more than whether the server is up.
_OPEN_METHODS = ("/grpc.health.v1.Health/Check",)
_GUIDE_PREFIX = "/lego.v1.Guidance/"
# A connection that says nothing, and one nobody uses, are closed.
_HANDSHAKE_TIMEOUT_MS = 10_000
_IDLE_CONNECTION_MS = 300_000
_log = logging.getLogger(__name__)


class Security:
    """Everything that protects one server; `interceptors`, `channel_options` and `add_port` put it in place."""

    def __init__(
        self,
        config: SecurityConfig,
        host: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads certificates and tokens.

        Args:
            config: What protects the server.
            host: The address it will listen on.
            clock: Monotonic seconds, for limits.
            now: The time of day, for the expiry of tokens.

        Raises:
            LegoError: A file cannot be used, or the address is not safe to listen on.
        """
        refuse_exposure(config, host)
        self.config = config
        self._tls = None
        if config.tls_cert is not None and config.tls_key is not None:
            self._tls = TlsFiles(config.tls_cert, config.tls_key, config.client_ca)
        tokens = None
        if config.token_file is not None:
            path = config.token_file
            tokens = Reloading(f"the token file {path}", [path], lambda: read_tokens(path))
        # At DEBUG, Pillow logs a picture's metadata, such as where it was taken.
        logging.getLogger("PIL").setLevel(logging.INFO)
        addresses = None
        if self._tls is not None or tokens is not None or not is_loopback(host):
            addresses = AddressBook(
                config.max_calls_per_address, config.max_failures_per_address, config.lockout_seconds, clock
            )
        self._guard = _Guard(config, addresses, tokens, clock, now)

    @property
    def encrypted(self) -> bool:
        """Whether the server speaks TLS."""
        return self._tls is not None

    @property
    def certificate_expires(self) -> datetime | None:
        """When the certificate in use ends, in UTC; None without TLS."""
        return None if self._tls is None else self._tls.expires

    def certificate_expiry(self) -> float:
        """When the certificate in use ends, in Unix time; NaN without TLS."""
        return math.nan if self.certificate_expires is None else self.certificate_expires.timestamp()

    @property
    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """For `grpc.aio.server`; there before all others, they see calls that are admitted."""
        return [self._guard]

    @property
    def channel_options(self) -> list[tuple[str, int]]:
        """For `grpc.aio.server`: what bounds connections before anything is known of who makes them."""
        return [
            ("grpc.max_allowed_incoming_connections", self.config.max_connections),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_TIMEOUT_MS),
            ("grpc.max_connection_idle_ms", _IDLE_CONNECTION_MS),
        ]

    def add_port(self, server: grpc.aio.Server, address: str) -> int:
        """Has a server listen on HOST:PORT, with TLS where there is a certificate; returns the port.

        Raises:
            RuntimeError: gRPC cannot listen there.
        """
        if self._tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._tls.credentials())


@dataclass
class _Refusal(Exception):
    status: grpc.StatusCode
    message: str
    retry_seconds: float | None = None


class _Guard(grpc.aio.ServerInterceptor):
    def __init__(
        self,
        config: SecurityConfig,
        addresses: AddressBook | None,
        tokens: Reloading[tuple[Token, ...]] | None,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """Guards a server; without addresses and tokens, everybody is welcome, as on one's own machine."""
        self._config = config
        self._tokens = tokens
        self._clock = clock
        self._now = now
        self._usage: dict[str, Usage] = {}
        self._addresses = addresses

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(details)
        return None if handler is None else self._guarded(details.method, handler)

    def _guarded(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        serve = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def respond(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
            try:
                with self._admitted(method, context) as access:
                    set_current_access(access)
                    request = requests if handler.request_streaming else await _only(requests)
                    response = serve(request, context)
                    if inspect.isasyncgen(response):
                        async for message in response:
                            await context.write(message)
                        return None
                    return await response
            except _Refusal as refusal:
                await context.abort(refusal.status, refusal.message, retry_metadata(refusal.retry_seconds))
            except RequestError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        # On the wire one request is a stream of one. Taken as a stream, it is read only after the caller is admitted:
        # a stranger cannot have the server take in megabytes.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(respond, _strict(handler.request_deserializer), handler.response_serializer)

    @contextmanager
    def _admitted(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[Access]:
        addresses = self._addresses
        if addresses is None:
            yield Access()
            return
        address = address_of(context.peer())
        if not addresses.enter(address):
            raise _Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"your address has {self._config.max_calls_per_address} calls open, its limit; close some first",
                CROWDED_RETRY_SECONDS,
            )
        try:
            if method in _OPEN_METHODS:
                yield Access()
            elif self._tokens is None:
                yield Access(self._certificate_name(context) or address)
            else:
                yield from self._with_token(self._tokens, addresses, method, address, context)
        finally:
            addresses.leave(address)

    def _with_token(
        self,
        tokens: Reloading[tuple[Token, ...]],
        addresses: AddressBook,
        method: str,
        address: str,
        context: grpc.aio.ServicerContext,
    ) -> Iterator[Access]:
        locked = addresses.lockout(address)
        if locked:
            raise _Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"your address is locked out after {self._config.max_failures_per_address} calls without a good token; "
                f"try again in {math.ceil(locked)} s",
                locked,
            )
        sha256 = hash_of(self._presented(addresses, address, context))
        token = find_token(tokens.current(), sha256)
        if token is None:
            self._note_failure(addresses, address)
            raise _Refusal(
                grpc.StatusCode.UNAUTHENTICATED,
                "the token is not known here: it is mistyped, revoked or another server's; ask the operator for a new "
                "one",
            )
        if token.expired(self._now()):  # not a guess, so it does not count towards the lock-out
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, _expired(token))
        addresses.succeeded(address)
        scope = "guide" if method.startswith(_GUIDE_PREFIX) else "admin"
        if scope not in token.scopes:
            raise _Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the token of {token.name} is for {' and '.join(token.scopes)}; {method} needs one for {scope}",
            )
        usage = self._usage_of(sha256, tokens.current())
        limit = token.limits.sessions
        if limit is not None and usage.sessions >= limit:
            raise _Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the token of {token.name} has {usage.sessions} calls open, its limit; close one first",
                CROWDED_RETRY_SECONDS,
            )

        def limits() -> Limits:
            latest = find_token(tokens.current(), sha256)
            if latest is None:
                raise RequestError(Reason.INVALID, "your token has been revoked; ask the operator for a new one")
            if latest.expired(self._now()):
                raise RequestError(Reason.INVALID, _expired(latest))
            return latest.limits

        usage.sessions += 1
        try:
            yield Access(token.name, limits, usage, self._clock)
        finally:
            usage.sessions -= 1

    def _presented(self, addresses: AddressBook, address: str, context: grpc.aio.ServicerContext) -> str:
        headers = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        if len(headers) == 1 and isinstance(headers[0], str):
            kind, _, secret = headers[0].partition(" ")
            if kind.lower() == "bearer" and secret:
                return secret
        self._note_failure(addresses, address)
        raise _Refusal(
            grpc.StatusCode.UNAUTHENTICATED,
            "this server asks for a token: give lego-client one with --token-file, or in LEGO_TOKEN",
        )

    def _note_failure(self, addresses: AddressBook, address: str) -> None:
        if addresses.failed(address):
            _log.warning(
                "address %s is locked out for %.0f s after %d calls without a good token",
                address, self._config.lockout_seconds, self._config.max_failures_per_address,
            )  # fmt: skip
        else:
            _log.info("a call from %s without a good token", address)

    def _usage_of(self, sha256: str, tokens: tuple[Token, ...]) -> Usage:
        if len(self._usage) > len(tokens):  # some have been revoked
            known = {token.sha256 for token in tokens}
            self._usage = {key: usage for key, usage in self._usage.items() if key in known}
        return self._usage.setdefault(sha256, Usage())

    @staticmethod
    def _certificate_name(context: grpc.aio.ServicerContext) -> str:
        names = list(context.auth_context().get("x509_common_name", ()))
        return names[0].decode("utf-8", "replace") if names else ""


def _strict(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Has bytes that are no message told to the client as its own mistake, which gRPC takes for the server's."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise RequestError(
                Reason.INVALID, f"the {len(data)} bytes are no message of this call ({error}); send one as "
                "lego/v1/guidance.proto describes it",
            ) from error  # fmt: skip

    return read


async def _only(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the call carries no request")


def retry_metadata(seconds: float | None) -> tuple[tuple[str, str], ...]:
    """Returns trailing metadata that tells a gRPC client when to try again (gRFC A6); empty for None."""
    return () if seconds is None else (("grpc-retry-pushback-ms", str(math.ceil(1000 * seconds))),)


def _expired(token: Token) -> str:
    return f"the token of {token.name} expired on {token.expires:%Y-%m-%d %H:%M} UTC; ask the operator for a new one"
