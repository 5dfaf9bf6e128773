"""Puts a load on a server: closed loop or open loop, until its time is over or it is stopped."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import grpc.aio
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from lego_server.bench.questions import Questions
from lego_server.bench.sample import Load, Sample
from lego_server.bench.wearer import Wearer

_CONNECT_SECONDS = 10.0
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 2**20),
    # A connection of its own for each wearer, as wearers have; gRPC would share one.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass
class Measurement:
    """What a load has shown.

    Attributes:
        samples: Every query that became due, in order of being due.
        seconds: From the first query until the last answer, or until it was stopped.
        stopped: Whether it was stopped before its end.
        server: What the server runs.
    """

    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    server: dict[str, str] = field(default_factory=dict)


async def measure(address: str, load: Load, questions: Questions, stop: asyncio.Event) -> Measurement:
    """Runs a load; setting `stop` ends it at once, with what has been measured so far.

    Raises:
        LegoError: No server is there, or it takes fewer sessions than there are wearers.
    """
    measurement = Measurement()
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS))
            for _ in range(load.wearers)
        ]
        measurement.server = await _server_info(address, channels[0])
        await _warm_up(channels, load, questions, stop)
        began = time.perf_counter()
        wearers = [
            await stack.enter_async_context(Wearer(number, channel, load, began))
            for number, channel in enumerate(channels)
        ]
        run = _closed_loop if load.rate is None else _open_loop
        asking = asyncio.create_task(run(wearers, load, questions, measurement.samples, began))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        measurement.stopped = not asking.done()
        for task in (asking, stopping):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        measurement.seconds = time.perf_counter() - began
    return measurement


async def _closed_loop(
    wearers: list[Wearer], load: Load, questions: Questions, samples: list[Sample], began: float
) -> None:
    """Each wearer asks again as soon as answered; one that is refused tries the same again, later."""

    async def go_on(wearer: Wearer) -> None:
        while time.perf_counter() - began < load.seconds and len(samples) < (load.count or len(samples) + 1):
            sample = Sample(wearer.number, time.perf_counter() - began)
            samples.append(sample)
            await wearer.ask(sample, *questions.next(), retry=True)

    async with asyncio.TaskGroup() as group:
        for wearer in wearers:
            group.create_task(go_on(wearer))


async def _open_loop(
    wearers: list[Wearer], load: Load, questions: Questions, samples: list[Sample], began: float
) -> None:
    """Queries become due at random moments that do not depend on the server; each takes the next free wearer.

    One that finds no wearer free waits for it, and that wait is part of its latency: a server that stalls cannot make
    the queries that should have come meanwhile disappear from the figures.
    """
    assert load.rate is not None
    arrivals = random.Random(load.seed)
    free: asyncio.Queue[Wearer] = asyncio.Queue()
    for wearer in wearers:
        free.put_nowait(wearer)

    async def ask(sample: Sample) -> None:
        wearer = await free.get()
        sample.wearer = wearer.number
        try:
            await wearer.ask(sample, *questions.next(), retry=False)
        finally:
            free.put_nowait(wearer)

    due = 0.0
    async with asyncio.TaskGroup() as group:
        while len(samples) < (load.count or len(samples) + 1):
            due += arrivals.expovariate(load.rate)
            if due >= load.seconds:
                break
            await asyncio.sleep(began + due - time.perf_counter())
            sample = Sample(-1, due)
            samples.append(sample)
            group.create_task(ask(sample))


async def _warm_up(channels: list[grpc.aio.Channel], load: Load, questions: Questions, stop: asyncio.Event) -> None:
    async def ask(number: int, channel: grpc.aio.Channel) -> None:
        async with Wearer(number, channel, load, 0.0) as wearer:
            for _ in range(load.warm_up):
                if not stop.is_set():
                    await wearer.ask(Sample(number, 0.0), *questions.next(), retry=True)

    if load.warm_up:
        await asyncio.gather(*(ask(number, channel) for number, channel in enumerate(channels)))


async def _server_info(address: str, channel: grpc.aio.Channel) -> dict[str, str]:
    try:
        stub = guidance_pb2_grpc.GuidanceStub(channel)
        info = await stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=_CONNECT_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise LegoError(
            f"no guidance server answers at {address} ({error.code().name.lower()}); start one with lego-server serve, "
            "or leave --server out to have one started"
        ) from error
    return {"model": info.model_version, "engine": info.engine}
