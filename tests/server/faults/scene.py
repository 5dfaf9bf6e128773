"""The scene of every fault: a server, bystanders who must be answered as if alone, and nothing left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.server import SERVICE_NAME

from tests.server.fake_engine import FakeEngine
from tests.server.harness import GuideClient, RunningServer, picture, running

READY = {"live", "model", "ready", "", SERVICE_NAME}
_QUESTIONS = [
    ("how do I open the drawer", (200, 60, 20)),
    ("how do I close the lid slowly", (20, 160, 60)),
    ("the right hand opens the tap", (90, 90, 220)),
]
_SETTLE_SECONDS = 10.0

Answer = tuple[bytes, str]


@dataclass
class Scene:
    """A server under test.

    Attributes:
        server: The server, with a channel to it.
        engine: What it runs.
        answers: How often bystanders have been answered so far.
    """

    server: RunningServer
    engine: FakeEngine
    answers: int = 0

    async def several_answers(self, more: int = 3) -> None:
        """Waits until bystanders have been answered a few times more."""
        enough = self.answers + more
        async with asyncio.timeout(20):
            while self.answers < enough:  # noqa: ASYNC110 (a counter)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def scene(
    engine: FakeEngine, bystanders: int = 1, healthy_after: bool = True, retried: bool = False, **config: Any
) -> AsyncIterator[Scene]:
    """A warm server with bystanders who ask all the while.

    Afterwards every answer of theirs was that of an undisturbed run, bit for bit; sessions, queries, what the engine
    holds, tasks, threads and file descriptors are what they were before; and health says that all is well.

    Args:
        engine: What it runs.
        bystanders: How many ask at any time.
        healthy_after: Whether the server is to be healthy in the end; if not, it may have been stopped.
        retried: Whether a bystander may be refused for lack of room, and asks again.
        config: Settings.
    """
    async with running(engine, **config) as server:
        it = Scene(server, engine)
        await _fill_thread_pool()
        undisturbed = [await _ask(server.stub, number, retried=False) for number in range(len(_QUESTIONS))]
        await serving(server)
        await _eventually(lambda: _held(server, engine) == (0, 0, 0), lambda: f"before: {_held(server, engine)}")
        before = _facts()

        over = asyncio.Event()

        async def stand_by(which: int) -> None:
            while not over.is_set():
                which = (which + 1) % len(_QUESTIONS)
                assert await _ask(server.stub, which, retried) == undisturbed[which], "another answer than alone"
                it.answers += 1

        async with asyncio.TaskGroup() as group:  # a bystander's failure ends the test at once
            for number in range(bystanders):
                group.create_task(stand_by(number))
            yield it
            over.set()
        await _eventually(lambda: _held(server, engine) == (0, 0, 0), lambda: f"still held: {_held(server, engine)}")
        if healthy_after:
            assert await serving(server) == READY
        await _eventually(
            lambda: _no_more(before, _facts()), lambda: f"{before} before, {_facts()} after: {asyncio.all_tasks()}"
        )


async def serving(server: RunningServer) -> set[str]:
    """Returns the names that health says are SERVING."""
    stub = health_pb2_grpc.HealthStub(server.channel)
    answers = {name: await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in READY}
    return {name for name, answer in answers.items() if answer.status == health_pb2.HealthCheckResponse.SERVING}


@asynccontextmanager
async def own_channel(server: RunningServer) -> AsyncIterator[guidance_pb2_grpc.GuidanceStub]:
    """A connection that nobody shares, and which holds no more than 64 kB for a client that does not read."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(server.server.address, options=options) as channel:
        yield guidance_pb2_grpc.GuidanceStub(channel)


async def open_session(stub: guidance_pb2_grpc.GuidanceStub) -> tuple[GuideClient, pb.SessionStarted]:
    """Opens a session; returns what it began with, too."""
    client = GuideClient(stub)
    return client, (await client.read()).session_started


async def part(client: GuideClient) -> None:
    """Ends a session as friends do."""
    await client.call.done_writing()
    while await client.call.read() is not grpc.aio.EOF:
        pass


async def _ask(stub: guidance_pb2_grpc.GuidanceStub, which: int, retried: bool) -> Answer:
    text, color = _QUESTIONS[which]
    while True:
        try:
            client, _ = await open_session(stub)
        except grpc.aio.AioRpcError as error:
            if retried and error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                await asyncio.sleep(0.05)
                continue
            raise
        try:
            await client.frame(1, picture(color))
            await client.query(1, text)
            ended = (await _last(client))[-1]
            await part(client)
        finally:
            client.call.cancel()
        if ended.HasField("result"):
            return ended.result.image, ended.result.description
        assert retried and ended.error.code == pb.QueryError.CODE_OVERLOADED, ended.error
        await asyncio.sleep(0.05)


async def _last(client: GuideClient) -> list[pb.GuideResponse]:
    responses = [await client.read()]
    while responses[-1].WhichOneof("message") not in ("result", "error"):
        responses.append(await client.read())
    return responses


def _held(server: RunningServer, engine: FakeEngine) -> tuple[int, int, int]:
    gc.collect()
    return server.server.sessions, server.server.live_queries, engine.live_handles


@dataclass(frozen=True)
class _Facts:
    tasks: int
    threads: int
    files: int


def _facts() -> _Facts:
    return _Facts(len(asyncio.all_tasks()), threading.active_count(), len(os.listdir("/proc/self/fd")))


def _no_more(before: _Facts, after: _Facts) -> bool:
    return after.tasks <= before.tasks and after.threads <= before.threads and after.files <= before.files


async def _fill_thread_pool() -> None:
    """Has the event loop's own threads all started, so that none of them is taken for a leak."""
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.02) for _ in range(40)))


async def _eventually(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    until = time.monotonic() + _SETTLE_SECONDS
    while not condition():
        assert time.monotonic() < until, told()
        await asyncio.sleep(0.01)
