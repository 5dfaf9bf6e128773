"""Sessions that outlive their stream, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, RunningServer, check_told_once, eventually, picture, running


@asynccontextmanager
async def own_connection(server: RunningServer) -> AsyncIterator[RunningServer]:
    """A connection that can be cut without touching the others."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.server.port}", options=options) as channel:
        yield RunningServer(server.server, channel, type(server.stub)(channel))


async def begin(server: RunningServer, steps: int = 60) -> tuple[pb.SessionStarted, list[pb.GuideResponse]]:
    """Asks on a connection of its own and cuts it in the middle of painting; returns what had come."""
    async with own_connection(server) as connection:
        client = GuideClient(connection.stub)
        started = (await client.read()).session_started
        await client.frame(3)
        await client.query(1, steps=steps)
        heard = await client.read_until("progress")
    return started, heard


async def come_back(server: RunningServer, token: str, received: int) -> tuple[GuideClient, pb.SessionStarted]:
    client = await server.open_session()
    await client.call.write(pb.GuideRequest(resume=pb.Resume(token=token, received=received)))
    return client, (await client.read()).session_started


async def test_a_query_whose_stream_broke_is_answered_after_coming_back_and_nothing_twice() -> None:
    async with running(FakeEngine(delay=0.005)) as server:
        started, heard = await begin(server)
        received = heard[-1].sequence
        client, again = await come_back(server, started.resume_token, received)
        rest = await client.read_until("result")

    assert (again.resumed, again.session_id) == (True, started.session_id)
    check_told_once([*heard, *rest])
    assert (rest[-1].result.query_id, rest[-1].result.frame_id) == (1, 3)


async def test_an_answer_that_came_while_nobody_was_there_waits() -> None:
    engine = FakeEngine(delay=0.001)
    async with running(engine) as server:
        started, _ = await begin(server, steps=30)
        await eventually(lambda: server.server.live_queries == 0)
        client, _ = await come_back(server, started.resume_token, 0)
        everything = await client.read_until("result")
        await client.query(2)
        following = await client.result()

    description = "".join(r.description_delta.text for r in everything if r.HasField("description_delta"))
    assert description == everything[-1].result.description
    assert following.query_id == 2 and following.frame_id == 3, "the frames are still there"


@pytest.mark.parametrize("answered_before", [False, True])
async def test_a_query_sent_again_by_a_client_that_heard_nothing_of_it_is_taken_once(answered_before: bool) -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine) as server:
        started, _ = await begin(server, steps=10)
        if answered_before:
            await eventually(lambda: server.server.live_queries == 0)
        client, _ = await come_back(server, started.resume_token, 0)
        await client.query(1, steps=10)
        heard = await client.read_until("result")
        await client.query(2, steps=1)
        heard += await client.read_until("result")

    assert [r.result.query_id for r in heard if r.HasField("result")] == [1, 2]
    assert not any(r.HasField("error") for r in heard)


async def test_what_was_lost_on_the_way_is_sent_again() -> None:
    async with running(FakeEngine()) as server:
        started, _ = await begin(server, steps=2)
        await eventually(lambda: server.server.live_queries == 0)
        first, _ = await come_back(server, started.resume_token, 0)
        one = await first.read_until("result")
        second, _ = await come_back(server, started.resume_token, one[-1].sequence - 1)
        (two,) = await second.read_until("result")

    assert two == one[-1]


async def test_a_session_nobody_comes_back_to_ends_and_frees_everything() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine, resume_seconds=0.3) as server:
        started, _ = await begin(server, steps=1000)
        await asyncio.sleep(0.1)
        assert server.server.live_queries == 1, "it goes on for a while"
        await eventually(lambda: server.server.sessions == 0 and server.server.live_queries == 0)
        await eventually(lambda: engine.live_handles == 0)
        client, again = await come_back(server, started.resume_token, 0)
        await client.query(1)
        refused = await client.error()

    assert not again.resumed and again.session_id != started.session_id
    assert refused.code == pb.QueryError.CODE_NO_FRAME, "a session like a new one"


async def test_a_stream_that_was_not_known_to_be_broken_gives_way() -> None:
    async with running(FakeEngine(delay=0.005)) as server:
        old = GuideClient(server.stub)
        started = (await old.read()).session_started
        await old.frame()
        await old.query(1, steps=60)
        await old.read_until("progress")
        new, again = await come_back(server, started.resume_token, 0)
        result = await new.result()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await old.result()

    assert again.resumed and result.query_id == 1
    assert ended.value.code() == grpc.StatusCode.ABORTED and "another stream" in str(ended.value.details())


async def test_a_stream_that_has_given_way_steers_its_session_no_more() -> None:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    engine = FakeEngine()
    async with running(engine) as server, grpc.aio.insecure_channel(server.server.address, options=options) as channel:
        old = GuideClient(type(server.stub)(channel))
        started = (await old.read()).session_started
        for _ in range(6000):  # the server waits for the old one to read, so that nothing else can end it
            await old.cancel(7)
        await asyncio.sleep(2.5)
        new, again = await come_back(server, started.resume_token, 0)
        await new.frame(1)
        await new.query(1, steps=1)
        await new.result()
        before = engine.calls.copy()
        await old.query(9, "how do I close the lid")
        await old.call.done_writing()
        await asyncio.sleep(0.5)
        assert engine.calls == before
        await new.query(2, steps=1)
        result = await new.result()
        old.call.cancel()

    assert again.resumed and result.query_id == 2


@pytest.mark.parametrize("token", ["", "no such token", "x" * 10_000])
async def test_a_wrong_token_gets_a_new_session(token: str) -> None:
    async with running(FakeEngine()) as server:
        client, again = await come_back(server, token, 0)
        await client.frame()
        await client.query(1)
        result = await client.result()
        assert not again.resumed and again.resume_token and result.query_id == 1
        assert server.server.sessions == 1


async def test_resuming_in_the_middle_of_a_stream_is_refused() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        await client.frame()
        await client.call.write(pb.GuideRequest(resume=pb.Resume(token="x")))
        error = await client.error()

    assert error.code == pb.QueryError.CODE_INVALID and "first message" in error.message


async def test_a_client_that_parts_leaves_no_session_behind() -> None:
    async with running(FakeEngine()) as server:
        client = await server.open_session()
        assert server.server.sessions == 1
        await client.call.done_writing()
        assert await client.call.read() is grpc.aio.EOF
        assert server.server.sessions == 0


async def test_those_who_wait_for_their_client_make_room_for_those_who_are_there() -> None:
    async with running(FakeEngine(), max_sessions=2) as server:
        started, _ = await begin(server, steps=1)
        await server.open_session()
        await server.open_session()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await GuideClient(server.stub).read()
        retry = dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]

    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(retry) > 0
    assert started.resume_token


async def test_a_client_that_says_nothing_for_too_long_is_shown_out() -> None:
    async with running(FakeEngine(delay=0.005), idle_seconds=1.0) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=100)
        await asyncio.sleep(0.9)
        assert (await client.result()).query_id == 1, "who waits for an answer is not silent"
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await client.read()
        assert server.server.sessions == 0

    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED and "for 1 s" in str(ended.value.details())


async def test_every_frame_gives_back_its_credit_refused_ones_too() -> None:
    async with running(FakeEngine(), frame_credits=2) as server:
        client = GuideClient(server.stub)
        assert (await client.read()).session_started.frame_credits == 2
        await client.frame(1)
        first = (await client.read_until("frame_received"))[-1].frame_received
        await client.frame(2, b"no picture")
        second = (await client.read_until("frame_received"))[-1].frame_received

    assert (first.frame_id, second.frame_id) == (1, 2)


async def test_those_who_are_there_do_not_wait_for_a_query_whose_client_is_gone() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine, max_active=2) as server:
        started, _ = await begin(server, steps=1000)
        client = await server.open_session()
        await asyncio.sleep(0.2)  # until the broken stream has been noticed
        await client.frame()
        await client.query(1)
        result = await client.result()
        assert server.server.live_queries == 1, "the other goes on when there is nothing else to do"
        back, again = await come_back(server, started.resume_token, 0)
        await back.read_until("progress")

    assert result.timings.queue_ms < 200 and result.timings.total_ms < 1000
    assert again.resumed


async def test_a_query_whose_client_is_gone_gives_up_its_place_and_is_begun_anew_and_told_once() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine, max_active=1) as server:
        started, heard = await begin(server, steps=60)
        client = await server.open_session()
        await asyncio.sleep(0.1)  # until the broken stream has been noticed
        await client.frame()
        await client.query(1, steps=2)
        assert (await client.result()).query_id == 1
        painted = engine.calls["denoise"]
        back, again = await come_back(server, started.resume_token, heard[-1].sequence)
        rest = await back.read_until("result")
        assert engine.calls["denoise"] - painted >= 59, "from the beginning"
        assert server.server.live_queries == 0

    assert again.resumed
    check_told_once([*heard, *rest])
    assert rest[-1].result.query_id == 1


async def test_sessions_of_callers_without_a_name_are_different_wearers() -> None:
    engine = FakeEngine()
    async with running(engine, max_active=2) as server:
        engine.gate.clear()
        for _ in range(2):
            client = await server.open_session()
            await client.frame()
            await client.query(1)
        generating = server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"))
        await eventually(lambda: server.server.live_queries == 3)
        loop = server.server._models.default.engine_loop
        wearers = {job.wearer for job in (*loop._active, *loop._waiting)}
        engine.gate.set()
        await generating

    assert len(wearers) == 3
