"""What protects one server, whichever way it is reached: certificates, tokens, limits by address."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from lego_core.secrecy import is_loopback

from lego_server.security.addresses import AddressBook
from lego_server.security.admission import Admission
from lego_server.security.config import SecurityConfig
from lego_server.security.exposure import refuse_exposure
from lego_server.security.reloading import Reloading
from lego_server.security.tls import TlsFiles
from lego_server.security.tokens import read_tokens

_DAY = 86_400.0  # seconds


class Security:
    """Everything that protects one server.

    Attributes:
        config: What was asked for.
        tls: The certificate files; None where nothing is encrypted.
        admission: Lets callers in, or refuses them.
    """

    def __init__(
        self,
        config: SecurityConfig,
        hosts: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Reads certificates and tokens.

        Args:
            config: What protects the server.
            hosts: The addresses it will listen on.
            clock: Monotonic seconds, for limits.
            now: The time of day, for the expiry of tokens.

        Raises:
            LegoError: A file cannot be used, or an address is not safe to listen on.
        """
        hosts = tuple(hosts)
        for host in hosts:
            refuse_exposure(config, host)
        self.config = config
        self._now = now
        self.tls: TlsFiles | None = None
        if config.tls_cert is not None and config.tls_key is not None:
            self.tls = TlsFiles(config.tls_cert, config.tls_key, config.client_ca)
        tokens = None
        if config.token_file is not None:
            path = config.token_file
            tokens = Reloading(f"the token file {path}", [path], lambda: read_tokens(path))
        # At DEBUG, Pillow logs a picture's metadata, such as where it was taken.
        logging.getLogger("PIL").setLevel(logging.INFO)
        addresses = None
        if self.tls is not None or tokens is not None or not all(map(is_loopback, hosts)):
            addresses = AddressBook(
                config.max_calls_per_address, config.max_failures_per_address, config.lockout_seconds, clock
            )
        self.admission = Admission(config, addresses, tokens, clock, now)

    async def remind_daily(self) -> None:
        """Logs once a day that the certificate in use ends soon or has ended, for as long as it does."""
        while self.tls is not None:
            await asyncio.sleep(_DAY)
            self.tls.remind(self._now())

    def certificate_expiry(self) -> float:
        """When the certificate in use ends, in Unix time; NaN without TLS."""
        return math.nan if self.tls is None else self.tls.expires.timestamp()
