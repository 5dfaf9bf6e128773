"""Clients that vanish, in every way there is: killed, cut off without a word, or there but not reading."""

from __future__ import annotations

import asyncio
import base64
import random
import subprocess
import sys
from pathlib import Path

import grpc
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import Scene, open_session, part, scene
from tests.server.harness import GuideClient, picture

_KILLS = 20


async def test_clients_killed_at_any_moment_leave_nothing() -> None:
    draw = random.Random(5)
    async with scene(FakeEngine(delay=0.003), resume_seconds=0.3, max_active=8) as it:
        # A few at a time: starting a process takes longer than a query.
        for _ in range(_KILLS // 4):
            wearers = [_start_wearer(it) for _ in range(4)]
            try:
                for wearer in wearers:
                    assert wearer.stdout is not None
                    assert await asyncio.to_thread(wearer.stdout.readline) == b"asking\n"
                for wearer in wearers:
                    await asyncio.sleep(draw.uniform(0, 0.1))
                    wearer.kill()
            finally:
                for wearer in wearers:
                    wearer.kill()
                    wearer.communicate()
        await it.several_answers()


def _start_wearer(it: Scene) -> subprocess.Popen[bytes]:
    script, frame = Path(__file__).with_name("wearer.py"), base64.b64encode(picture()).decode()
    return subprocess.Popen(
        [sys.executable, str(script), it.server.server.address, frame], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


class _Proxy:
    """Carries bytes between a client and the server until it is told to stop, which neither end is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> _Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def go_silent(self) -> None:
        self._open.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._carry(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
            await self._open.wait()
        except ConnectionError:
            pass
        finally:
            sink.close()


async def test_a_half_open_connection_is_found_its_session_kept_and_then_ended() -> None:
    engine = FakeEngine(delay=0.005)
    # gRPC gives a ping 10 s.
    async with scene(engine, keepalive_seconds=1.0, resume_seconds=1.5) as it, _Proxy(it.server.server.port) as proxy:
        connections = [await _ask_through(proxy, it) for _ in range(2)]
        proxy.go_silent()
        await asyncio.sleep(9)
        assert it.server.server.sessions >= 2, "nothing is known yet"
        # One comes back before its old connection is found to be dead, on another one.
        back = GuideClient(it.server.stub)
        await back.read()
        await back.call.write(pb.GuideRequest(resume=pb.Resume(token=connections[0][1])))
        again = (await back.read()).session_started
        assert again.resumed
        assert (await back.result()).query_id == 1
        await part(back)


async def _ask_through(proxy: _Proxy, it: Scene) -> tuple[grpc.aio.Channel, str]:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}", options=[("grpc.use_local_subchannel_pool", 1)])
    stub = type(it.server.stub)(channel)
    client, started = await open_session(stub)
    await client.frame()
    await client.query(1, steps=100)
    await client.read_until("progress")
    return channel, started.resume_token
