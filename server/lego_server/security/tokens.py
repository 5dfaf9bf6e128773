"""Bearer tokens: made, kept as hashes in a file, recognised.

A token is 256 random bits, so nobody can try them all, and a plain SHA-256 of it gives nothing away. The slow, salted
hashes that passwords need would only make every call slow. The file is JSON, which a person can read and edit; the
token itself is nowhere in it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError
from lego_core.files import read_json
from lego_core.secrecy import OTHERS_AND_GROUP, WRITABLE_BY_OTHERS, refuse_exposed

from lego_server.security.quota import Limits

SCOPES = ("guide", "admin")
PREFIX = "lego_"  # lets scanners for leaked secrets recognise one
_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Token:
    """What the server knows of a token.

    Attributes:
        name: Of its holder; in logs and lists.
        sha256: Of the token, in hexadecimal.
        scopes: "guide": ask for guidance. "admin": look into the server by reflection and health streams.
        created: When it was made.
        expires: When it ends; None for never.
        limits: What its holder may use.
    """

    name: str
    sha256: str
    scopes: tuple[str, ...] = ("guide",)
    created: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    expires: datetime | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.@-]{1,64}", self.name):
            raise LegoError(f"a token's name is {self.name!r}; give 1 to 64 letters, digits or any of . _ - @")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise LegoError(f"sha256 of token {self.name} is not 64 hexadecimal digits; make a new token")
        if not self.scopes or not set(self.scopes) <= set(SCOPES):
            raise LegoError(
                f"the scopes of token {self.name} are {', '.join(self.scopes) or 'none'}; choose from "
                f"{', '.join(SCOPES)}"
            )
        if self.expires is not None and self.expires.tzinfo is None:
            raise LegoError(f"token {self.name} expires at {self.expires}; add the time zone, such as +00:00")

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now


def new_secret() -> str:
    """Returns a new token, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """Returns what is kept of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def find_token(tokens: tuple[Token, ...], sha256: str) -> Token | None:
    """Returns the token with a hash, expired or not; always looks at all, so that the time taken tells nothing."""
    found = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, sha256):
            found = token
    return found


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Reads a token file; one that others may read is warned of, as hashes help nobody but names may.

    Raises:
        LegoError: It is missing, others may change it, or something in it makes no sense.
    """
    refuse_exposed(path, WRITABLE_BY_OTHERS, "the token file")
    try:
        refuse_exposed(path, OTHERS_AND_GROUP, "the token file")
    except LegoError:
        _log.warning("others on this machine may read the names in the token file %s: run chmod 600 on it", path)
    try:
        content = read_json(path)
    except OSError as error:
        raise LegoError(f"the token file {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise LegoError(f"the token file {path} is no JSON ({error}); make one with lego-server token create") from (
            error
        )
    entries = content.get("tokens") if isinstance(content, dict) and content.get("version") == _VERSION else None
    if not isinstance(entries, list):
        raise LegoError(
            f'the token file {path} must be {{"version": {_VERSION}, "tokens": [...]}}; see docs/security.md'
        )
    tokens = tuple(_token(path, entry) for entry in entries)
    names = [token.name for token in tokens]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise LegoError(f"the token file {path} has the name {doubled[0]} twice; rename or remove one")
    return tokens


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Waits until nobody else changes the token file, there or not yet there, and keeps all others waiting meanwhile.

    Raises:
        LegoError: Its folder cannot be locked.
    """
    import fcntl  # not on Windows, where token files can be read

    # Of the folder: the file itself is replaced by each change, and a file for locking alone would be left behind.
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            os.close(folder)
            raise
    except OSError as error:
        raise LegoError(f"the folder of the token file {path} cannot be locked ({error.strerror})") from error
    try:
        yield
    finally:
        os.close(folder)  # and gives up the lock


def write_tokens(path: Path, tokens: tuple[Token, ...]) -> None:
    """Writes a token file, readable by its owner only; a running server sees the old one or the new one, never half."""
    content = {"version": _VERSION, "tokens": [_entry(token) for token in tokens]}
    # mkstemp makes files with mode 0600.
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise LegoError(f"the token file {path} cannot be written ({error.strerror}); give --file another") from error
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        if path.exists():  # root must not take the file away from the user the server runs as
            os.chown(name, path.stat().st_uid, path.stat().st_gid)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _entry(token: Token) -> dict[str, Any]:
    entry = {**asdict(token), **asdict(token.limits), "scopes": list(token.scopes)}
    del entry["limits"]
    entry["created"] = token.created.isoformat()
    entry["expires"] = token.expires and token.expires.isoformat()
    return {key: value for key, value in entry.items() if value is not None}


def _token(path: Path, entry: object) -> Token:
    limit_names = {f.name for f in fields(Limits)}
    try:
        if not isinstance(entry, dict):
            raise LegoError(f"{entry!r} is no token")
        unknown = set(entry) - limit_names - {f.name for f in fields(Token)} | set(entry) & {"limits"}
        if unknown:  # a limit mistyped would be no limit
            raise LegoError(f"{sorted(unknown)[0]!r} is no setting of a token")
        expires = entry.get("expires")
        return Token(
            name=str(entry["name"]),
            sha256=str(entry["sha256"]),
            scopes=tuple(entry.get("scopes", ("guide",))),
            created=datetime.fromisoformat(entry["created"]),
            expires=None if expires is None else datetime.fromisoformat(expires),
            limits=Limits(**{key: value for key, value in entry.items() if key in limit_names}),
        )
    except KeyError as error:
        raise LegoError(f"a token in {path} lacks {error.args[0]!r}") from error
    except (LegoError, TypeError, ValueError) as error:
        raise LegoError(f"a token in {path} cannot be used: {error}") from error
