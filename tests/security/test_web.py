"""Who is let in through the gateway, and from which pages."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.gateway.config import WebSettings
from lego_server.gateway.origins import Origins
from lego_server.security.config import SecurityConfig
from lego_server.security.protection import Security
from lego_server.security.quota import Limits
from lego_server.server import GuidanceServer

from tests.security.conftest import Authority, TokenFile
from tests.security.serving import Clock, calling, info, open_session, refusal, serving
from tests.security.test_tls import serial, served_certificate
from tests.server.fake_engine import FakeEngine
from tests.server.harness import eventually, picture
from tests.server.web import WebClient, handshake_refusal, http, web_connection, web_refusal, web_session

INVALID, DENIED, EXHAUSTED, UNAUTHENTICATED = 4003, 4007, 4008, 4016


def trusting(authority: Authority, *certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.path)
    if certificate:
        context.load_cert_chain(*certificate)
    return context


async def answered(client: WebClient, query_id: int = 1) -> pb.GuidanceResult:
    await client.frame(query_id)
    await client.query(query_id)
    return await client.result()


async def test_a_session_is_opened_with_a_token_that_is_not_sent_back(tokens: TokenFile) -> None:
    secret = tokens.add("anna")
    async with serving(SecurityConfig(token_file=tokens.path), web__port=0) as server:
        async with web_session(server, secret) as client:
            assert client.socket.response is not None
            assert client.socket.response.headers.get_all("Sec-WebSocket-Protocol") == ["lego.v1"]
            assert (await answered(client)).image
        bearing = {"additional_headers": {"Authorization": f"Bearer {secret}"}}
        async with web_session(server, **bearing) as client:
            assert (await answered(client)).image


async def test_without_a_good_token_there_is_no_session_and_the_close_says_why(tokens: TokenFile) -> None:
    secret, admin = tokens.add("anna"), tokens.add("root", "admin")
    async with serving(SecurityConfig(token_file=tokens.path), web__port=0) as server:
        code, reason = await web_refusal(server)
        assert code == UNAUTHENTICATED and reason == "this server asks for a token: give the page one"
        for offered in (["lego.v1", "bearer."], ["lego.v1", f"bearer.{secret}", f"bearer.{secret}"]):
            assert (await web_refusal(server, subprotocols=offered))[0] == UNAUTHENTICATED
        code, reason = await web_refusal(server, secret[:-1] + ("A" if secret[-1] != "A" else "B"))
        assert code == UNAUTHENTICATED and "mistyped, revoked or another server's" in reason
        code, reason = await web_refusal(server, admin)
        assert code == DENIED and "the token of root is for admin" in reason
        assert server.sessions == 0


async def test_a_token_ends_for_browsers_when_it_expires_or_is_revoked(tokens: TokenFile) -> None:
    clock = Clock()
    anna = tokens.add("anna", expires=clock.began + timedelta(hours=1))
    bert = tokens.add("bert")
    async with (
        serving(SecurityConfig(token_file=tokens.path), clock=clock, web__port=0) as server,
        web_session(server, anna) as expiring,
        web_session(server, bert) as revoked,
    ):
        await answered(expiring)
        await answered(revoked)
        clock.seconds += 3601
        tokens.revoke("bert")
        for client, secret, told in ((expiring, anna, "expired on"), (revoked, bert, "has been revoked")):
            await client.query(2)
            assert told in (await client.error()).message
            assert (await web_refusal(server, secret))[0] == UNAUTHENTICATED


async def test_an_address_that_keeps_failing_is_locked_out_of_both_doors(tokens: TokenFile) -> None:
    clock = Clock()
    secret = tokens.add("anna")
    config = SecurityConfig(token_file=tokens.path, max_failures_per_address=3, lockout_seconds=60)
    async with serving(config, clock=clock, web__port=0) as server, calling(server) as stub:
        await web_refusal(server, "lego_wrong")
        await refusal(stub, "lego_wrong")
        await web_refusal(server)
        clock.seconds += 20
        told = "your address is locked out after 3 calls without a good token; try again in 40 s"
        assert await web_refusal(server, secret) == (EXHAUSTED, f"retry-after-ms=40000 {told}")
        assert (await refusal(stub, secret)).details() == told
        clock.seconds += 41
        async with web_session(server, secret) as client:
            await answered(client)


async def test_calls_of_a_token_and_an_address_are_counted_over_both_transports(tokens: TokenFile) -> None:
    secret = tokens.add("anna", limits=Limits(sessions=2))
    async with serving(SecurityConfig(token_file=tokens.path), web__port=0) as server, calling(server) as stub:
        call = await open_session(stub, secret)
        async with web_session(server, secret):
            code, reason = await web_refusal(server, secret)
            assert code == EXHAUSTED
            assert reason == "retry-after-ms=5000 the token of anna has 2 calls open, its limit; close one first"
            assert (await refusal(stub, secret)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await info(stub, secret)
        call.call.cancel()
    config = SecurityConfig(token_file=tokens.path, max_calls_per_address=1)
    async with serving(config, web__port=0) as server, web_session(server, secret):
        code, reason = await web_refusal(server, secret)
        assert code == EXHAUSTED and "your address has 1 calls open, its limit" in reason


async def test_limits_of_a_token_hold_for_browsers(tokens: TokenFile) -> None:
    secret = tokens.add("anna", limits=Limits(queries_per_minute=1, max_image_pixels=100 * 100))
    async with (
        serving(SecurityConfig(token_file=tokens.path), web__port=0) as server,
        web_connection(server, secret) as client,
    ):
        assert (await client.read()).session_started.server.max_image_pixels == 10_000
        await client.frame(1, picture(size=(160, 90)))
        await client.query(1)
        assert "this token allows 10000" in (await client.error()).message
        await client.frame(2, picture(size=(90, 90)))
        await client.query(2)
        await client.result()
        await client.query(3)
        assert "1 queries a minute" in (await client.error()).message


async def test_a_session_is_resumed_only_by_whoever_opened_it(tokens: TokenFile) -> None:
    anna, bert = tokens.add("anna"), tokens.add("bert")
    async with serving(SecurityConfig(token_file=tokens.path), web__port=0) as server:
        async with web_connection(server, anna) as client:
            token = (await client.read()).session_started.resume_token
            client.cut()
        found = []
        for secret in (bert, anna):
            async with web_session(server, secret) as client:
                await client.write(pb.GuideRequest(resume=pb.Resume(token=token)))
                found.append((await client.read()).session_started.resumed)
    assert found == [False, True]


async def test_a_strangers_message_is_not_taken_in(tokens: TokenFile) -> None:
    async with serving(SecurityConfig(token_file=tokens.path), web__port=0) as server:
        assert server.gateway is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", server.gateway.port)
        writer.write(
            b"GET /guide HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: lego.v1\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        closed = await reader.readexactly(4)
        assert closed[0] == 0x88 and int.from_bytes(closed[2:]) == UNAUTHENTICATED
        writer.write(b"\x82\xff" + (2**30).to_bytes(8) + bytes(4))  # a gigabyte is to come
        with pytest.raises(OSError):
            while True:  # until it is cut off
                writer.write(bytes(2**16))
                await writer.drain()


@pytest.mark.parametrize("tls", [False, True])
async def test_another_page_cannot_open_a_session(tls: bool, authority: Authority) -> None:
    config = SecurityConfig(*authority.issue("server")) if tls else SecurityConfig()
    settings = {"ssl": trusting(authority)} if tls else {}
    ours = "https" if tls else "http"
    async with serving(config, web__port=0, web__allowed_origins=("https://guide.example",)) as server:
        assert server.gateway is not None
        port = server.gateway.port
        for origin in (f"{ours}://localhost:{port}", f"{ours.upper()}://LOCALHOST:{port}", "https://guide.example:443"):
            async with web_session(server, origin=origin, **settings):
                pass
        for origin in (
            "https://evil.example", "null", "file://", f"{ours}://localhost", f"{ours}://localhost:{port}.evil.example",
            f"ftp://localhost:{port}", f"{ours}://127.0.0.1:{port}", "https://guide.example:8443", "http://guide.example",
            f"{ours}://evil.example@localhost:{port}", "",
        ):  # fmt: skip
            answer = await handshake_refusal(server, additional_headers={"Origin": origin}, **settings)
            assert answer.status_code == 403, origin
            assert b"--web-origin" in answer.body
        twice = [("Origin", f"{ours}://localhost:{port}"), ("Origin", "https://evil.example")]
        assert (await handshake_refusal(server, additional_headers=twice, **settings)).status_code == 403


async def test_a_name_that_others_could_make_to_mean_this_machine_is_not_answered() -> None:
    async with serving(SecurityConfig(), web__port=0, web__allowed_origins=("https://guide.example",)) as server:
        for host in ("localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:8080", "10.0.0.7", "guide.example"):
            assert (await http(server, "/", host=host)).status == 200, host
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "a b",
            "localhost/",
            "::1",
        ):
            assert (await http(server, "/", host=host)).status == 421, host
        assert (await http(server, "/", host=None)).status == 421
        assert (await http(server, "/", "Host: evil.example")).status == 421
        assert "--web-origin http://evil.example:80" in (await http(server, "/", host="evil.example:80")).body.decode()


def test_with_tls_the_certificate_says_whose_name_it_is() -> None:
    assert Origins([], encrypted=True).refuse_host(["guide.local:8443"]) == ""
    assert Origins([], encrypted=False).refuse_host(["guide.local:8443"]) != ""


@pytest.mark.parametrize(
    "origin", ["guide.example", "null", "https://", "https://a/b", "https://a b", "*", "https://*.a"]
)
def test_what_is_no_origin_is_refused_as_a_setting(origin: str) -> None:
    with pytest.raises(LegoError, match="is no origin; write SCHEME://HOST"):
        WebSettings(allowed_origins=(origin,))


async def test_it_speaks_tls_and_nothing_else_where_there_is_a_certificate(authority: Authority) -> None:
    async with serving(SecurityConfig(*authority.issue("server")), web__port=0) as server:
        assert server.gateway is not None and server.gateway.url.startswith("https://")
        tls = trusting(authority)
        assert (await http(server, "/", tls=tls)).status == 200
        async with web_session(server, ssl=tls) as client:
            await answered(client)
        with pytest.raises(ConnectionError):
            await http(server, "/")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(("version", "served"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
async def test_old_versions_of_tls_are_not_spoken(authority: Authority, version: str, served: bool) -> None:
    tls = trusting(authority)
    tls.set_ciphers("ALL:@SECLEVEL=0")  # else it would be this side that refuses
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion[version]
    async with serving(SecurityConfig(*authority.issue("server")), web__port=0) as server:
        try:
            assert (await http(server, "/", tls=tls)).status == 200 and served
        except OSError as error:
            assert not served, error


async def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_is_not(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = authority.issue("server")
    async with serving(SecurityConfig(cert, key), web__port=0) as server:
        assert server.gateway is not None
        port = server.gateway.port

        async def served() -> int:
            return (await asyncio.to_thread(served_certificate, port)).serial_number

        first = serial(cert)
        async with web_session(server, ssl=trusting(authority)) as client:
            assert await served() == first
            authority.issue("server")
            second = serial(cert)
            assert await served() == second != first
            await answered(client)  # a connection made before goes on
        cert.write_text("half a certif")
        assert await served() == second and await served() == second
        errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1 and "has changed but cannot be used, so the old one stays" in errors[0]
        authority.issue("server")
        assert await served() == serial(cert) != second


async def test_with_a_client_ca_only_holders_of_its_certificates_get_in(authority: Authority, tmp_path: Path) -> None:
    accepted = tmp_path / "clients.pem"
    accepted.write_bytes(authority.path.read_bytes())
    other = Authority(tmp_path, "other-ca")
    ours = authority.issue("anna", "anna@example.org", common_name="anna")
    theirs = other.issue("bert", "bert@example.org")

    async with serving(SecurityConfig(*authority.issue("server"), client_ca=accepted), web__port=0) as server:
        async with web_session(server, ssl=trusting(authority, *ours)) as client:
            await answered(client)
        for certificate in ((), theirs):
            with pytest.raises(OSError):
                await http(server, "/", tls=trusting(authority, *certificate))
        accepted.write_bytes(other.path.read_bytes())  # followed without a restart
        assert (await http(server, "/", tls=trusting(authority, *theirs))).status == 200
        with pytest.raises(OSError):
            await http(server, "/", tls=trusting(authority, *ours))


async def test_who_showed_a_certificate_cannot_go_on_without_it_once_its_authority_is_withdrawn(
    authority: Authority, tmp_path: Path
) -> None:
    accepted = tmp_path / "clients.pem"
    accepted.write_bytes(authority.path.read_bytes())
    tls = trusting(authority, *authority.issue("anna", "anna@example.org"))
    config = SecurityConfig(*authority.issue("server"), client_ca=accepted)
    async with serving(config, web__port=0) as server:
        assert server.gateway is not None
        address = "127.0.0.1", server.gateway.port

        def asked(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bytes]:
            with (
                socket.create_connection(address, 5) as plain,
                tls.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
            ):
                secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return secured.session, secured.recv(12)

        session, answer = await asyncio.to_thread(asked, None)
        assert answer == b"HTTP/1.1 200"
        accepted.write_bytes(Authority(tmp_path, "other-ca").path.read_bytes())
        with suppress(OSError):
            assert (await asyncio.to_thread(asked, session))[1] == b""
        tls.maximum_version = ssl.TLSVersion.TLSv1_2  # whose sessions can be resumed without being judged
        with pytest.raises(OSError):
            await asyncio.to_thread(asked, None)


async def test_a_session_of_a_certificate_is_its_holders_whichever_the_transport(authority: Authority) -> None:
    anna = authority.issue("anna", "anna@example.org", common_name="anna")
    bert = authority.issue("bert", "bert@example.org", common_name="bert")
    config = SecurityConfig(*authority.issue("server"), client_ca=authority.path)
    async with serving(config, web__port=0) as server:
        async with web_connection(server, ssl=trusting(authority, *anna)) as client:
            token = (await client.read()).session_started.resume_token
            client.cut()
        async with web_session(server, ssl=trusting(authority, *bert)) as client:
            await client.write(pb.GuideRequest(resume=pb.Resume(token=token)))
            assert not (await client.read()).session_started.resumed
        async with calling(server, authority.path, *anna) as stub:
            call = await open_session(stub)
            await call.write(pb.GuideRequest(resume=pb.Resume(token=token)))
            assert (await call.read()).session_started.resumed


async def test_connections_beyond_the_limits_are_closed_unheard_and_others_served_once_some_have_gone(
    tokens: TokenFile,
) -> None:
    config = SecurityConfig(token_file=tokens.path, max_connections=3)
    for settings in ({"web__max_connections_per_address": 2}, {}):
        most = settings.get("web__max_connections_per_address", 3)
        async with serving(config, web__port=0, **settings) as server:
            assert server.gateway is not None
            opened = [await asyncio.open_connection("127.0.0.1", server.gateway.port) for _ in range(most)]
            await eventually(lambda server=server, most=most: web_connections(server) == most)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.gateway.port)
            assert await reader.read() == b""
            writer.close()
            for _, each in opened:
                each.close()
            await eventually(lambda server=server: web_connections(server) == 0)
            assert (await http(server, "/")).status == 200


async def test_silent_tls_handshakes_count_as_connections(authority: Authority) -> None:
    config = SecurityConfig(*authority.issue("server"))
    async with serving(config, web__port=0, web__max_connections_per_address=2) as server:
        assert server.gateway is not None
        silent = [await asyncio.open_connection("127.0.0.1", server.gateway.port) for _ in range(2)]
        await eventually(lambda: web_connections(server) == 2)
        with pytest.raises(OSError):
            await http(server, "/", tls=trusting(authority))
        for _, writer in silent:
            writer.close()
        await eventually(lambda: web_connections(server) == 0)
        assert (await http(server, "/", tls=trusting(authority))).status == 200


def web_connections(server: GuidanceServer) -> float | None:
    return server.telemetry.metrics.registry.get_sample_value("lego_web_connections")


async def test_an_address_beyond_this_machine_without_protection_is_refused(authority: Authority) -> None:
    for hosts in (["127.0.0.1", "0.0.0.0"], ["127.0.0.1", "192.168.1.20"]):
        with pytest.raises(LegoError, match=f"{hosts[1]} can be reached from other machines.*--web-host"):
            Security(SecurityConfig(), hosts)
    with pytest.raises(LegoError, match=r"0\.0\.0\.0 can be reached from other machines"):
        async with serving(SecurityConfig(), web__port=0, web__host="0.0.0.0"):
            pass
    async with serving(SecurityConfig(allow_insecure=True), web__port=0, web__host="0.0.0.0") as server:
        assert server.exposure_warning.startswith("0.0.0.0 can be reached from other machines")
    async with serving(SecurityConfig(), web__host="0.0.0.0") as server:  # nothing listens there
        assert server.exposure_warning == ""


async def test_tokens_queries_and_pictures_are_not_logged(tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("websockets.client", "websockets.server"):
        logging.getLogger(name).setLevel(logging.INFO)  # this side's own, of the tests
    secret, query = tokens.add("anna"), "how do I open the drawer at grandmother's"
    engine = FakeEngine()
    async with serving(SecurityConfig(token_file=tokens.path), engine, web__port=0) as server:
        async with web_session(server, secret) as client:
            await client.frame()
            await client.query(1, query)
            await client.result()
            await client.socket.send(query)
            await client.closed()
        await web_refusal(server, f"{secret}x")
        await handshake_refusal(server, subprotocols=[f"bearer.{secret}"])
        await handshake_refusal(server, token=secret, origin="https://evil.example")
        await http(server, f"/?token={secret}", f"Authorization: Bearer {secret}")
        await http(server, f"/{secret}", "Sec-WebSocket-Protocol: lego.v1, bearer." + secret, "Upgrade: websocket")
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "query_answered" in logged and "web_origin_refused" in logged
    for trace in (secret, secret[5:], "grandmother", "PNG"):
        assert trace not in logged
