"""Health over gRPC: what each service says while a server warms up, works, hangs, recovers, fails and stops."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.server import SERVICE_NAME

from tests.server.fake_engine import FakeEngine
from tests.server.harness import RunningServer, eventually, picture, running

READY = ("ready", "", SERVICE_NAME)


async def serving(server: RunningServer) -> set[str]:
    """Returns the names that are SERVING."""
    stub = health_pb2_grpc.HealthStub(server.channel)
    answers = {
        name: await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in ("live", "model", *READY)
    }
    return {name for name, answer in answers.items() if answer.status == health_pb2.HealthCheckResponse.SERVING}


async def test_a_server_lives_before_it_is_ready() -> None:
    async with running(FakeEngine(), warm=False) as server:
        assert await serving(server) == {"live", "model"}
        await server.server.warm_up()
        assert await serving(server) == {"live", "model", *READY}


async def test_a_hanging_engine_call_is_told_and_logged_until_it_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    async with running(engine, engine_call_seconds=0.2) as server:
        client = await server.open_session()
        await client.frame()
        engine.gate.clear()
        await client.query(1)
        await eventually(lambda: engine.calls["denoise"] == 2)
        assert "model" in await serving(server), "a call is no hang before its deadline"
        await asyncio.sleep(0.3)
        assert await serving(server) == {"live"}
        engine.gate.set()
        await client.result()
        assert await serving(server) == {"live", "model", *READY}
    [hung] = [record for record in caplog.records if record.message == "engine_call_hung"]
    assert hung.levelno == logging.ERROR
    assert hung.__dict__["lego_fields"]["call"] == "denoise" and hung.__dict__["lego_fields"]["rows"] == 3
    assert [record.message for record in caplog.records].count("engine_call_back") == 1


async def test_those_who_watch_hear_of_a_hang_without_asking() -> None:
    engine = FakeEngine()
    async with running(engine, engine_call_seconds=0.1) as server:
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(service="ready"))
        statuses = [(await watch.read()).status]
        engine.gate.clear()
        call = server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"))
        statuses.append((await asyncio.wait_for(watch.read(), 5)).status)
        engine.gate.set()
        await call
        statuses.append((await asyncio.wait_for(watch.read(), 5)).status)
    assert [health_pb2.HealthCheckResponse.ServingStatus.Name(status) for status in statuses] == [
        "SERVING", "NOT_SERVING", "SERVING",
    ]  # fmt: skip


async def test_a_failed_engine_call_is_the_models_fault_and_the_next_good_one_mends_it() -> None:
    engine = FakeEngine()
    engine.broken_words = {"lid"}
    async with running(engine) as server:
        with pytest.raises(grpc.aio.AioRpcError):
            await server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the lid"))
        assert await serving(server) == {"live", *READY}
        await server.stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"))
        assert "model" in await serving(server)


async def test_a_stopping_server_lives_and_is_not_ready() -> None:
    engine = FakeEngine(delay=0.01)
    async with running(engine, shutdown_seconds=5) as server:
        client = await server.open_session()
        await client.frame()
        await client.query(1, steps=40)
        await client.read_until("progress")
        health = health_pb2_grpc.HealthStub(server.channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="ready"))
        await watch.read()
        stopping = asyncio.create_task(server.server.stop())
        told = await asyncio.wait_for(watch.read(), 5)
        assert told.status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        await client.result()
        await stopping
