"""How a server is protected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lego_core.errors import LegoError

from lego_server.settings import Section, setting


@dataclass(frozen=True)
class SecurityConfig(Section):
    """`[security]`: who may reach the server and what is seen of them; by default it listens on this machine only."""

    tls_cert: Path | None = setting(None, "PEM certificate with its chain; served anew when it changes.")
    tls_key: Path | None = setting(None, "PEM private key of the certificate.")
    client_ca: Path | None = setting(None, "PEM authorities; clients must show a certificate of theirs (mTLS).")
    token_file: Path | None = setting(None, "Tokens that lego-server token made; clients must show one.")
    allow_insecure: bool = setting(False, "Listen beyond this machine without encryption or a check of who calls.")
    log_content: bool = setting(False, "Write wearers' queries into the log, at level info.")
    max_calls_per_address: int = setting(
        32, "Calls open at once from one address, sessions and their opening included; wearers behind one router share "
        "an address.", 1, 100_000,
    )  # fmt: skip
    max_failures_per_address: int = setting(
        10, "Calls without a good token after which an address is locked out.", 1, 100_000
    )
    lockout_seconds: float = setting(
        300.0, "How long it is locked out, in seconds; failures older than this are forgotten, too.", 1, 86_400
    )
    max_connections: int = setting(
        1024, "Connections open at once, those that have not said anything yet included.", 1, 1_000_000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls-cert", "tls-key") if self.tls_key is None else ("tls-key", "tls-cert")
            raise LegoError(f"--{given} is given without --{missing}; a certificate and its key go together")
        if self.client_ca is not None and self.tls_cert is None:
            raise LegoError("--client-ca asks clients for certificates, which needs TLS: give --tls-cert and --tls-key")

    @property
    def knows_callers(self) -> bool:
        """Whether a caller must show a token or a certificate."""
        return self.token_file is not None or self.client_ca is not None
