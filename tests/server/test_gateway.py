"""The `Guide` stream over WebSockets: as over gRPC, and from one to the other."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.server import GuidanceServer
from websockets.exceptions import ConnectionClosed

from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, RunningServer, check_told_once, config_of, eventually, picture, running
from tests.server.web import WebClient, handshake_refusal, http, web_connection, web_refusal, web_session

INVALID, ABORTED, EXHAUSTED, TOO_LATE, UNAVAILABLE = 4003, 4010, 4008, 4004, 4014


async def ask(client: GuideClient, **options: object) -> list[pb.GuideResponse]:
    """Returns all that a query brings, without what differs from one time to the next."""
    await client.frame(3)
    await client.query(7, preview_every=2, **options)
    responses = await client.read_until("result")
    responses[-1].result.ClearField("timings")
    return responses


async def come_back(client: GuideClient, token: str, received: int) -> pb.SessionStarted:
    await client.write(pb.GuideRequest(resume=pb.Resume(token=token, received=received)))
    return (await client.read()).session_started


async def test_what_a_query_brings_is_what_it_brings_over_grpc() -> None:
    async with running(FakeEngine(delay=0.002), web__port=0) as server:
        over_grpc = await ask(await server.open_session(), steps=6)
        async with web_session(server.server) as client:
            over_web = await ask(client, steps=6)
    assert {each.WhichOneof("message") for each in over_web} == {
        "frame_received", "description_delta", "progress", "result"
    }  # fmt: skip
    final = [responses[-1].result for responses in (over_grpc, over_web)]
    assert final[0] == final[1] and final[0].image


async def test_a_session_begins_with_what_it_begins_with_over_grpc() -> None:
    async with running(FakeEngine(), web__port=0, resume_seconds=12.0, frame_credits=5) as server:
        over_grpc = (await GuideClient(server.stub).read()).session_started
        async with web_connection(server.server) as client:
            assert client.socket.subprotocol == "lego.v1"
            over_web = (await client.read()).session_started
    assert over_web.server == over_grpc.server and over_web.frame_credits == 5 and over_web.resume_seconds == 12
    assert over_web.session_id != over_grpc.session_id and over_web.resume_token != over_grpc.resume_token


async def test_bad_queries_are_told_and_the_stream_goes_on() -> None:
    async with running(FakeEngine(), web__port=0) as server, web_session(server.server) as client:
        await client.query(1)
        assert (await client.error()).code == pb.QueryError.CODE_NO_FRAME
        await client.frame(1, b"no picture")
        assert "frame 1" in (await client.error()).message
        await client.frame(2)
        await client.query(2, steps=100_000)
        assert "steps is 100000" in (await client.error()).message
        await client.query(3, steps=1000)
        await client.query(4)
        assert (await client.error()).code == pb.QueryError.CODE_SUPERSEDED
        assert (await client.result()).query_id == 4


@pytest.mark.parametrize(("first", "then"), [("grpc", "web"), ("web", "grpc"), ("web", "web")])
async def test_a_session_goes_on_over_either_transport(first: str, then: str) -> None:
    async with running(FakeEngine(delay=0.005), web__port=0) as server:
        async with connected(server, first) as before:
            started = (await before.read()).session_started
            await before.frame(3)
            await before.query(1, steps=60)
            heard = await before.read_until("progress")
            cut(before)
        async with connected(server, then) as after:
            await after.read()
            again = await come_back(after, started.resume_token, heard[-1].sequence)
            rest = await after.read_until("result")

    assert (again.resumed, again.session_id) == (True, started.session_id)
    check_told_once([*heard, *rest])
    assert (rest[-1].result.query_id, rest[-1].result.frame_id) == (1, 3)


async def test_a_stream_not_known_to_be_broken_gives_way_and_is_told() -> None:
    async with running(FakeEngine(delay=0.005), web__port=0) as server, web_connection(server.server) as old:
        started = (await old.read()).session_started
        await old.frame()
        await old.query(1, steps=60)
        await old.read_until("progress")
        new = await server.open_session()
        assert (await come_back(new, started.resume_token, 0)).resumed
        code, reason = await old.closed()
        assert (await new.result()).query_id == 1
    assert (code, reason) == (ABORTED, "the session goes on in another stream")


@pytest.mark.parametrize(("code", "kept"), [(1000, 0), (1001, 1), (3000, 1), (None, 1)])
async def test_only_a_client_that_closes_with_1000_has_left_for_good(code: int | None, kept: int) -> None:
    async with running(FakeEngine(delay=0.01), web__port=0) as server:
        async with web_session(server.server) as client:
            await client.frame()
            await client.query(1, steps=500)
            await client.read_until("progress")
            if code is None:
                client.cut()
            else:
                await client.socket.close(code)
        await eventually(lambda: server.server.sessions == kept)
        await eventually(lambda: server.server.live_queries == kept)


async def test_a_resumed_session_that_ends_for_good_leaves_nothing() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine, web__port=0) as server:
        async with web_connection(server.server) as client:
            started = (await client.read()).session_started
            client.cut()
        async with web_session(server.server) as client:
            assert (await come_back(client, started.resume_token, 0)).resumed
            await client.frame()
            await client.query(1, steps=500)
            await client.read_until("progress")
        await eventually(lambda: (server.server.sessions, server.server.live_queries) == (0, 0))
        await eventually(lambda: engine.live_handles == 0)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xff" * 9, "the 9 bytes are no message of this call"),
        ("how do I open the drawer", "the message is text; send each GuideRequest as one binary message"),
        ("ü" * 400, "the message is text"),
    ],
)
async def test_what_is_no_message_ends_the_session_and_is_named(
    data: bytes | str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(FakeEngine(), web__port=0) as server, web_session(server.server) as client:
        await client.socket.send(data)
        code, reason = await client.closed()
        assert server.server.sessions == 0
    assert code == INVALID and told in reason and len(reason.encode()) <= 123
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_message_that_holds_nothing_is_told_and_the_stream_goes_on() -> None:
    async with running(FakeEngine(), web__port=0) as server, web_session(server.server) as client:
        await client.socket.send(b"")
        assert "no frame, query, cancel or resume" in (await client.error()).message
        assert len(await ask(client)) > 2


@pytest.mark.parametrize("pieces", [1, 10])
async def test_a_message_above_the_limit_ends_the_connection_before_it_is_read(pieces: int) -> None:
    config = {"max_image_bytes": 8192, "max_message_bytes": 16_384}
    async with running(FakeEngine(), web__port=0, **config) as server, web_session(server.server) as client:
        await client.frame(1, picture(size=(64, 64)))
        await client.read_until("frame_received")
        message = pb.GuideRequest(frame=pb.Frame(frame_id=2, image=bytes(20_000))).SerializeToString()
        part = len(message) // pieces + 1
        with suppress(ConnectionClosed):
            await client.socket.send([message[at : at + part] for at in range(0, len(message), part)])
        code, reason = await client.closed()
    assert code == 1009 and "16384" in reason


async def test_bytes_that_are_no_websocket_frame_end_the_connection_alone() -> None:
    async with running(FakeEngine(), web__port=0) as server, web_session(server.server) as client:
        client.socket.transport.write(b"\xff" * 64)
        assert (await client.closed())[0] in (1002, 1006)
        async with web_session(server.server) as another:
            assert (await ask(another))[-1].HasField("result")


async def test_sessions_beyond_the_limit_are_told_when_to_come_again() -> None:
    async with running(FakeEngine(), web__port=0, max_sessions=1) as server, web_session(server.server):
        code, reason = await web_refusal(server.server)
    assert (code, reason) == (
        EXHAUSTED, "retry-after-ms=5000 the server has 1 sessions, its limit; try again later"
    )  # fmt: skip


async def test_who_says_nothing_for_too_long_is_shown_out() -> None:
    async with running(FakeEngine(), web__port=0, idle_seconds=1.0) as server, web_session(server.server) as client:
        assert await client.closed() == (TOO_LATE, "nothing came from the client for 1 s; open another session")
        assert server.server.sessions == 0


async def test_a_stopping_server_finishes_what_is_asked_and_tells_the_others_to_come_back() -> None:
    async with running(FakeEngine(delay=0.005), web__port=0, shutdown_seconds=5) as server:
        async with web_session(server.server) as busy, web_session(server.server) as idle:
            await busy.frame()
            await busy.query(1, steps=40)
            await busy.read_until("progress")
            stopping = asyncio.create_task(server.server.stop())
            ends = [await idle.closed()]
            assert (await http(server.server, "/health/ready")).status == 503
            ends += [await web_refusal(server.server)]
            assert (await busy.result()).query_id == 1
            ends += [await busy.closed()]
        await stopping
    told = "retry-after-ms=1000 the server is shutting down; ask again when it is back"
    assert ends == [(1001, told), (UNAVAILABLE, told), (1001, told)]


async def test_a_query_that_cannot_end_in_time_is_handed_back() -> None:
    async with running(FakeEngine(delay=0.01), web__port=0, shutdown_seconds=0.2) as server:
        async with web_session(server.server) as client:
            await client.frame()
            await client.query(1, steps=1000)
            await client.read_until("progress")
            stopping = asyncio.create_task(server.server.stop())
            error = await client.error()
            assert (error.query_id, error.code, error.retry_after_ms) == (1, pb.QueryError.CODE_UNAVAILABLE, 1000)
            assert (await client.closed())[0] == 1001
        await stopping


async def test_a_server_stops_although_a_client_neither_reads_nor_closes() -> None:
    async with running(FakeEngine(), web__port=0, shutdown_seconds=0.1) as server, web_session(server.server) as client:
        client.socket.transport.pause_reading()
        async with asyncio.timeout(10):
            await server.server.stop()
        assert server.server.sessions == 0
        client.cut()


async def test_a_hundred_wearers_at_once_are_answered_as_one() -> None:
    async with running(FakeEngine(), web__port=0, max_sessions=100, max_active=8, max_waiting=100) as server:
        alone = (await ask(await server.open_session(), steps=2))[-1].result

        async def wearer() -> pb.GuidanceResult:
            async with web_session(server.server, open_timeout=60) as client:
                return (await ask(client, steps=2))[-1].result

        answers = await asyncio.gather(*(wearer() for _ in range(99)))
        await eventually(lambda: server.server.sessions == 1)
    assert all(answer == alone for answer in answers)


async def test_streams_and_connections_are_counted() -> None:
    async with running(FakeEngine(), web__port=0) as server:
        registry = server.server.telemetry.metrics.registry

        def figures() -> tuple[float | None, ...]:
            return tuple(
                registry.get_sample_value(name)
                for name in ("lego_sessions", "lego_sessions_opened_total", "lego_web_connections")
            )

        assert figures() == (0, 0, 0)
        async with web_session(server.server):
            assert figures() == (1, 1, 1)
        await eventually(lambda: figures() == (0, 1, 0))


async def test_a_client_must_speak_the_protocol_by_its_name() -> None:
    async with running(FakeEngine(), web__port=0) as server:
        for offered in ([], ["lego.v2"], ["bearer.lego_secret"]):
            answer = await handshake_refusal(server.server, subprotocols=offered)
            assert answer.status_code == 400 and b"lego.v1" in answer.body and b"secret" not in answer.body


async def test_a_host_that_can_be_none_is_an_error_that_says_what_to_do() -> None:
    config = config_of(port=0, web__port=0, web__host="a..b", allow_insecure=True)
    with pytest.raises(LegoError, match=r"on a\.\.b:0 .that is no host name.; choose .* or --web-host"):
        await GuidanceServer({"fake": FakeEngine()}, config).start()


async def test_a_taken_port_is_an_error_that_says_what_to_do() -> None:
    async with running(FakeEngine(), web__port=0) as server:
        assert server.server.gateway is not None
        taken = server.server.gateway.port
        second = GuidanceServer({"fake": FakeEngine()}, config_of(port=0, web__port=taken))
        with pytest.raises(
            LegoError, match=f"cannot serve the web page on 127.0.0.1:{taken} .Address already in use.; .*--web-port"
        ):
            await second.start()


async def test_without_a_web_port_there_is_no_gateway() -> None:
    async with running(FakeEngine()) as server:
        assert server.server.gateway is None


@asynccontextmanager
async def connected(server: RunningServer, transport: str) -> AsyncIterator[GuideClient]:
    if transport == "web":
        async with web_connection(server.server) as client:
            yield client
    else:
        yield GuideClient(server.stub)


def cut(client: GuideClient) -> None:
    if isinstance(client, WebClient):
        client.cut()
    else:
        client.call.cancel()


async def test_the_page_has_an_address_that_can_be_opened_where_all_are_listened_on() -> None:
    for host in ("0.0.0.0", "::"):
        async with running(FakeEngine(), web__port=0, web__host=host, allow_insecure=True) as server:
            assert server.server.gateway is not None
            url = server.server.gateway.url
            assert "//0.0.0.0" not in url and "::" not in url
            with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as answer:
                assert answer.status == 200
