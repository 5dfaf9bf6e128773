"""Faults of wearers who come over WebSockets."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from contextlib import suppress
from statistics import mean

import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_server import stream
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import Scene, scene
from tests.server.faults.test_malformed import malformed_messages
from tests.server.harness import eventually, picture
from tests.server.web import http, web_connection, web_session

_STEPS = 120
_HALF_REQUESTS = (
    b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"\x16\x03\x01", b"\r\n" * 9, b"GET /\r\n\r\n",
)  # fmt: skip


def _connections(it: Scene) -> float | None:
    return it.server.server.telemetry.metrics.registry.get_sample_value("lego_web_connections")


async def test_what_waits_for_one_who_never_reads_is_bounded() -> None:
    async with (
        scene(FakeEngine(), bystanders=2, max_active=8, keepalive_seconds=600, web__port=0) as it,
        web_session(it.server.server, max_queue=(1, 0)) as client,
    ):
        await client.frame(1, picture(size=(640, 20)))
        client.socket.transport.pause_reading()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for query_id in (1, 2, 3):
            await client.query(query_id, steps=_STEPS, preview_every=1)
            await it.several_answers()
            await eventually(lambda: it.server.server.live_queries <= 2, seconds=20)  # the bystanders'
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        client.socket.transport.resume_reading()
        sizes = []
        for _ in (1, 2, 3):
            answer = await client.read_until("result")
            sizes += [len(each.progress.preview) for each in answer if each.HasField("progress")]
        assert answer[-1].result.query_id == 3, "what it was told last is still there"
    assert held < 3 * _STEPS * mean(sizes) / 2, "not half of all the previews there were"


async def test_one_who_never_reads_is_dropped_and_may_come_back() -> None:
    async with scene(FakeEngine(), keepalive_seconds=1, resume_seconds=30, web__port=0) as it:
        async with web_connection(it.server.server) as client:
            started = (await client.read()).session_started
            client.socket.transport.pause_reading()
            await client.frame(1, picture(size=(640, 480)))
            for query_id in range(1, 40):
                await client.query(query_id, steps=20, preview_every=1)
                await asyncio.sleep(0.02)
            await eventually(lambda: _connections(it) == 0, seconds=20)
            client.cut()
        async with web_session(it.server.server) as client:
            await client.write(pb.GuideRequest(resume=pb.Resume(token=started.resume_token)))
            assert (await client.read()).session_started.resumed
            while (await client.result()).query_id != 39:
                pass


async def test_one_who_never_reads_and_speaks_on_is_dropped_with_their_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_LAST_WORDS_SECONDS", 0.3)
    async with (
        scene(FakeEngine(), bystanders=0, idle_seconds=2, keepalive_seconds=1, web__port=0) as it,
        web_session(it.server.server) as client,
    ):
        client.socket.transport.pause_reading()
        await client.frame(1, picture(size=(640, 480)))
        for query_id in range(1, 40):
            await client.query(query_id, steps=20, preview_every=1)
            await asyncio.sleep(0.02)

        async def speak() -> None:
            with suppress(ConnectionClosed):
                while True:
                    await client.socket.ping()
                    await asyncio.sleep(0.1)

        speaking = asyncio.create_task(speak())
        await eventually(lambda: it.server.server.sessions == 0, seconds=20)
        await eventually(lambda: _connections(it) == 0, seconds=20)
        speaking.cancel()
        client.cut()


async def test_a_connection_that_goes_silent_is_found() -> None:
    async with (
        scene(FakeEngine(), keepalive_seconds=1, resume_seconds=0.5, web__port=0) as it,
        web_session(it.server.server) as client,
    ):
        await asyncio.sleep(3)
        assert _connections(it) == 1, "who answers pings is there"
        client.socket.transport.pause_reading()
        await eventually(lambda: _connections(it) == 0, seconds=20)
        client.cut()


async def test_a_frame_that_takes_long_to_come_is_a_sign_of_life() -> None:
    async with (
        scene(FakeEngine(), bystanders=0, keepalive_seconds=1, web__port=0) as it,
        web_session(it.server.server) as client,
    ):
        client.socket.transport.pause_reading()  # and answers no ping
        request = pb.GuideRequest(frame=pb.Frame(frame_id=1, image=picture()))
        data = Frame(Opcode.BINARY, request.SerializeToString()).serialize(mask=True)
        for at in range(0, len(data), len(data) // 10 + 1):
            client.socket.transport.write(data[at : at + len(data) // 10 + 1])
            await asyncio.sleep(0.5)
        client.socket.transport.resume_reading()
        await client.query(1)
        assert (await client.result()).frame_id == 1


async def test_thousands_of_malformed_messages_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(
        FakeEngine(), bystanders=2, retried=True, resume_seconds=0.5, max_image_bytes=8192, max_message_bytes=16_384,
        web__port=0,
    ) as it:  # fmt: skip
        messages, draw, ends = malformed_messages(), random.Random(5), set()
        for _ in range(60):
            async with web_session(it.server.server) as client:
                reading = asyncio.create_task(client.closed())
                with suppress(ConnectionClosed):
                    for _ in range(draw.randint(1, 30)):
                        await client.socket.send(draw.choice(messages))
                await client.socket.close()
                ends.add((await reading)[0])
        await it.several_answers()
    assert ends == {1000, 1009, 4003}
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_half_requests_and_no_requests_leave_nothing() -> None:
    async with scene(FakeEngine(), web__port=0) as it:
        assert it.server.server.gateway is not None
        port = it.server.server.gateway.port
        writers = []
        for said in _HALF_REQUESTS:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            writers.append(writer)
        assert (await http(it.server.server, "/health/live")).status == 200
        for writer in writers:
            writer.close()
        await eventually(lambda: _connections(it) == 0)
