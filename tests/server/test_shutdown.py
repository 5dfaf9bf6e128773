from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import grpc
import pytest
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.server import GuidanceServer, serve

from tests.server.fake_engine import FakeEngine
from tests.server.harness import config_of, eventually, picture, running


async def test_a_query_in_flight_is_finished_and_its_stream_ended() -> None:
    async with running(FakeEngine(delay=0.005), shutdown_seconds=5) as server:
        busy, idle = await server.open_session(), await server.open_session()
        await busy.frame()
        await busy.query(1, steps=20)
        await busy.read_until("progress")
        stopping = asyncio.create_task(server.server.stop())
        assert (await busy.result()).query_id == 1
        for client in (busy, idle):
            assert await client.call.read() is grpc.aio.EOF
            assert await client.call.code() == grpc.StatusCode.OK
        began = time.perf_counter()
        await stopping
        assert time.perf_counter() - began < 2


async def test_a_query_that_takes_too_long_is_dropped() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine, shutdown_seconds=0.2) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=1000)
        await client.read_until("progress")
        began = time.perf_counter()
        await server.server.stop()
        assert time.perf_counter() - began < 2
        assert server.server.live_queries == 0


async def test_no_new_query_is_taken_while_stopping() -> None:
    engine = FakeEngine(delay=0.005)
    async with running(engine, shutdown_seconds=5) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=50)
        await client.read_until("progress")
        stopping = asyncio.create_task(server.server.stop())
        await asyncio.sleep(0.02)
        await client.query(2)
        error = await client.error()
        assert (error.query_id, error.code) == (2, pb.QueryError.CODE_UNAVAILABLE)
        assert "shutting down" in error.message
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert error.retry_after_ms == 1000
        assert (await client.result()).query_id == 1
        await stopping


async def test_a_server_told_to_stop_while_it_warms_up_does_not_finish_that_first() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    told: list[str] = []
    serving = asyncio.create_task(
        serve(lambda _: engine, {"fake": Path()}, config_of(port=0, shutdown_seconds=0.1), told.append)
    )
    await eventually(lambda: engine.calls["denoise"] == 1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    engine.gate.set()
    await asyncio.wait_for(serving, 5)
    assert told == [] and engine.calls["decode_latents"] == 0


async def test_a_server_told_to_stop_or_to_look_again_while_it_loads_does_not_die() -> None:
    engine, told, let_go = FakeEngine(), list[str](), threading.Event()
    loading = threading.Event()

    def load(_: Path) -> FakeEngine:
        loading.set()
        assert let_go.wait(20)
        return engine

    def begin() -> asyncio.Task[None]:
        return asyncio.create_task(serve(load, {"fake": Path()}, config_of(port=0, shutdown_seconds=0.1), told.append))

    stopped = begin()
    await eventually(loading.is_set)
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stopped, 5)
    assert told == []

    loading.clear()
    reloaded = begin()
    await eventually(loading.is_set)
    os.kill(os.getpid(), signal.SIGHUP)
    await asyncio.sleep(0.05)
    let_go.set()
    await eventually(lambda: any("manifest.json" in line for line in told))  # looked for again, once it listened
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(reloaded, 5)


async def test_a_taken_port_is_an_error_that_says_what_to_do() -> None:
    async with running(FakeEngine()) as server:
        second = GuidanceServer({"fake": FakeEngine()}, config_of(port=server.server.port))
        with pytest.raises(LegoError, match=f"cannot listen on 127.0.0.1:{server.server.port}.*--port"):
            await second.start()


async def test_a_model_whose_defaults_exceed_the_limits_is_refused() -> None:
    with pytest.raises(LegoError, match="max_steps is 10, but this model's default is 50"):
        GuidanceServer({"fake": FakeEngine(steps=50)}, config_of(max_steps=10))


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("port", 70000, "port is 70000; it must lie between 0 and 65535"),
        ("max_active", 0, "max_active is 0"),
        ("max_message_bytes", 2**20, "it must be above the 8388608"),
        ("host", "", "host is empty"),
    ],
)
def test_a_bad_setting_is_refused_by_name_and_range(field: str, value: object, told: str) -> None:
    with pytest.raises(LegoError, match=told):
        config_of(**{field: value})


async def test_a_second_stop_does_no_harm() -> None:
    async with running(FakeEngine()) as server:
        await server.server.stop()
        await eventually(lambda: server.server.live_queries == 0)
