"""What a wearer is told when the way to the server is not safe or not open."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from lego_client.answer import ask
from lego_client.cli import run
from lego_client.connection import Connection
from lego_client.errors import ServerError
from lego_client.events import GuidanceOptions
from lego_client.session import GuidanceClient
from lego_client.token_sources import find_token
from lego_core.errors import LegoError
from lego_server.security.config import SecurityConfig
from lego_server.security.quota import Limits

from tests.client.scenes import scene
from tests.security.conftest import Authority, TokenFile
from tests.security.serving import Clock, serving

TOKEN = "lego_0123456789abcdef"


async def connect(target: str, connection: Connection | None = None) -> str:
    async with GuidanceClient(target, 5, connection) as client:
        return client.info.model_name


async def told(target: str, connection: Connection | None = None) -> str:
    """Connects, which must fail; returns the one sentence about it."""
    with pytest.raises(ServerError) as failed:
        await connect(target, connection)
    text = str(failed.value)
    assert "\n" not in text
    return text


async def test_a_query_is_answered_over_tls_with_certificate_and_token(authority: Authority, tokens: TokenFile) -> None:
    token = tokens.add("anna")
    config = SecurityConfig(*authority.issue("server"), client_ca=authority.path, token_file=tokens.path)
    connection = Connection(True, authority.path, *authority.issue("anna", "anna@example.org"), token=token)
    async with serving(config) as server, GuidanceClient(f"localhost:{server.port}", 5, connection) as client:
        frame = await client.send_frame(scene())
        answer = await ask(client, "open the drawer", frame, source="test", options=GuidanceOptions(), time_limit=10)
        assert answer.guidance.description


@pytest.mark.parametrize("broken", ["ca", "cert", "key", "passphrase", "another key"])
def test_certificate_files_that_cannot_be_used_are_one_line_and_exit_code_2(
    broken: str, authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    cert, key = authority.issue("anna", "anna@example.org")
    ca = authority.path
    if broken == "passphrase":
        secret = load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a word")))
    elif broken == "another key":
        key = authority.issue("bert")[1]
    else:
        {"ca": ca, "cert": cert, "key": key}[broken].write_text("garbage\n")
    files = ["--ca", str(ca), "--cert", str(cert), "--key", str(key)]
    code = run(["info", "--server", "localhost:1", *files])
    told = capfd.readouterr().err
    assert code == 2, told
    assert told.count("\n") == 1 and told.startswith(f"error: {ca if broken == 'ca' else cert}")


async def test_frames_are_made_as_small_as_the_token_allows(tokens: TokenFile) -> None:
    token = tokens.add("anna", limits=Limits(max_image_pixels=10_000))
    async with (
        serving(SecurityConfig(token_file=tokens.path)) as server,
        GuidanceClient(f"localhost:{server.port}", 5, Connection(token=token)) as client,
    ):
        frame = await client.send_frame(scene())
        await ask(client, "open the drawer", frame, source="test", options=GuidanceOptions(), time_limit=10)


async def test_the_servers_own_words_on_tokens_reach_the_wearer(tokens: TokenFile) -> None:
    clock = Clock()
    old = tokens.add("anna", expires=clock.now() - timedelta(days=1))
    admin = tokens.add("root", "admin")
    async with serving(SecurityConfig(token_file=tokens.path, max_failures_per_address=2), clock=clock) as server:
        target = f"localhost:{server.port}"
        assert "the token of anna expired on" in await told(target, Connection(token=old))
        assert "the token of root is for admin" in await told(target, Connection(token=admin))
        assert f"the server at {target} refused: this server asks for a token" in await told(target)
        assert "the token is not known here" in await told(target, Connection(token=TOKEN))
        assert "busy: your address is locked out" in await told(target, Connection(token=TOKEN))


async def test_an_expired_certificate(authority: Authority) -> None:
    cert, key = authority.issue("server", not_after=datetime.now(UTC) + timedelta(seconds=1.2))
    async with serving(SecurityConfig(cert, key)) as server:
        await asyncio.sleep(1.3)  # the one clock that a test cannot set: gRPC's
        target = f"localhost:{server.port}"
        text = await told(target, Connection(tls=True, ca=authority.path))
    assert text == f"the certificate of the server at {target} has expired; its operator must renew it"


async def test_an_unknown_authority(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    async with serving(SecurityConfig(*authority.issue("server"))) as server:
        target = f"localhost:{server.port}"
        text = await told(target, Connection(tls=True, ca=other.path))
        assert text == f"nobody known vouches for the server at {target}: {other.path} is another's"
        text = await told(target, Connection(tls=True))
        assert text == f"nobody known vouches for the server at {target}: give its authority with --ca FILE"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_certificate_for_another_name(authority: Authority, host: str) -> None:
    async with serving(SecurityConfig(*authority.issue("server", "guide.example", "guide.local"))) as server:
        text = await told(f"{host}:{server.port}", Connection(tls=True, ca=authority.path))
    assert (
        f"the certificate of the server at {host}:{server.port} is for other names (guide.example, guide.local)" in text
    )


async def test_a_server_without_tls() -> None:
    async with serving(SecurityConfig()) as server:
        text = await told(f"localhost:{server.port}", Connection(tls=True))
    assert "does not speak TLS; leave --tls out" in text


async def test_a_client_without_tls(authority: Authority) -> None:
    async with serving(SecurityConfig(*authority.issue("server"))) as server:
        assert "speaks TLS only; add --tls" in await told(f"localhost:{server.port}")
    async with serving(SecurityConfig(*authority.issue("server"), client_ca=authority.path)) as server:
        assert "speaks TLS only; add --tls" in await told(f"localhost:{server.port}")


async def test_a_missing_or_unwelcome_client_certificate(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    async with serving(SecurityConfig(*authority.issue("server"), client_ca=authority.path)) as server:
        target = f"localhost:{server.port}"
        text = await told(target, Connection(True, authority.path))
        assert text == (
            f"the server at {target} hung up on seeing no client certificate: it asks for one, so give --cert and --key"
        )
        cert, key = other.issue("eve", "eve@example.org")
        text = await told(target, Connection(True, authority.path, cert, key))
        assert text == (f"the server at {target} hung up on seeing this client certificate: it does not accept {cert}")


@pytest.mark.parametrize("target", ["192.168.1.20:50051", "guide.example:50051", "[2001:db8::1]:50051"])
def test_a_token_is_not_sent_to_another_machine_in_the_clear(target: str) -> None:
    with pytest.raises(LegoError, match=r"would travel to .* in the clear.*add --tls") as refused:
        GuidanceClient(target, connection=Connection(token=TOKEN))
    assert TOKEN not in str(refused.value)
    GuidanceClient(target, connection=Connection(tls=True, token=TOKEN))
    GuidanceClient("127.0.0.1:50051", connection=Connection(token=TOKEN))


def test_a_token_does_not_show_when_a_connection_is_printed() -> None:
    assert TOKEN not in repr(Connection(token=TOKEN))


class TestWhereTheTokenComesFrom:
    def test_a_file_goes_before_the_environment(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.touch(mode=0o600)
        file.write_text(f"{TOKEN}\n")
        environment = {"LEGO_TOKEN": "lego_from_the_environment"}
        assert find_token("localhost:1", file, False, environment) == TOKEN
        assert find_token("localhost:1", None, False, environment) == "lego_from_the_environment"
        assert find_token("localhost:1", None, False, {}) == ""

    def test_a_file_that_others_may_read_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(TOKEN)
        file.chmod(0o640)
        with pytest.raises(LegoError, match=f"others on this machine may read the token in {file}.*chmod 600"):
            find_token("localhost:1", file, False, {})

    @pytest.mark.parametrize("content", ["", "two words of nothing much", '{"version": 1, "tokens": []}'])
    def test_what_is_no_token_is_refused_without_showing_it(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "token"
        file.touch(mode=0o600)
        file.write_text(content)
        with pytest.raises(LegoError, match="is no token") as refused:
            find_token("localhost:1", file, False, {})
        assert not content or content not in str(refused.value)

    def test_the_keyring_files_it_under_the_server(self, ring: Ring) -> None:
        ring.set_password("lego-ar", "guide.example:50051", TOKEN)
        assert find_token("guide.example:50051", None, True, {}) == TOKEN
        with pytest.raises(LegoError, match="no token for localhost:1; store it with: keyring set lego-ar localhost:1"):
            find_token("localhost:1", None, True, {})

    def test_a_keyring_that_is_locked_is_one_sentence(self, ring: Ring) -> None:
        ring.locked = True
        with pytest.raises(LegoError, match=r"this system's keyring cannot be used \(locked\); give the token with"):
            find_token("localhost:1", None, True, {})

    def test_without_the_keyring_package_the_cure_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "keyring", None)  # stands for one that is not installed
        with pytest.raises(LegoError, match=re.escape("pip install 'lego-ar[keyring]'")):
            find_token("localhost:1", None, True, {})


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.secrets: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked("locked")
        return self.secrets.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.secrets[service, username] = password


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


class TestCommandLine:
    async def test_info_with_tls_and_token(
        self, authority: Authority, tokens: TokenFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text(tokens.add("anna"))
        config = SecurityConfig(*authority.issue("server"), token_file=tokens.path)
        async with serving(config) as server:
            arguments = ["info", "--server", f"localhost:{server.port}", "--ca", str(authority.path)]
            assert await asyncio.to_thread(run, [*arguments, "--token-file", str(token)]) == 0
            assert "fake" in capsys.readouterr().out
            assert await asyncio.to_thread(run, arguments) == 1
            error = capsys.readouterr().err
        assert error.startswith("error: the server at") and "asks for a token" in error and error.count("\n") == 1

    def test_a_token_for_another_machine_needs_tls(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LEGO_TOKEN", TOKEN)
        assert run(["info", "--server", "guide.example:50051"]) == 2
        error = capsys.readouterr().err
        assert "would travel to guide.example in the clear" in error and TOKEN not in error

    def test_no_option_takes_the_token_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["info", "--token", TOKEN]) == 2
        assert TOKEN not in capsys.readouterr().err
