"""The token file and the commands that keep it."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lego_core.command import run_command
from lego_core.errors import LegoError
from lego_server.security.commands import token_app
from lego_server.security.tokens import find_token, hash_of, new_secret, read_tokens

from tests.security.conftest import TokenFile


def run(*arguments: object) -> int:
    return run_command(token_app, "lego-server token", [str(argument) for argument in arguments])


def test_create_prints_the_token_once_and_stores_only_its_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens.json"
    assert run("create", "anna", "--file", file, "--days", 90, "--queries-per-minute", 30, "--live-queries", 2) == 0
    secret = capsys.readouterr().out.strip()
    assert re.fullmatch(r"lego_[\w-]{43}", secret)  # 256 bits
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (token,) = read_tokens(file)
    assert find_token((token,), hash_of(secret)) is token
    assert token.scopes == ("guide",) and (token.expires - token.created).days == 90  # type: ignore[operator]
    assert (token.limits.queries_per_minute, token.limits.live_queries, token.limits.sessions) == (30, 2, None)


def test_list_shows_names_scopes_expiry_and_limits_but_no_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "tokens.json"
    run("create", "anna", "--file", file, "--sessions", 3)
    run("create", "root", "--file", file, "--scope", "guide", "--scope", "admin", "--days", 1)
    capsys.readouterr()
    assert run("list", "--file", file) == 0
    shown = capsys.readouterr().out
    assert re.search(r"anna +guide +\S+ +never +sessions 3", shown)
    assert re.search(r"root +guide, admin +\S+ +\S+ \S+ +none", shown)
    assert all(token.sha256[:12] not in shown for token in read_tokens(file))


def test_revoke_takes_one_token_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokens.json"
    run("create", "anna", "--file", file)
    run("create", "bert", "--file", file)
    assert run("revoke", "anna", "--file", file) == 0
    assert [token.name for token in read_tokens(file)] == ["bert"]
    capsys.readouterr()
    assert run("revoke", "anna", "--file", file) == 2
    assert capsys.readouterr().err == f"error: {file} has no token of anna; it has bert\n"


def test_commands_at_the_same_time_lose_nothing_and_bring_nothing_back(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    for number in range(4):
        run("create", f"old{number}", "--file", file)
    command = [sys.executable, "-m", "lego_server", "token"]
    asked = [("create", f"new{number}") for number in range(6)] + [("revoke", f"old{number}") for number in range(4)]
    processes = [
        subprocess.Popen([*command, *words, "--file", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for words in asked
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert {token.name for token in read_tokens(file)} == {f"new{number}" for number in range(6)}
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.json"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create", "anna", "--file", tmp_path / "none" / "tokens.json") == 2
    assert "cannot be locked (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("anna",), "has a token of anna already"),
        (("a b",), "a token's name is 'a b'"),
        (("bert", "--days", "0"), "days is 0"),
        (("bert", "--sessions", "0"), "sessions is 0; it must be a whole number from 1"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused_and_nothing_is_written(
    tokens: TokenFile, arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens.add("anna")
    before = tokens.path.read_text()
    assert run("create", *arguments, "--file", tokens.path) == 2
    assert told in capsys.readouterr().err
    assert tokens.path.read_text() == before


def test_a_file_that_others_may_change_is_refused(tokens: TokenFile) -> None:
    tokens.path.chmod(0o660)
    with pytest.raises(LegoError, match=r"others on this machine may change the token file .*chmod 600"):
        read_tokens(tokens.path)


def test_a_file_that_others_may_read_is_warned_of(tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    tokens.path.chmod(0o644)
    assert read_tokens(tokens.path) == ()
    assert "others on this machine may read the names" in caplog.text


GOOD = {"name": "anna", "sha256": hash_of(new_secret()), "created": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("[]", 'must be {"version": 1'),
        ({"version": 2, "tokens": []}, 'must be {"version": 1'),
        ({"version": 1}, 'must be {"version": 1'),
        ({"version": 1, "tokens": ["x"]}, "is no token"),
        ({"version": 1, "tokens": [{"name": "anna"}]}, "lacks 'sha256'"),
        ({"version": 1, "tokens": [GOOD, GOOD]}, "has the name anna twice"),
        ({"version": 1, "tokens": [{**GOOD, "querys_per_minute": 3}]}, "'querys_per_minute' is no setting of a token"),
        ({"version": 1, "tokens": [{**GOOD, "scopes": ["root"]}]}, "choose from guide, admin"),
        ({"version": 1, "tokens": [{**GOOD, "scopes": []}]}, "are none; choose from"),
        ({"version": 1, "tokens": [{**GOOD, "expires": "2026-01-01T00:00:00"}]}, "add the time zone"),
        ({"version": 1, "tokens": [{**GOOD, "expires": "soon"}]}, "cannot be used"),
        ({"version": 1, "tokens": [{**GOOD, "sessions": "3"}]}, "sessions is '3'; it must be a whole number"),
        ({"version": 1, "tokens": [{**GOOD, "sha256": "lego_secret"}]}, "is not 64 hexadecimal digits"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_says_where(tmp_path: Path, content: Any, told: str) -> None:
    file = tmp_path / "tokens.json"
    file.touch(mode=0o600)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(LegoError, match=re.escape(told)):
        read_tokens(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=f"the token file {tmp_path / 'none'} cannot be read"):
        read_tokens(tmp_path / "none")
