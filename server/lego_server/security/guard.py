"""The guard at gRPC's door: the first to see a call; it is admitted, then served."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from lego_server.decoding import strict
from lego_server.failures import RequestError
from lego_server.refusals import Refusal
from lego_server.security.access import set_current_access
from lego_server.security.addresses import address_of
from lego_server.security.admission import Admission, Caller
from lego_server.security.config import SecurityConfig

_ADVICE = "give lego-client one with --token-file, or in LEGO_TOKEN"
# A connection that says nothing, and one nobody uses, are closed.
_HANDSHAKE_TIMEOUT_MS = 10_000
_IDLE_CONNECTION_MS = 300_000


def connection_limits(config: SecurityConfig) -> list[tuple[str, int]]:
    """Returns options for `grpc.aio.server` that bound connections before anything is known of who makes them."""
    return [
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", _IDLE_CONNECTION_MS),
    ]


class Guard(grpc.aio.ServerInterceptor):
    """There before all other interceptors, they see calls that are admitted."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Puts itself before the handler of a method."""
        handler = await continuation(details)
        return None if handler is None else self._guarded(details.method, handler)

    def _guarded(self, method: str, handler: Any) -> grpc.RpcMethodHandler:
        serve = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def respond(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext) -> Any:
            try:
                with self._admission.admitted(method, _caller(context)) as access:
                    set_current_access(access)
                    try:
                        request = requests if handler.request_streaming else await _only(requests)
                        response = serve(request, context)
                        if inspect.isasyncgen(response):
                            async for message in response:
                                await context.write(message)
                            return None
                        return await response
                    except (Refusal, RequestError) as error:
                        # Still counted: a client that reads nothing keeps its call until its connection ends.
                        return await _abort(context, error)
            except (Refusal, RequestError) as error:
                return await _abort(context, error)

        # On the wire one request is a stream of one. Taken as a stream, it is read only after the caller is admitted:
        # a stranger cannot have the server take in megabytes.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(respond, strict(handler.request_deserializer), handler.response_serializer)


async def _abort(context: grpc.aio.ServicerContext, error: Refusal | RequestError) -> None:
    refusal = error if isinstance(error, Refusal) else Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    with contextlib.suppress(grpc.aio.InternalError):  # gone without having read it
        await context.abort(refusal.status, refusal.message, _retry_metadata(refusal.retry_seconds))


def _caller(context: grpc.aio.ServicerContext) -> Caller:
    names = list(context.auth_context().get("x509_common_name", ()))
    name = names[0].decode("utf-8", "replace") if names else ""
    return Caller(address_of(context.peer()), _presented(context), _ADVICE, name)


def _presented(context: grpc.aio.ServicerContext) -> str | None:
    headers = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if len(headers) != 1 or not isinstance(headers[0], str):
        return None
    kind, _, secret = headers[0].partition(" ")
    return secret if kind.lower() == "bearer" and secret else None


async def _only(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "the call carries no request")


def _retry_metadata(seconds: float | None) -> tuple[tuple[str, str], ...]:
    """Returns trailing metadata that tells a gRPC client when to try again (gRFC A6); empty for None."""
    return () if seconds is None else (("grpc-retry-pushback-ms", str(math.ceil(1000 * seconds))),)
