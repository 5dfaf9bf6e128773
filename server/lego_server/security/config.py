"""How a server is protected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lego_core.errors import LegoError


@dataclass(frozen=True)
class SecurityConfig:
    """What protects a server; by default nothing does, and it may then listen on this machine only.

    Attributes:
        tls_cert: PEM file of the server's certificate and those that link it to its authority.
        tls_key: PEM file of its private key.
        client_ca: PEM file of the authorities whose client certificates are asked for (mTLS); None asks for none.
        token_file: Tokens as `lego-server token` writes them; None asks for none.
        allow_insecure: Listen beyond this machine without encryption or without knowing who calls.
        log_content: Write queries into the log.
        max_calls_per_address: Calls open at once from one address, sessions and their opening included. Several
            wearers behind one router share an address.
        max_failures_per_address: Calls without a good token after which an address is locked out.
        lockout_seconds: For how long; failures older than this are forgotten too.
        max_connections: Connections open at once, those that have not said anything yet included.
    """

    tls_cert: Path | None = None
    tls_key: Path | None = None
    client_ca: Path | None = None
    token_file: Path | None = None
    allow_insecure: bool = False
    log_content: bool = False
    max_calls_per_address: int = 32
    max_failures_per_address: int = 10
    lockout_seconds: float = 300.0
    max_connections: int = 1024

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls-cert", "tls-key") if self.tls_key is None else ("tls-key", "tls-cert")
            raise LegoError(f"--{given} is given without --{missing}; a certificate and its key go together")
        if self.client_ca is not None and self.tls_cert is None:
            raise LegoError("--client-ca asks clients for certificates, which needs TLS: give --tls-cert and --tls-key")
        for name, low, high in (
            ("max_calls_per_address", 1, 100_000), ("max_failures_per_address", 1, 100_000),
            ("lockout_seconds", 1, 86_400), ("max_connections", 1, 1_000_000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise LegoError(f"{name} is {value}; it must lie between {low} and {high}")

    @property
    def knows_callers(self) -> bool:
        """Whether a caller must show a token or a certificate."""
        return self.token_file is not None or self.client_ca is not None
