"""The wall clock may jump: deadlines, sessions and timings go by the monotonic one, and only tokens by the date."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.security.protection import Security
from lego_server.security.tokens import Token, hash_of, new_secret, write_tokens
from lego_server.server import GuidanceServer

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import open_session, own_channel, part, scene
from tests.server.harness import GuideClient, RunningServer, config_of

_DAY = 86_400.0


@pytest.mark.parametrize("jump", [_DAY, -_DAY])
async def test_a_jump_of_a_day_changes_nothing(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    true_time = time.time
    async with scene(FakeEngine(delay=0.003), resume_seconds=1.0, idle_seconds=30, query_seconds=20) as it:
        client, _ = await open_session(it.server.stub)
        await client.frame()
        await client.query(1, steps=60)
        await client.read_until("progress")
        token = await _break_off(it.server)
        monkeypatch.setattr(time, "time", lambda: true_time() + jump)
        result = await client.result()
        back = GuideClient(it.server.stub)
        await back.read()
        await back.call.write(pb.GuideRequest(resume=pb.Resume(token=token)))
        assert (await back.read()).session_started.resumed, "it is still kept"
        assert (await back.result()).query_id == 1
        await it.several_answers()
        await _break_off(it.server)  # that nobody comes back to it is noticed in time, too
        for each in (client, back):
            await part(each)
    assert 0 < result.timings.total_ms < 20_000 and 0 <= result.timings.queue_ms < 20_000


async def _break_off(server: RunningServer) -> str:
    """Asks, and is gone in the middle of the answer; returns the token to come back with."""
    async with own_channel(server) as stub:
        client, started = await open_session(stub)
        await client.frame()
        await client.query(1, steps=30)
        await client.read_until("progress")
    return started.resume_token


@pytest.mark.parametrize(("jump", "good"), [(_DAY, False), (-_DAY, True)])
async def test_a_token_ends_by_the_date_alone(jump: float, good: bool, tmp_path: Path) -> None:
    file, now, secret = tmp_path / "tokens.json", datetime.now(UTC), new_secret()
    write_tokens(file, (Token("anna", hash_of(secret), expires=now + timedelta(hours=12)),))
    config = config_of(port=0, token_file=file)
    security = Security(config.security, config.hosts, now=lambda: now + timedelta(seconds=jump))
    server = GuidanceServer({"fake": FakeEngine()}, config, security=security)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = guidance_pb2_grpc.GuidanceStub(channel)
            client = GuideClient(stub, (("authorization", f"Bearer {secret}"),))
            if good:
                assert (await client.read()).HasField("session_started")
                await part(client)
            else:
                with pytest.raises(grpc.aio.AioRpcError, match="the token of anna expired"):
                    await client.read()
    finally:
        await server.stop()
