"""Certificates and tokens for the security tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from lego_server.security.quota import Limits
from lego_server.security.tokens import Token, hash_of, new_secret, read_tokens, write_tokens


@dataclass
class Authority:
    """A certificate authority and the files it has written.

    Attributes:
        path: Its own certificate.
    """

    directory: Path
    name: str = "ca"

    def __post_init__(self) -> None:
        self._ca = trustme.CA()
        self.path = self.directory / f"{self.name}.pem"
        self._ca.cert_pem.write_to_path(self.path)

    def issue(
        self, name: str, *identities: str, not_after: datetime | None = None, common_name: str | None = None
    ) -> tuple[Path, Path]:
        """Writes NAME.pem and NAME.key over what was there, as a renewal does."""
        identities = identities or ("localhost", "127.0.0.1")
        # Its beginning must lie before its end, also where that is in the past.
        not_before = None if not_after is None else min(not_after, datetime.now(UTC)) - timedelta(days=1)
        issued = self._ca.issue_cert(*identities, common_name=common_name, not_before=not_before, not_after=not_after)
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        return cert, key


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class TokenFile:
    """A token file and the secrets of the tokens in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        write_tokens(path, ())

    def add(self, name: str, *scopes: str, expires: datetime | None = None, limits: Limits | None = None) -> str:
        secret = new_secret()
        token = Token(name, hash_of(secret), scopes or ("guide",), expires=expires, limits=limits or Limits())
        write_tokens(self.path, (*read_tokens(self.path), token))
        return secret

    def revoke(self, name: str) -> None:
        write_tokens(self.path, tuple(token for token in read_tokens(self.path) if token.name != name))


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")
