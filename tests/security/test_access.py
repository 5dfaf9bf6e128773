"""Who is let in, and how much they may do, over real connections."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.security.config import SecurityConfig
from lego_server.security.quota import Limits

from tests.security.conftest import Authority, TokenFile
from tests.security.serving import Clock, bearing, calling, info, open_session, refusal, retry_ms, serving
from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, eventually, picture

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


async def generate(stub: guidance_pb2_grpc.GuidanceStub, token: str, image: bytes | None = None) -> pb.GuidanceResult:
    request = pb.GenerateRequest(image=image or picture(), text="open the drawer")
    return await stub.Generate(request, metadata=bearing(token), timeout=10)


async def test_every_kind_of_call_is_served_with_a_token(tokens: TokenFile) -> None:
    secret = tokens.add("anna")
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        assert (await info(stub, secret)).model_name == "fake"
        assert (await generate(stub, secret)).description
        client = await open_session(stub, secret)
        await client.frame()
        await client.query(1)
        assert (await client.result()).image


async def test_token_and_client_certificate_are_both_asked_for(authority: Authority, tokens: TokenFile) -> None:
    secret = tokens.add("anna")
    config = SecurityConfig(*authority.issue("server"), client_ca=authority.path, token_file=tokens.path)
    certificate = authority.issue("anna", "anna@example.org")
    async with serving(config) as server:
        async with calling(server, authority.path, *certificate) as stub:
            assert (await refusal(stub)).code() is UNAUTHENTICATED
            await info(stub, secret)
        async with calling(server, authority.path) as stub:
            assert (await refusal(stub, secret)).code() is grpc.StatusCode.UNAVAILABLE


async def test_without_a_token_no_call_is_served_and_the_cure_is_told(tokens: TokenFile) -> None:
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        error = await refusal(stub)
        assert error.code() is UNAUTHENTICATED
        assert "--token-file" in (error.details() or "") and "LEGO_TOKEN" in (error.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await GuideClient(stub).read()
        assert refused.value.code() is UNAUTHENTICATED


@pytest.mark.parametrize("header", ["Basic YW5uYTpwdw==", "Bearer", "Bearer ", "", "lego_x"])
async def test_another_kind_of_credentials_is_no_token(tokens: TokenFile, header: str) -> None:
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=(("authorization", header),))
        assert refused.value.code() is UNAUTHENTICATED


async def test_a_wrong_token_is_refused(tokens: TokenFile) -> None:
    secret = tokens.add("anna")
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        error = await refusal(stub, secret[:-1] + ("A" if secret[-1] != "A" else "B"))
        assert error.code() is UNAUTHENTICATED
        assert "mistyped, revoked or another server's" in (error.details() or "")


async def test_the_stored_hash_is_no_token(tokens: TokenFile) -> None:
    tokens.add("anna")
    stored = next(line.split('"')[3] for line in tokens.path.read_text().splitlines() if "sha256" in line)
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        assert (await refusal(stub, stored)).code() is UNAUTHENTICATED


async def test_a_token_ends_when_it_expires(tokens: TokenFile) -> None:
    clock = Clock()
    secret = tokens.add("anna", expires=clock.began + timedelta(hours=1))
    async with serving(SecurityConfig(token_file=tokens.path), clock=clock) as server, calling(server) as stub:
        client = await open_session(stub, secret)
        await client.frame()
        clock.seconds += 3601
        error = await refusal(stub, secret)
        assert error.code() is UNAUTHENTICATED and "the token of anna expired on" in (error.details() or "")
        await client.query(1)
        assert "expired on" in (await client.error()).message


async def test_tokens_are_added_and_revoked_while_the_server_runs(tokens: TokenFile) -> None:
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        secret = tokens.add("anna")
        client = await open_session(stub, secret)
        await client.frame()
        tokens.revoke("anna")
        assert (await refusal(stub, secret)).code() is UNAUTHENTICATED
        await client.query(1)
        error = await client.error()
        assert error.query_id == 1 and "your token has been revoked" in error.message


async def test_a_token_file_damaged_while_the_server_runs_changes_nothing(
    tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tokens.add("anna")
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        tokens.path.write_text("{")
        await info(stub, secret)
        assert "has changed but cannot be used, so the old one stays" in caplog.text


async def test_looking_into_the_server_needs_the_admin_scope(tokens: TokenFile) -> None:
    guide, admin = tokens.add("anna"), tokens.add("root", "admin")
    async with (
        serving(SecurityConfig(token_file=tokens.path)) as server,
        grpc.aio.insecure_channel(f"localhost:{server.port}") as channel,
    ):
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)

        async def services(secret: str | None) -> int:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection.ServerReflectionInfo(iter([request]), metadata=bearing(secret) if secret else None)
            return len((await anext(aiter(call))).list_services_response.service)

        assert await services(admin) == 3
        for secret, status in ((guide, grpc.StatusCode.PERMISSION_DENIED), (None, UNAUTHENTICATED)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await services(secret)
            assert refused.value.code() is status
        error = await refusal(guidance_pb2_grpc.GuidanceStub(channel), admin)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error.details() == (
            "the token of root is for admin; /lego.v1.Guidance/GetServerInfo needs one for guide"
        )


async def test_orchestrators_ask_for_health_without_a_token_but_cannot_watch(tokens: TokenFile) -> None:
    async with (
        serving(SecurityConfig(token_file=tokens.path)) as server,
        grpc.aio.insecure_channel(f"localhost:{server.port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING  # not warmed up
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(health.Watch(health_pb2.HealthCheckRequest())))
        assert refused.value.code() is UNAUTHENTICATED


async def test_queries_above_the_rate_are_refused_until_time_has_passed(tokens: TokenFile) -> None:
    clock = Clock()
    secret = tokens.add("anna", limits=Limits(queries_per_minute=2))
    other = tokens.add("bert", limits=Limits(queries_per_minute=2))
    async with serving(SecurityConfig(token_file=tokens.path), clock=clock) as server, calling(server) as stub:
        client = await open_session(stub, secret)
        await client.frame()
        for query_id in (1, 2):
            await client.query(query_id)
            await client.result()
        await client.query(3)
        error = await client.error()
        assert (error.query_id, error.code) == (3, pb.QueryError.CODE_OVERLOADED)
        assert error.message == "this token may ask 2 queries a minute; ask again in 30 s"

        with pytest.raises(grpc.aio.AioRpcError) as refused:  # a call of its own is no way around
            await generate(stub, secret)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_ms(refused.value) == 30_000
        assert (await generate(stub, other)).description

        clock.seconds += 29
        await client.query(4)
        assert "ask again in 1 s" in (await client.error()).message
        clock.seconds += 1
        await client.query(5)
        await client.result()


async def test_a_rate_given_while_the_server_runs_holds_for_open_sessions(tokens: TokenFile) -> None:
    secret = tokens.add("anna")
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        client = await open_session(stub, secret)
        await client.frame()
        text = tokens.path.read_text()
        tokens.path.write_text(text.replace('"name": "anna"', '"name": "anna", "queries_per_minute": 1'))
        await client.query(1)
        await client.result()
        await client.query(2)
        assert "1 queries a minute" in (await client.error()).message


async def test_live_queries_are_limited_over_all_sessions_of_a_token(tokens: TokenFile) -> None:
    secret = tokens.add("anna", limits=Limits(live_queries=1))
    engine = FakeEngine()
    engine.gate.clear()
    async with serving(SecurityConfig(token_file=tokens.path), engine) as server, calling(server) as stub:
        first, second = await open_session(stub, secret), await open_session(stub, secret)
        await first.frame()
        await second.frame()
        await first.query(1)
        await eventually(lambda: engine.calls["denoise"] == 1)
        await second.query(1)
        assert "this token has 1 queries being answered, its limit" in (await second.error()).message
        await first.query(2)  # supersedes its own: no second one
        assert (await first.error()).code == pb.QueryError.CODE_SUPERSEDED
        await first.cancel(2)
        assert (await first.error()).code == pb.QueryError.CODE_CANCELLED
        engine.gate.set()
        await second.query(2)
        assert (await second.result()).query_id == 2
        second.call.cancel()
        assert (await generate(stub, secret)).description


async def test_a_resumed_session_supersedes_the_query_it_asked_before_its_stream_broke(tokens: TokenFile) -> None:
    secret = tokens.add("anna", limits=Limits(live_queries=1))
    engine = FakeEngine()
    engine.gate.clear()
    async with serving(SecurityConfig(token_file=tokens.path), engine) as server, calling(server) as stub:
        client = GuideClient(stub, bearing(secret))
        started = (await client.read()).session_started
        await client.frame()
        await client.query(1)
        await eventually(lambda: engine.calls["denoise"] == 1)
        client.call.cancel()
        back, stranger = await open_session(stub, secret), await open_session(stub, secret)
        await back.write(pb.GuideRequest(resume=pb.Resume(token=started.resume_token)))
        assert (await back.read()).session_started.resumed
        await back.query(2)
        assert (await back.error()).code == pb.QueryError.CODE_SUPERSEDED
        await stranger.frame()
        await stranger.query(1)
        assert "this token has 1 queries being answered, its limit" in (await stranger.error()).message
        engine.gate.set()
        assert (await back.result()).query_id == 2
        await stranger.query(2)
        assert (await stranger.result()).query_id == 2


async def test_a_broken_off_session_gives_its_query_back(tokens: TokenFile) -> None:
    secret = tokens.add("anna", limits=Limits(live_queries=1, sessions=1))
    engine = FakeEngine()
    engine.gate.clear()
    async with serving(SecurityConfig(token_file=tokens.path), engine) as server, calling(server) as stub:
        client = await open_session(stub, secret)
        await client.frame()
        await client.query(1)
        await eventually(lambda: engine.calls["denoise"] == 1)
        error = await refusal(stub, secret)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_ms(error) > 0
        assert error.details() == "the token of anna has 1 calls open, its limit; close one first"
        client.call.cancel()
        engine.gate.set()
        await eventually(lambda: server.live_queries == 0)
        assert (await generate(stub, secret)).description


async def test_a_token_may_allow_smaller_frames_than_the_server_and_clients_are_told(tokens: TokenFile) -> None:
    secret = tokens.add("anna", limits=Limits(max_image_pixels=100 * 100))
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        assert (await info(stub, secret)).max_image_pixels == 10_000
        client = await open_session(stub, secret)
        await client.frame(1, picture(size=(160, 90)))
        await client.query(1)
        error = await client.error()
        assert error.code == pb.QueryError.CODE_INVALID
        assert error.message == "the image has 14400 pixels; this token allows 10000: send a smaller one"
        await client.frame(2, picture(size=(100, 90)))
        await client.query(2)
        assert (await client.result()).query_id == 2
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await generate(stub, secret)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_session_is_resumed_only_by_whoever_opened_it(tokens: TokenFile) -> None:
    anna, bert = tokens.add("anna"), tokens.add("bert")
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        opened = GuideClient(stub, bearing(anna))
        started = (await opened.read()).session_started
        await opened.frame()
        await opened.read_until("frame_received")
        opened.call.cancel()

        async def come_back(secret: str) -> pb.SessionStarted:
            client = await open_session(stub, secret)
            await client.call.write(pb.GuideRequest(resume=pb.Resume(token=started.resume_token)))
            again = (await client.read()).session_started
            client.call.cancel()
            return again

        stolen = await come_back(bert)
        assert not stolen.resumed and stolen.session_id != started.session_id
        own = await come_back(anna)
        assert own.resumed and own.session_id == started.session_id, "the attempt has not ended it"


async def test_refusals_are_counted_by_their_reason(tokens: TokenFile) -> None:
    anna, operator = tokens.add("anna", limits=Limits(sessions=1)), tokens.add("operator", "admin")
    config = SecurityConfig(token_file=tokens.path, max_failures_per_address=2)
    async with serving(config) as server, calling(server) as stub:
        await open_session(stub, anna)
        for token in (anna, operator, None, "wrong", anna):  # the last is locked out
            await refusal(stub, token)
        counted = server.telemetry.metrics.registry.get_sample_value
        reasons = ("token_calls", "scope", "unauthenticated", "locked_out")
        told = [counted("lego_rejects_total", {"reason": each}) for each in reasons]
    assert told == [1, 1, 2, 1]


async def test_a_strangers_message_is_not_taken_in(tokens: TokenFile) -> None:
    async with serving(SecurityConfig(token_file=tokens.path)) as server, calling(server) as stub:
        call = stub.Guide()
        megabytes = 0
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            while megabytes < 64:
                await call.write(pb.GuideRequest(frame=pb.Frame(frame_id=1, image=bytes(2**20))))
                megabytes += 1
        assert megabytes < 32  # what buffers on the way hold
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(pb.GenerateRequest(image=bytes(2**23), text="open the drawer"))
        assert refused.value.code() is UNAUTHENTICATED
