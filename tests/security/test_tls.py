from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from lego_core.errors import LegoError
from lego_server.security import protection
from lego_server.security.config import SecurityConfig
from lego_server.security.tls import TlsFiles, certificate_expiry

from tests.security.conftest import Authority
from tests.security.serving import Clock, calling, info, refusal, serving
from tests.server.harness import eventually


def served_certificate(port: int) -> x509.Certificate:
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode())


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def test_a_query_travels_over_tls_and_not_in_the_clear(authority: Authority) -> None:
    async with serving(SecurityConfig(*authority.issue("server"))) as server:
        async with calling(server, authority.path) as stub:
            assert (await info(stub)).model_name == "fake"
        async with calling(server) as stub:
            assert (await refusal(stub)).code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(("version", "served"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
async def test_old_versions_of_tls_are_not_spoken(authority: Authority, version: str, served: bool) -> None:
    context = ssl.create_default_context(cafile=authority.path)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else it would be this side that refuses
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_alpn_protocols(["h2"])
    async with serving(SecurityConfig(*authority.issue("server"))) as server:
        with socket.create_connection(("127.0.0.1", server.port), 5) as plain:
            try:
                with context.wrap_socket(plain, server_hostname="localhost"):
                    assert served
            except ssl.SSLError as error:
                assert not served, error


async def test_with_a_client_ca_only_holders_of_its_certificates_get_in(authority: Authority, tmp_path: Path) -> None:
    config = SecurityConfig(*authority.issue("server"), client_ca=authority.path)
    stranger = Authority(tmp_path, "other-ca")
    async with serving(config) as server:
        async with calling(server, authority.path, *authority.issue("anna", "anna@example.org")) as stub:
            assert (await info(stub)).model_name == "fake"
        async with calling(server, authority.path) as stub:
            assert (await refusal(stub)).code() is grpc.StatusCode.UNAVAILABLE
        async with calling(server, authority.path, *stranger.issue("eve", "eve@example.org")) as stub:
            assert (await refusal(stub)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_renewed_certificate_is_served_without_a_restart(authority: Authority) -> None:
    cert, key = authority.issue("server")
    async with serving(SecurityConfig(cert, key)) as server, calling(server, authority.path) as stub:
        first = serial(cert)
        assert served_certificate(server.port).serial_number == first
        await info(stub)
        authority.issue("server")
        assert served_certificate(server.port).serial_number == serial(cert) != first
        await info(stub)  # a connection made before goes on
        async with calling(server, authority.path) as later:
            await info(later)


async def test_a_renewed_client_ca_lets_others_in(authority: Authority, tmp_path: Path) -> None:
    accepted = tmp_path / "clients.pem"
    accepted.write_bytes(authority.path.read_bytes())
    other = Authority(tmp_path, "other-ca")
    theirs = other.issue("bert", "bert@example.org")
    async with serving(SecurityConfig(*authority.issue("server"), client_ca=accepted)) as server:
        async with calling(server, authority.path, *theirs) as stub:
            await refusal(stub)
        accepted.write_bytes(other.path.read_bytes())
        async with calling(server, authority.path, *theirs) as stub:
            await info(stub)


async def test_a_broken_renewal_keeps_the_old_certificate_and_is_logged_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = authority.issue("server")
    first = serial(cert)
    async with serving(SecurityConfig(cert, key)) as server:
        cert.write_text("half a certif")
        for _ in range(3):
            assert served_certificate(server.port).serial_number == first
        errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "has changed but cannot be used, so the old one stays" in errors[0] and "PEM" in errors[0]

        authority.issue("server")
        assert served_certificate(server.port).serial_number == serial(cert) != first


async def test_certificate_and_key_may_be_replaced_one_after_the_other(authority: Authority) -> None:
    cert, key = authority.issue("server")
    first = serial(cert)
    async with serving(SecurityConfig(cert, key)) as server:
        new_cert, new_key = authority.issue("renewed")
        os.replace(new_cert, cert)
        assert served_certificate(server.port).serial_number == first
        os.replace(new_key, key)
        assert served_certificate(server.port).serial_number == serial(cert) != first


async def test_when_the_certificate_in_use_ends_can_be_asked(authority: Authority) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=90)
    cert, key = authority.issue("server", not_after=ends)
    files = TlsFiles(cert, key)
    assert files.expires == certificate_expiry(cert) == ends
    authority.issue("server", not_after=ends + timedelta(days=90))
    assert files.expires == ends + timedelta(days=90)


def test_a_certificate_about_to_expire_is_warned_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    cert, key = authority.issue("server", not_after=datetime.now(UTC) + timedelta(days=3))
    TlsFiles(cert, key)
    assert f"the certificate {cert} expires on" in caplog.text


def test_an_expired_certificate_is_refused_at_start(authority: Authority) -> None:
    cert, key = authority.issue("server", not_after=datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(LegoError, match=f"the certificate {cert} expired on .*; renew it"):
        TlsFiles(cert, key)


def test_a_key_of_another_certificate_is_refused_at_start(authority: Authority) -> None:
    cert, _ = authority.issue("server")
    _, key = authority.issue("other")
    with pytest.raises(LegoError, match=f"the private key {key} does not belong to the certificate {cert}"):
        TlsFiles(cert, key)


def test_a_key_that_others_may_read_is_refused_at_start(authority: Authority) -> None:
    cert, key = authority.issue("server")
    key.chmod(0o644)
    with pytest.raises(LegoError, match=f"others on this machine may read the private key {key} .*chmod 600"):
        TlsFiles(cert, key)


def test_a_key_with_a_passphrase_is_refused_at_start(authority: Authority) -> None:
    cert, key = authority.issue("server")
    secret = load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")))
    with pytest.raises(LegoError, match="has a passphrase"):
        TlsFiles(cert, key)


def test_missing_files_are_named(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("server")
    with pytest.raises(LegoError, match=f"the private key {tmp_path / 'none'} cannot be read"):
        TlsFiles(cert, tmp_path / "none")
    with pytest.raises(LegoError, match=f"{tmp_path / 'none'} cannot be read"):
        TlsFiles(tmp_path / "none", key)
    with pytest.raises(LegoError, match=f"{tmp_path / 'none'} cannot be read"):
        TlsFiles(cert, key, tmp_path / "none")


async def test_connections_beyond_the_limit_are_closed(authority: Authority) -> None:
    config = SecurityConfig(*authority.issue("server"), max_connections=3)
    context = ssl.create_default_context(cafile=authority.path)
    context.set_alpn_protocols(["h2"])
    async with serving(config) as server:
        opened: list[ssl.SSLSocket] = []
        try:
            with pytest.raises(OSError):
                for _ in range(8):
                    plain = socket.create_connection(("127.0.0.1", server.port), 5)
                    opened.append(context.wrap_socket(plain, server_hostname="localhost"))
                    assert opened[-1].recv(9)  # the server's HTTP/2 settings
        finally:
            for connection in opened:
                connection.close()
        assert 3 <= len(opened) < 8


async def test_a_running_server_says_every_day_that_its_certificate_ends_or_has_ended(
    authority: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protection, "_DAY", 0.01)
    clock = Clock()
    config = SecurityConfig(*authority.issue("server", not_after=clock.now() + timedelta(days=30)))

    def told() -> set[tuple[int, str]]:
        return {(each.levelno, "expired" if "expired on" in each.message else "expires") for each in caplog.records}

    async with serving(config, clock=clock):
        await asyncio.sleep(0.1)
        assert told() == set()
        clock.seconds += 20 * 86_400
        await eventually(lambda: told() == {(logging.WARNING, "expires")})
        clock.seconds += 20 * 86_400
        await eventually(lambda: (logging.ERROR, "expired") in told())
