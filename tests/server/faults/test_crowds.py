"""More clients than there is room for, and a server that stops among them."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import Scene, open_session, own_channel, part, scene
from tests.server.harness import GuideClient, eventually, picture

_CONNECTIONS, _ASKING, _ROOM = 200, 50, 150
Code = pb.QueryError.Code


async def test_two_hundred_connections_are_answered_or_told_when_to_come_again() -> None:
    async with scene(FakeEngine(), retried=True, max_sessions=_ROOM, max_active=4, max_waiting=16) as it:
        all_there = asyncio.Barrier(_CONNECTIONS)
        ends = await asyncio.gather(*(_visit(it, number, all_there) for number in range(_CONNECTIONS)))
        await it.several_answers()
    counts = Counter(ends)
    assert counts.keys() <= {"answered", "overloaded", "only there", "refused"}
    assert counts["refused"] >= _CONNECTIONS - _ROOM
    assert counts["answered"] >= 16, counts


async def _visit(it: Scene, number: int, all_there: asyncio.Barrier) -> str:
    """One connection with a session, there until all are; a few ask."""
    async with own_channel(it.server) as stub:
        try:
            client, _ = await open_session(stub)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(str(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])) > 0
            await all_there.wait()
            return "refused"
        await all_there.wait()
        end = "only there"
        if number < _ASKING:
            await client.frame()
            await client.query(1, steps=2)
            answer = [await client.read()]
            while answer[-1].WhichOneof("message") not in ("result", "error"):
                answer.append(await client.read())
            end = "answered"
            if answer[-1].HasField("error"):
                assert answer[-1].error.code == Code.CODE_OVERLOADED and answer[-1].error.retry_after_ms > 0
                end = "overloaded"
        await part(client)
        return end


@pytest.mark.parametrize("seconds", [0.3, 10.0])
async def test_a_stop_among_many_queries_answers_or_hands_back_each_once(seconds: float) -> None:
    engine = FakeEngine(delay=0.004)
    async with scene(engine, bystanders=0, healthy_after=False, shutdown_seconds=seconds, max_active=6) as it:
        clients = [(await open_session(it.server.stub))[0] for _ in range(16)]
        for client in clients:
            await client.frame()
            await client.query(1, steps=20)
        call = it.server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"))
        await eventually(lambda: engine.calls["denoise"] > 30)
        stopping = asyncio.create_task(it.server.server.stop())
        ends = [await _ends(client) for client in clients]
        with pytest.raises(grpc.aio.AioRpcError) as handed_back:
            await call
        await stopping
    assert all(len(each) == 1 for each in ends), ends
    counts = Counter(end for each in ends for end in each)
    assert counts.keys() == {"answered", "CODE_UNAVAILABLE"} and counts["answered"] > 0
    assert handed_back.value.code() is grpc.StatusCode.UNAVAILABLE
    assert int(str(dict(handed_back.value.trailing_metadata())["grpc-retry-pushback-ms"])) > 0


async def test_a_single_request_that_a_stopping_server_cannot_end_in_time_is_handed_back() -> None:
    engine = FakeEngine(delay=0.01)
    async with scene(engine, bystanders=0, healthy_after=False, shutdown_seconds=0.2) as it:
        request = pb.GenerateRequest(image=picture(), text="open the drawer", options=pb.GuidanceOptions(steps=1000))
        call = it.server.stub.Generate(request)
        await eventually(lambda: engine.calls["denoise"] > 20)
        stopping = asyncio.create_task(it.server.server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as handed_back:
            await call
        await stopping
    assert handed_back.value.code() is grpc.StatusCode.UNAVAILABLE
    assert int(str(dict(handed_back.value.trailing_metadata())["grpc-retry-pushback-ms"])) > 0


async def _ends(client: GuideClient) -> list[str]:
    """Reads a stream to its end; returns how its query ended, which should be once."""
    ends = []
    while (response := await client.call.read()) is not grpc.aio.EOF:
        if response.HasField("result"):
            ends.append("answered")
        elif response.HasField("error"):
            assert response.error.query_id == 1 and response.error.retry_after_ms > 0
            ends.append(Code.Name(response.error.code))
    return ends
