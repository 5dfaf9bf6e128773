"""Asks a server for its health, as orchestrators' probes do; theirs speak no TLS, this one does."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lego_core.errors import LegoError


def ask_health(
    address: str, service: str, seconds: float, ca: Path | None = None, name: str | None = None,
    cert: Path | None = None, key: Path | None = None,
) -> str:  # fmt: skip
    """Returns a service's status, such as SERVING.

    Args:
        address: HOST:PORT.
        service: `live`, `ready` or `model`.
        seconds: How long the server may take.
        ca: PEM authority of the server's certificate; None speaks without TLS.
        name: The name in the certificate, where it is not the address's.
        cert: PEM certificate to show, where the server asks for one (`--client-ca`).
        key: PEM private key of it.

    Raises:
        LegoError: There is no answer, the server knows no such service, or a certificate file cannot be used.
    """
    if (cert is None) != (key is None) or (cert is not None and ca is None):
        raise LegoError("--ca, --cert and --key go together; a server without --client-ca asks for --ca only")
    if ca is None:
        channel = grpc.insecure_channel(address)
    else:
        options = [("grpc.ssl_target_name_override", name)] if name else []
        channel = grpc.secure_channel(address, _credentials(ca, cert, key), options)
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


def _credentials(ca: Path, cert: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    try:
        context = ssl.create_default_context(cafile=ca)  # gRPC would stumble later, in lines of its own
        if cert is not None:
            context.load_cert_chain(cert, key, password=lambda: b"")  # else it asks at the terminal
        files = [None if path is None else path.read_bytes() for path in (ca, key, cert)]
    except (OSError, ValueError) as error:  # OSError: ssl's own errors, too
        reason = error.strerror if isinstance(error, OSError) else "it has a passphrase"
        raise LegoError(
            f"a certificate file cannot be used ({reason}); give --ca, --cert and --key PEM files that belong together"
        ) from error
    return grpc.ssl_channel_credentials(*files)
