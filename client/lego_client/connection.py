"""How a client reaches its server: with TLS or without, and with which token."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
from lego_core.errors import LegoError
from lego_core.secrecy import OTHERS, is_loopback, refuse_exposed


@dataclass(frozen=True)
class Connection:
    """What protects the way to a server; by default nothing does.

    Attributes:
        tls: Encrypt, and let the server prove that it is the one named.
        ca: PEM file of the authority that vouches for the server; None takes the public ones gRPC knows.
        cert: PEM file of the client's own certificate, for servers that ask for one.
        key: PEM file of its private key.
        token: What the server knows this client by; "" for none.
    """

    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise LegoError(f"--{given} is given without --{missing}; a certificate and its key go together")
        if not self.tls and (self.ca is not None or self.cert is not None):
            raise LegoError("a certificate is given without --tls; add it to connect with encryption")

    def check(self, target: str) -> None:
        """Refuses to send a token where others could read it.

        Args:
            target: HOST:PORT.

        Raises:
            LegoError: There is a token but no TLS, and the server is another machine.
        """
        host = target.rpartition(":")[0]
        if self.token and not self.tls and not is_loopback(host):
            raise LegoError(
                f"the token would travel to {host} in the clear, where others could read it: add --tls, and --ca FILE "
                "if the server's authority is not a public one"
            )

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def open_channel(self, target: str, options: Sequence[tuple[str, int]]) -> grpc.aio.Channel:
        """Returns a channel; nothing is sent yet.

        Raises:
            LegoError: A certificate file cannot be used, or others may read the key.
        """
        credentials = self._credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, credentials, options=options)

    def open_blocking_channel(self, target: str, options: Sequence[tuple[str, int]]) -> grpc.Channel:
        """Returns the same for code in a thread of its own.

        Raises:
            LegoError: As `open_channel`.
        """
        credentials = self._credentials()
        if credentials is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, credentials, options=options)

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if not self.tls:
            return None
        if self.key is not None:
            refuse_exposed(self.key, OTHERS, "the private key")
        ca, key, cert = (None if path is None else _read(path) for path in (self.ca, self.key, self.cert))
        self.context()  # gRPC would stumble over them only when it connects, in words of its own
        return grpc.ssl_channel_credentials(ca, key, cert)

    def context(self) -> ssl.SSLContext:
        """Returns the same for Python's own TLS.

        Raises:
            LegoError: OpenSSL cannot use a certificate file.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (ssl.SSLError, OSError) as error:
            raise LegoError(f"{self.ca} holds no certificate in PEM form; give --ca the authority's") from error
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # gRPC is not as strict either
        context.set_alpn_protocols(["h2"])
        try:
            if self.cert is not None and self.key is not None:
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")  # else it asks at the terminal
        except (ssl.SSLError, OSError, ValueError) as error:
            raise LegoError(
                f"{self.cert} and {self.key} are no certificate and its private key, in PEM form and without a "
                "passphrase; give --cert and --key the two that were made together"
            ) from error
        return context


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LegoError(f"{path} cannot be read ({error.strerror})") from error
