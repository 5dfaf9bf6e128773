"""`lego-server` as operators run it, in a process of its own."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.config import Listening, ServerConfig
from lego_server.doctor.checks import check_security
from lego_server.probe import ask_health
from lego_server.security.config import SecurityConfig
from lego_server.security.tokens import write_tokens

from tests.security.conftest import Authority, TokenFile
from tests.security.serving import bearing, serving
from tests.server.harness import picture

COMMAND = [sys.executable, "-m", "lego_server"]
QUERY = "how do I open grandmother's drawer"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_an_address_for_all_with_tls_and_tokens_serves_holders_and_logs_no_query(
    authority: Authority, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    from tests.server.tiny_engine import write_tiny_engine

    engines = tmp_path / "engines"
    engines.mkdir()
    write_tiny_engine(engines)
    token_file = tmp_path / "tokens.json"
    token = run("token", "create", "anna", "--file", token_file).stdout.strip()
    cert, key = authority.issue("server")
    arguments = ["--tls-cert", cert, "--tls-key", key, "--token-file", token_file, "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(
        [*COMMAND, "serve", "--engines", engines, "--threads", "1", "--verbose", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on 0.0.0.0:")
        credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
        with grpc.secure_channel(f"localhost:{line.strip().rpartition(':')[2]}", credentials) as channel:
            stub = guidance_pb2_grpc.GuidanceStub(channel)
            request = pb.GenerateRequest(image=picture(), text=QUERY)
            assert stub.Generate(request, metadata=bearing(token), timeout=20).description
            with pytest.raises(grpc.RpcError):
                stub.Generate(request, timeout=20)
        process.terminate()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert re.search(r"a call from (127\.0\.0\.1|::1) without a good token", errors)
    assert "grandmother" not in errors and token not in errors and "warning" not in errors.lower()


def test_what_cannot_be_used_is_one_line_and_told_before_the_model_is_loaded(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("server", not_after=datetime.now(UTC) - timedelta(days=1))
    result = run("serve", "--engines", tmp_path, "--tls-cert", cert, "--tls-key", key)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: the certificate {cert} expired on ")
    assert result.stderr.count("\n") == 1


def test_doctor_says_whether_certificates_and_tokens_are_good(
    authority: Authority, tokens: TokenFile, tmp_path: Path
) -> None:
    cert, key = authority.issue("server")
    tokens.add("anna")
    good = SecurityConfig(tls_cert=cert, tls_key=key, token_file=tokens.path)
    beyond = Listening(host="0.0.0.0")
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "damaged.json").chmod(0o600)

    def find(**sections: Any) -> dict[str, tuple[str, str]]:
        found = check_security(replace(ServerConfig(), **sections))
        return {each.name: (each.status, each.told) for each in found}

    alone = find()
    protected = find(server=beyond, security=good)
    open_to_all = find(server=beyond)
    bad = find(security=replace(good, tls_key=authority.issue("other")[1], token_file=tmp_path / "damaged.json"))
    assert alone == {"exposure": ("ok", "this machine only")}
    assert {name: status for name, (status, _) in protected.items()} == {
        "exposure": "ok", "certificate": "ok", "tokens": "ok",
    }  # fmt: skip
    assert open_to_all["exposure"][0] == "problem" and "without encryption" in open_to_all["exposure"][1]
    assert bad["certificate"][0] == "problem" and "does not belong" in bad["certificate"][1]
    assert bad["tokens"][0] == "problem"


async def test_health_is_asked_over_tls_by_the_certificates_name(authority: Authority) -> None:
    cert, key = authority.issue("server", "lego-server")
    async with serving(SecurityConfig(cert, key)) as server:
        address = f"127.0.0.1:{server.port}"
        status = await asyncio.to_thread(ask_health, address, "live", 10.0, authority.path, "lego-server")

    assert status == "SERVING"


async def test_health_is_asked_with_a_certificate_where_the_server_asks_for_one(authority: Authority) -> None:
    config = SecurityConfig(*authority.issue("server"), client_ca=authority.path)
    cert, key = authority.issue("probe", "probe@example.org")
    async with serving(config) as server:
        address = f"localhost:{server.port}"
        status = await asyncio.to_thread(ask_health, address, "live", 10.0, authority.path, None, cert, key)
        with pytest.raises(LegoError, match="no health from"):
            await asyncio.to_thread(ask_health, address, "live", 10.0, authority.path)
    assert status == "SERVING"
    with pytest.raises(LegoError, match="--ca, --cert and --key go together"):
        ask_health("localhost:1", "live", 1.0, authority.path, None, cert)
    cert.write_text("garbage")
    with pytest.raises(LegoError, match="a certificate file cannot be used"):
        ask_health("localhost:1", "live", 1.0, authority.path, None, cert, key)


def test_a_token_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "tokens.json"
    with pytest.raises(LegoError, match=f"{path} cannot be written .No such file or directory.; give --file another"):
        write_tokens(path, ())
