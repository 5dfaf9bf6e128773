"""Where a client's token comes from: a file, the environment or the system's keyring; never the command line.

What stands on a command line, every user of the machine can read in the list of processes, and the shell writes down.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.secrecy import OTHERS_AND_GROUP, refuse_exposed

VARIABLE = "LEGO_TOKEN"
KEYRING_SERVICE = "lego-ar"


def find_token(
    target: str, token_file: Path | None, use_keyring: bool, environment: Mapping[str, str] = os.environ
) -> str:
    """Returns the token to show a server, or "" if there is none.

    Args:
        target: HOST:PORT; what the keyring files the token under.
        token_file: A file with nothing else in it; goes before everything.
        use_keyring: Ask the system's keyring; goes before the environment.
        environment: Its `LEGO_TOKEN` is taken if neither is given.

    Raises:
        LegoError: The file or the keyring was asked for and has no token, or what it has is none.
    """
    if token_file is not None and use_keyring:
        raise LegoError("both --token-file and --keyring are given; choose one")
    if token_file is not None:
        return _checked(_from_file(token_file), str(token_file))
    if use_keyring:
        return _checked(_from_keyring(target), "the keyring")
    token = environment.get(VARIABLE, "").strip()
    return _checked(token, VARIABLE) if token else ""


def _from_file(path: Path) -> str:
    refuse_exposed(path, OTHERS_AND_GROUP, "the token in")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LegoError(f"the token file {path} cannot be read ({error})") from error


def _from_keyring(target: str) -> str:
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        raise LegoError("--keyring needs the package keyring: pip install 'lego-ar[keyring]'") from error
    try:
        token: str | None = keyring.get_password(KEYRING_SERVICE, target)
    except keyring.errors.KeyringError as error:
        raise LegoError(
            f"this system's keyring cannot be used ({error}); give the token with --token-file or in {VARIABLE}"
        ) from error
    if token is None:
        raise LegoError(f"the keyring has no token for {target}; store it with: keyring set {KEYRING_SERVICE} {target}")
    return token.strip()


def _checked(token: str, source: str) -> str:
    if not re.fullmatch(r"[!-~]{16,512}", token):  # printable ASCII, as in a header; never shown
        raise LegoError(f"what {source} holds is no token; give the one line that lego-server token create printed")
    return token
