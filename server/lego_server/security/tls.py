"""TLS from PEM files: checked before use, served anew when they change."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from lego_core.errors import LegoError
from lego_core.secrecy import OTHERS, refuse_exposed

from lego_server.security.reloading import Reloading

WARN_BEFORE = timedelta(days=14)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificates:
    """What a server shows and demands in a TLS handshake.

    Attributes:
        chain: PEM certificates, the server's own first.
        key: PEM private key of the first.
        client_ca: PEM certificates of those who may vouch for clients; None lets everybody in.
        expires: When the server's own ends.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None
    expires: datetime

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Returns the same for gRPC."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.client_ca)


class TlsFiles:
    """The certificate files of a running server."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        """Reads and checks the files.

        Raises:
            LegoError: One is missing, damaged, exposed or expired, or the key is not the certificate's.
        """
        self._paths = cert, key
        paths = [cert, key] if client_ca is None else [cert, key, client_ca]
        self._demands_client_certificate = client_ca is not None
        self._files = Reloading(
            f"the TLS certificate {cert}", paths, lambda: load_certificates(cert, key, client_ca, datetime.now(UTC))
        )
        self._served = self._files.current()

    @property
    def expires(self) -> datetime:
        """When the certificate in use ends."""
        return self._files.current().expires

    def remind(self, now: datetime) -> None:
        """Logs a warning if the certificate in use ends soon, an error if it has ended."""
        _warn_of_end(self._paths[0], self.expires, now)

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that look at the files before every handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._served.configuration(),
            self._renewed,  # type: ignore[arg-type]  # the stubs forget that None means no change
            self._demands_client_certificate,
        )

    def context(self) -> ssl.SSLContext:
        """Returns the same for Python's own TLS; it, too, looks at the files before every handshake.

        Raises:
            LegoError: OpenSSL cannot use them.
        """
        served = self._files.current()
        context = self._context(served)
        latest = served, context

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
            nonlocal latest
            now = self._files.current()
            if now is not latest[0]:
                try:
                    latest = now, self._context(now)
                except LegoError as error:  # perhaps half replaced by now; the next change is looked at again
                    _log.error("%s, so the old one stays", error)
                    latest = now, latest[1]
            connection.context = latest[1]

        context.sni_callback = choose
        return context

    def _context(self, certificates: Certificates) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*self._paths)
            if certificates.client_ca is not None:
                context.load_verify_locations(cadata=certificates.client_ca.decode("ascii", "replace"))
                context.verify_mode = ssl.CERT_REQUIRED
                # A resumed session is not judged by the authorities of today, and TLS 1.2 resumes without tickets, too.
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.num_tickets = 0
        except (ssl.SSLError, OSError) as error:
            raise LegoError(f"the TLS certificate {self._paths[0]} cannot be used by OpenSSL ({error})") from error
        return context

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this on threads of its own; two at once at worst hand the same certificate over twice.
        latest = self._files.current()
        if latest is self._served:
            return None
        self._served = latest
        return latest.configuration()


def load_certificates(cert: Path, key: Path, client_ca: Path | None, now: datetime) -> Certificates:
    """Reads a server's certificate files, and checks what gRPC itself would only stumble over at a handshake.

    Raises:
        LegoError: One is missing, damaged, exposed or expired, or the key is not the certificate's.
    """
    refuse_exposed(key, OTHERS, "the private key")
    chain, secret = _read(cert), _read(key)
    certificate = _parse(cert, chain)[0]
    _refuse_outdated(cert, certificate, now)
    try:
        private_key = load_pem_private_key(secret, password=None)
    except TypeError as error:
        raise LegoError(f"the private key {key} has a passphrase; give one without, readable by the server only") from (
            error
        )
    except ValueError as error:
        raise LegoError(f"{key} holds no private key in PEM form") from error
    if _public(private_key.public_key()) != _public(certificate.public_key()):
        raise LegoError(f"the private key {key} does not belong to the certificate {cert}; give the two made together")
    authorities = None
    if client_ca is not None:
        authorities = _read(client_ca)
        for authority in _parse(client_ca, authorities):
            _refuse_outdated(client_ca, authority, now)
    expires = certificate.not_valid_after_utc
    _warn_of_end(cert, expires, now)
    return Certificates(chain, secret, authorities, expires)


def certificate_expiry(cert: Path) -> datetime:
    """Returns when the first certificate of a PEM file ends, in UTC; it may have ended already.

    Raises:
        LegoError: The file is missing or holds no certificate.
    """
    return _parse(cert, _read(cert))[0].not_valid_after_utc


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LegoError(f"{path} cannot be read ({error.strerror})") from error


def _parse(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise LegoError(f"{path} holds no certificate in PEM form") from error


def _refuse_outdated(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends <= now:
        raise LegoError(f"the certificate {path} expired on {_day(ends)}; renew it")
    if begins > now:
        raise LegoError(f"the certificate {path} is valid only from {_day(begins)}; check this machine's clock")


def _warn_of_end(cert: Path, expires: datetime, now: datetime) -> None:
    if expires <= now:
        _log.error("the certificate %s expired on %s, so clients refuse this server; renew it", cert, _day(expires))
    elif expires - now < WARN_BEFORE:
        _log.warning("the certificate %s expires on %s; renew it", cert, _day(expires))


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
