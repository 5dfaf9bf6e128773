"""Asks a server for its health, as orchestrators' probes do; theirs speak no TLS, this one does."""

from __future__ import annotations

from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lego_core.errors import LegoError


def ask_health(address: str, service: str, seconds: float, ca: Path | None = None, name: str | None = None) -> str:
    """Returns a service's status, such as SERVING.

    Args:
        address: HOST:PORT.
        service: `live`, `ready` or `model`.
        seconds: How long the server may take.
        ca: PEM authority of the server's certificate; None speaks without TLS.
        name: The name in the certificate, where it is not the address's.

    Raises:
        LegoError: There is no answer, or the server knows no such service.
    """
    if ca is None:
        channel = grpc.insecure_channel(address)
    else:
        try:
            credentials = grpc.ssl_channel_credentials(ca.read_bytes())
        except OSError as error:
            raise LegoError(f"{ca} cannot be read ({error.strerror}); give --ca the authority's certificate") from error
        options = [("grpc.ssl_target_name_override", name)] if name else []
        channel = grpc.secure_channel(address, credentials, options)
    with channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise LegoError(
                    f"the server at {address} knows no service {service!r}; ask for live, ready or model"
                ) from (error)
            raise LegoError(f"no health from {address} ({error.code().name.lower()}: {error.details()})") from error
    status: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return status
