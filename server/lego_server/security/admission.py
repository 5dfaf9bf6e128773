"""Who is let in: every call is counted by its address, then known by its token or certificate, whatever carries it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from lego_server.failures import Reason, RequestError
from lego_server.refusals import Refusal
from lego_server.security.access import Access
from lego_server.security.addresses import AddressBook
from lego_server.security.config import SecurityConfig
from lego_server.security.quota import CROWDED_RETRY_SECONDS, Limits, Usage
from lego_server.security.reloading import Reloading
from lego_server.security.tokens import Token, find_token, hash_of

GUIDE_METHOD = "/lego.v1.Guidance/Guide"
# Orchestrators ask it without a token; it tells no more than whether the server is up.
_OPEN_METHODS = ("/grpc.health.v1.Health/Check",)
_GUIDE_PREFIX = "/lego.v1.Guidance/"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who makes a call, as far as its transport can tell.

    Attributes:
        address: What its address counts as; see `addresses.py`.
        secret: The token it shows; None if it shows none, or none that can be read.
        advice: How to show one, for a caller who has not.
        certificate_name: The common name in its client certificate; empty where it has shown none.
    """

    address: str
    secret: str | None
    advice: str
    certificate_name: str = ""


class Admission:
    """Lets callers in, or refuses them. Belongs to one event loop.

    Attributes:
        on_refusal: Told why, at every refusal: "address_calls", "locked_out", "unauthenticated", "scope" or
            "token_calls".
    """

    def __init__(
        self,
        config: SecurityConfig,
        addresses: AddressBook | None,
        tokens: Reloading[tuple[Token, ...]] | None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Guards a server; without addresses and tokens, everybody is welcome, as on one's own machine."""
        self._config = config
        self._addresses = addresses
        self._tokens = tokens
        self._clock = clock
        self._now = now
        self._usage: dict[str, Usage] = {}
        self.on_refusal: Callable[[str], None] = lambda reason: None

    @property
    def counts_addresses(self) -> bool:
        """Whether one address may take only so much."""
        return self._addresses is not None

    @contextmanager
    def admitted(self, method: str, caller: Caller) -> Iterator[Access]:
        """Counts a call in while it lasts, and gives its rights.

        Args:
            method: As gRPC names it, such as `/lego.v1.Guidance/Guide`.
            caller: Who makes the call.

        Raises:
            Refusal: Too many calls, no good token, or one without the right.
        """
        addresses = self._addresses
        if addresses is None:
            yield Access()
            return
        if not addresses.enter(caller.address):
            self.on_refusal("address_calls")
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"your address has {self._config.max_calls_per_address} calls open, its limit; close some first",
                CROWDED_RETRY_SECONDS,
            )
        try:
            if method in _OPEN_METHODS:
                yield Access()
            elif self._tokens is None:
                yield Access(caller.certificate_name or caller.address, wearer=caller.certificate_name)
            else:
                yield from self._with_token(self._tokens, addresses, method, caller)
        finally:
            addresses.leave(caller.address)

    def _with_token(
        self, tokens: Reloading[tuple[Token, ...]], addresses: AddressBook, method: str, caller: Caller
    ) -> Iterator[Access]:
        locked = addresses.lockout(caller.address)
        if locked:
            self.on_refusal("locked_out")
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"your address is locked out after {self._config.max_failures_per_address} calls without a good token; "
                f"try again in {math.ceil(locked)} s",
                locked,
            )
        if caller.secret is None:
            self._note_failure(addresses, caller.address)
            self.on_refusal("unauthenticated")
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, f"this server asks for a token: {caller.advice}")
        sha256 = hash_of(caller.secret)
        token = find_token(tokens.current(), sha256)
        if token is None:
            self._note_failure(addresses, caller.address)
            self.on_refusal("unauthenticated")
            raise Refusal(
                grpc.StatusCode.UNAUTHENTICATED,
                "the token is not known here: it is mistyped, revoked or another server's; ask the operator for a new "
                "one",
            )
        if token.expired(self._now()):  # not a guess, so it does not count towards the lock-out
            self.on_refusal("unauthenticated")
            raise Refusal(grpc.StatusCode.UNAUTHENTICATED, _expired(token))
        addresses.succeeded(caller.address)
        scope = "guide" if method.startswith(_GUIDE_PREFIX) else "admin"
        if scope not in token.scopes:
            self.on_refusal("scope")
            raise Refusal(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the token of {token.name} is for {' and '.join(token.scopes)}; {method} needs one for {scope}",
            )
        usage = self._usage_of(sha256, tokens.current())
        limit = token.limits.sessions
        if limit is not None and usage.sessions >= limit:
            self.on_refusal("token_calls")
            raise Refusal(
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
            yield Access(token.name, limits, usage, self._clock, token.name)
        finally:
            usage.sessions -= 1

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


def _expired(token: Token) -> str:
    return f"the token of {token.name} expired on {token.expires:%Y-%m-%d %H:%M} UTC; ask the operator for a new one"
