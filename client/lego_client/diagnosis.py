"""Why a TLS connection failed. gRPC tells it only in words that change from version to version, so this asks again.

Python's own TLS makes the same handshake, and its errors have codes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import cast

from lego_client.connection import Connection

_SECONDS = 3.0
# X509_V_ERR_ numbers of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _HOST_NAME, _IP_ADDRESS = 9, 10, 62, 64
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_ALERTS = (
    "ALERT_CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN", "ALERT_HANDSHAKE_FAILURE", "ALERT_DECRYPT_ERROR",
)  # fmt: skip
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


class _HungUp(Exception):
    """The server ended the connection after the handshake."""


def tls_fault(target: str, connection: Connection) -> str | None:
    """Makes a handshake of its own and returns one sentence on what is wrong with it; None if it finds nothing.

    Blocks for up to a few seconds.

    Args:
        target: HOST:PORT of a server that gRPC could not connect to.
        connection: How it tried.
    """
    host, _, port = target.rpartition(":")
    address = host.strip("[]"), int(port)
    if not connection.tls:
        fault = _handshake(address, _trusting_anyone())
        if fault is None or _judges_client(fault):
            return (
                f"the server at {target} speaks TLS only; add --tls, and --ca FILE if its authority is not a public one"
            )
        return None
    fault = _handshake(address, connection.context())
    code = getattr(fault, "verify_code", None)
    if code == _EXPIRED:
        return f"the certificate of the server at {target} has expired; its operator must renew it"
    if code == _NOT_YET_VALID:
        return f"the certificate of the server at {target} is not valid yet; check this machine's clock"
    if code in (_HOST_NAME, _IP_ADDRESS):
        names = _names(address, connection)
        return (
            f"the certificate of the server at {target} is for other names ({names}); reach it by one of them, or have "
            "one made for this name"
        )
    if code in _UNKNOWN_AUTHORITY:
        cure = "give its authority with --ca FILE" if connection.ca is None else f"{connection.ca} is another's"
        return f"nobody known vouches for the server at {target}: {cure}"
    if _judges_client(fault):
        cert = connection.cert
        cure = "it asks for one, so give --cert and --key" if cert is None else f"it does not accept {cert}"
        return f"the server at {target} hung up on seeing {'no' if cert is None else 'this'} client certificate: {cure}"
    if getattr(fault, "reason", None) in _NO_TLS:
        return f"the server at {target} does not speak TLS; leave --tls out, or have its operator turn it on"
    return None


def _trusting_anyone() -> ssl.SSLContext:
    """For questions only: nothing is ever sent over it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def _handshake(address: tuple[str, int], context: ssl.SSLContext) -> Exception | None:
    """Returns what went wrong, None if nothing did."""
    try:
        with (
            socket.create_connection(address, _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=address[0]) as secured,
        ):
            # In TLS 1.3 the server judges the client's certificate after the client takes the handshake for done. One
            # that is content begins to speak HTTP/2; gRPC's says nothing and hangs up.
            secured.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                if not secured.recv(1):
                    return _HungUp()
    except (OSError, ValueError) as error:
        return error
    return None


def _judges_client(fault: Exception | None) -> bool:
    """Whether a handshake failed because the server did not like the client's certificate, or missed it."""
    reason = getattr(fault, "reason", None) or ""
    return isinstance(fault, _HungUp | ConnectionResetError) or reason.endswith(_ALERTS)


def _names(address: tuple[str, int], connection: Connection) -> str:
    """Returns the names that a certificate, otherwise good, is for."""
    context = connection.context()
    context.check_hostname = False
    with (
        socket.create_connection(address, _SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as secured,
    ):
        certificate = secured.getpeercert() or {}
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    return ", ".join(name for _, name in names) or "none"
