from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_core.secrecy import is_loopback
from lego_server.config import Listening, ServerConfig
from lego_server.security.access import current_access
from lego_server.security.config import SecurityConfig
from lego_server.security.exposure import exposure
from lego_server.security.protection import Security
from lego_server.server import GuidanceServer

from tests.security.conftest import Authority, TokenFile
from tests.security.serving import calling, open_session, refusal, serving
from tests.server.fake_engine import FakeEngine


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone_may_go_without_protection(host: str) -> None:
    assert is_loopback(host)
    assert exposure(SecurityConfig(), host) == ""
    Security(SecurityConfig(), [host])


async def test_on_this_machine_alone_all_callers_share_an_address_and_are_not_counted_by_it() -> None:
    async with serving(SecurityConfig(max_calls_per_address=1)) as server, calling(server) as stub:
        for _ in range(3):
            await open_session(stub)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "2001:db8::1", "guide.example", "*"])
async def test_another_address_without_protection_is_refused_with_why_and_the_cures(host: str) -> None:
    with pytest.raises(LegoError) as refused:
        GuidanceServer({"fake": FakeEngine()}, replace(ServerConfig(), server=Listening(host=host, port=0)))
    text = str(refused.value)
    assert f"{host} can be reached from other machines" in text
    assert "without encryption and without a check of who calls" in text
    assert "--tls-cert, --tls-key and --token-file" in text and "leave out --host" in text


def test_half_of_the_protection_is_refused_and_the_other_half_named(authority: Authority, tokens: TokenFile) -> None:
    cert, key = authority.issue("server")
    with pytest.raises(LegoError, match=r"and without a check of who calls anybody"):
        Security(SecurityConfig(cert, key), ["0.0.0.0"])
    with pytest.raises(LegoError, match=r"and without encryption anybody"):
        Security(SecurityConfig(token_file=tokens.path), ["0.0.0.0"])


def test_with_protection_any_address_will_do(authority: Authority, tokens: TokenFile) -> None:
    cert, key = authority.issue("server")
    Security(SecurityConfig(cert, key, token_file=tokens.path), ["0.0.0.0"])
    Security(SecurityConfig(cert, key, client_ca=authority.path), ["0.0.0.0"])


async def test_going_without_is_possible_when_said_outright_and_calls_are_still_counted_by_address() -> None:
    config = SecurityConfig(allow_insecure=True, max_calls_per_address=1)
    async with serving(config, host="0.0.0.0") as server, calling(server) as stub:
        assert "without encryption and without a check of who calls" in server.exposure_warning
        await open_session(stub)
        assert "your address has 1 calls open" in ((await refusal(stub)).details() or "")


def test_what_does_not_run_for_a_call_has_no_rights() -> None:
    with pytest.raises(LookupError):
        current_access()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tls_cert": Path("a.pem")}, "--tls-cert is given without --tls-key"),
        ({"tls_key": Path("a.key")}, "--tls-key is given without --tls-cert"),
        ({"client_ca": Path("a.pem")}, "--client-ca asks clients for certificates, which needs TLS"),
        ({"lockout_seconds": 0}, "lockout_seconds is 0; it must lie between 1 and 86400"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(LegoError, match=told):
        SecurityConfig(**settings)  # type: ignore[arg-type]


def test_nothing_is_logged_where_nothing_lacks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Security(SecurityConfig(), ["127.0.0.1"])
    assert not caplog.records
