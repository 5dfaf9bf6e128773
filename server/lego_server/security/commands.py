"""`lego-server token`: make, list and revoke tokens."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from lego_core.errors import LegoError
from rich.console import Console
from rich.table import Table

from lego_server.security.quota import Limits
from lego_server.security.tokens import SCOPES, Token, changing, hash_of, new_secret, read_tokens, write_tokens


class Scope(StrEnum):
    """What a token is for."""

    guide = "guide"
    admin = "admin"


assert tuple(Scope) == SCOPES

token_app = typer.Typer(
    help="Makes, lists and revokes the tokens that clients show.", no_args_is_help=True, add_completion=False
)
File = Annotated[Path, typer.Option("--file", help="The token file; a running server reads it again when it changes.")]
Name = Annotated[str, typer.Argument(help="Of the token's holder, as it will stand in lists and logs.")]


@token_app.command()
def create(
    name: Name,
    file: File,
    scope: Annotated[list[Scope] | None, typer.Option(help="What it is for; may be given twice.")] = None,
    days: Annotated[int | None, typer.Option(help="Days until it expires; default: never.")] = None,
    queries_per_minute: Annotated[int | None, typer.Option(help="Queries a minute; default: no limit.")] = None,
    live_queries: Annotated[int | None, typer.Option(help="Queries being answered at once.")] = None,
    sessions: Annotated[int | None, typer.Option(help="Sessions and other calls open at once.")] = None,
    max_image_pixels: Annotated[int | None, typer.Option(help="Largest frame, width times height.")] = None,
    speech_seconds_per_minute: Annotated[
        int | None, typer.Option(help="Speech written down a minute, in seconds.")
    ] = None,
) -> None:
    """Make a token and print it, this once: the file keeps only its hash."""
    if days is not None and not 1 <= days <= 36_500:
        raise LegoError(f"days is {days}; it must lie between 1 and 36500")
    secret, now = new_secret(), datetime.now(UTC).replace(microsecond=0)
    token = Token(
        name, hash_of(secret), tuple(s.value for s in scope or [Scope.guide]), now,
        None if days is None else now + timedelta(days=days),
        Limits(queries_per_minute, live_queries, sessions, max_image_pixels, speech_seconds_per_minute),
    )  # fmt: skip
    with changing(file):
        tokens = read_tokens(file) if file.exists() else ()
        if any(known.name == name for known in tokens):
            raise LegoError(f"{file} has a token of {name} already; revoke that one or choose another name")
        write_tokens(file, (*tokens, token))
    print(secret)
    print(f"token of {name} added to {file}; it is shown this once", file=sys.stderr)


@token_app.command("list")
def list_tokens(file: File) -> None:
    """List tokens by name, with their scopes, expiry and limits."""
    table = Table("name", "scopes", "created", "expires", "limits", box=None)
    now = datetime.now(UTC)
    for token in read_tokens(file):
        limits = ", ".join(f"{name} {value}" for name, value in vars(token.limits).items() if value is not None)
        expires = "never" if token.expires is None else f"{token.expires:%Y-%m-%d %H:%M}"
        if token.expired(now):
            expires += " (expired)"
        table.add_row(token.name, ", ".join(token.scopes), f"{token.created:%Y-%m-%d}", expires, limits or "none")
    Console().print(table)


@token_app.command()
def revoke(name: Name, file: File) -> None:
    """Take a token away; a running server refuses it from its next call or query on."""
    with changing(file):
        tokens = read_tokens(file)
        kept = tuple(token for token in tokens if token.name != name)
        if len(kept) == len(tokens):
            known = ", ".join(token.name for token in tokens) or "none"
            raise LegoError(f"{file} has no token of {name}; it has {known}")
        write_tokens(file, kept)
    print(f"token of {name} revoked", file=sys.stderr)
