"""The load of `benchmarks.soak`: wearers of every kind, good and bad, on real connections, until the process is ended.

    python -m benchmarks.soak_load HOST:PORT --until-killed     # one wearer, to be killed at any moment

Each thing that happens is a line of JSON on stdout: `at` (Unix time), `what`, and what belongs to it. `answered` has
`seconds`, `refused` a `reason`; `wrong` is what a good server never does, and `told` says what it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from lego_server.bench.questions import draw_frame

_STEPS = 6
_PATIENCE_SECONDS = 120.0
_FRAMES = [draw_frame(seed) for seed in range(4)]
_QUERIES = ["how do I open the drawer?", "how do I close the lid?", "how do I clean the tap?"]
_BAD_FRAMES = [b"", b"no picture", _FRAMES[0][:40], b"\x89PNG\r\n\x1a\n" + bytes(60), bytes(9 * 2**20)]
_KILL_EVERY_SECONDS = 15.0
_random = random.Random(7)
_pictures: dict[tuple[int, int], str] = {}


def _tell(what: str, **values: Any) -> None:
    print(json.dumps({"at": time.time(), "what": what, **values}), flush=True)


class _Client:
    """One `Guide` stream, on a connection of its own."""

    def __init__(self, stub: guidance_pb2_grpc.GuidanceStub) -> None:
        self.call = stub.Guide()
        self.started = pb.SessionStarted()
        self.received = 0
        self.told_to_wait = 0.0  # seconds, by the last query refused
        self._next_id = 1
        self._asked: dict[int, tuple[int, int]] = {}

    async def read(self) -> pb.GuideResponse:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            response = await self.call.read()
        if not isinstance(response, pb.GuideResponse):
            raise ConnectionError("the stream has ended")
        self.received = max(self.received, response.sequence)
        return response

    async def open(self) -> None:
        self.started = (await self.read()).session_started

    async def send(self, **message: Any) -> None:
        await self.call.write(pb.GuideRequest(**message))

    async def ask(self, **options: Any) -> int:
        """Sends a frame and a query about it; returns their id."""
        number, self._next_id = self._next_id, self._next_id + 1
        frame, words = _random.randrange(len(_FRAMES)), _random.randrange(len(_QUERIES))
        self._asked[number] = frame, words
        await self.send(frame=pb.Frame(frame_id=number, image=_FRAMES[frame]))
        wishes = pb.GuidanceOptions(seed=3, steps=_STEPS, **options)
        await self.send(query=pb.Query(query_id=number, text=_QUERIES[words], options=wishes))
        return number

    def go_on_from(self, before: _Client) -> None:
        """Takes over what a broken stream had asked."""
        self.received, self._next_id, self._asked = before.received, before._next_id, before._asked

    async def end_of(self, query_id: int) -> str:
        """Reads until a query has ended; returns "answered" or why it was not."""
        while True:
            response = await self.read()
            if response.HasField("result") and response.result.query_id == query_id:
                self._compare(response.result)
                return "answered"
            if response.HasField("error") and response.error.query_id in (query_id, 0):
                # For the caller to wait: here a timeout would make the refusal unheard that has been received.
                self.told_to_wait = response.error.retry_after_ms / 1000
                return pb.QueryError.Code.Name(response.error.code).removeprefix("CODE_").lower()

    def _compare(self, result: pb.GuidanceResult) -> None:
        digest = hashlib.sha256(result.image).hexdigest()
        if _pictures.setdefault(self._asked[result.query_id], digest) != digest:
            _tell("wrong", told="the same frame, query and seed made another picture than before")


@asynccontextmanager
async def _connection(address: str) -> AsyncIterator[guidance_pb2_grpc.GuidanceStub]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield guidance_pb2_grpc.GuidanceStub(channel)


@asynccontextmanager
async def _client(address: str) -> AsyncIterator[_Client]:
    async with _connection(address) as stub:
        client = _Client(stub)
        await client.open()
        yield client
        await client.call.done_writing()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await client.call.read() is not grpc.aio.EOF:
                pass


async def _expect(client: _Client, outcome: str, *good: str) -> None:
    if outcome not in (*good, "answered", "overloaded"):
        _tell("wrong", told=f"a query ended as {outcome}")
    elif outcome == "overloaded":
        _tell("refused", reason=outcome)
        await asyncio.sleep(client.told_to_wait)
    elif outcome != "answered":
        _tell("ended", reason=outcome)


async def _asks(address: str) -> None:
    async with _client(address) as client:
        for _ in range(_random.randint(1, 5)):
            began = time.perf_counter()
            outcome = await client.end_of(await client.ask())
            if outcome == "answered":
                _tell("answered", seconds=time.perf_counter() - began)
            await _expect(client, outcome)


async def _supersedes(address: str) -> None:
    async with _client(address) as client:
        for _ in range(4):
            await client.ask()
            await asyncio.sleep(_random.uniform(0, 1))
        await _expect(client, await client.end_of(await client.ask()))


async def _cancels(address: str) -> None:
    async with _client(address) as client:
        number = await client.ask()
        await asyncio.sleep(_random.uniform(0, 2))
        await client.send(cancel=pb.Cancel(query_id=number))
        await _expect(client, await client.end_of(number), "cancelled", "unknown_query")


async def _breaks_and_resumes(address: str) -> None:
    async with _connection(address) as stub:
        before = _Client(stub)
        await before.open()
        number = await before.ask()
        first = await before.read()
        while not first.HasField("frame_received"):
            first = await before.read()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_random.uniform(0, 1.5)):
                outcome = await before.end_of(number)
            await _expect(before, outcome)
            return
    await asyncio.sleep(_random.uniform(0, 2))
    async with _client(address) as client:
        client.go_on_from(before)
        await client.send(resume=pb.Resume(token=before.started.resume_token, received=before.received))
        resumed = await client.read()
        if not resumed.session_started.resumed:
            # It gives way where there are too many sessions; here there never are.
            _tell("wrong", told="a session was not resumed")
            return
        await _expect(client, await client.end_of(number))
        _tell("resumed")


async def _sends_nonsense(address: str) -> None:
    async with _connection(address) as stub:
        client = _Client(stub)
        await client.open()
        for number, image in enumerate(_BAD_FRAMES, start=1):
            await client.send(frame=pb.Frame(frame_id=number, image=image))
        await client.send()
        await client.send(cancel=pb.Cancel(query_id=2**64 - 1))
        await client.send(resume=pb.Resume(token="no such token"))  # noqa: S106 (the point is that it is none)
        await client.send(query=pb.Query(query_id=1, text="", options=pb.GuidanceOptions(text_scale=float("nan"))))
        for _ in range(len(_BAD_FRAMES) + 4):
            while not (response := await client.read()).HasField("error"):
                pass
            _tell("refused", reason=pb.QueryError.Code.Name(response.error.code).removeprefix("CODE_").lower())
    for path in ("/lego.v1.Guidance/Guide", "/lego.v1.Guidance/Generate", "/no/such"):
        await _sends_garbage(address, path)


async def _sends_garbage(address: str, path: str) -> None:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(path)()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await call.write(_random.randbytes(200))
                while await call.read() is not grpc.aio.EOF:
                    pass
        except grpc.aio.AioRpcError as error:
            # Where the refusal overtakes the garbage, gRPC's Python client takes it for an error of its own.
            _tell(
                "refused",
                reason="before it was sent" if "from Core" in str(error.details()) else error.code().name.lower(),
            )


async def _does_not_read(address: str) -> None:
    async with _connection(address) as stub:
        client = _Client(stub)
        await client.open()
        for _ in range(6):
            await client.ask(preview_every=1)
            await asyncio.sleep(_random.uniform(0, 1.5))
        await asyncio.sleep(_random.uniform(0, 5))


async def _is_killed(address: str) -> None:
    """A wearer in a process of their own, ended without a word."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.soak_load", address, "--until-killed", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()  # it has asked
        await asyncio.sleep(_random.uniform(0, 2))
    finally:
        process.kill()
        await process.wait()
    _tell("killed")
    await asyncio.sleep(_KILL_EVERY_SECONDS)


async def _until_killed(address: str) -> None:
    async with _client(address) as client:
        while True:
            await client.ask(preview_every=1)
            print("asked", flush=True)
            await asyncio.sleep(1)


async def _again_and_again(behave: Callable[[str], Awaitable[None]], address: str) -> None:
    while True:
        try:
            await behave(address)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                _tell("wrong", told=f"{behave.__name__}: {error.code().name}: {error.details()}")
            _tell("refused", reason=error.code().name.lower())
            await asyncio.sleep(1)
        except (ConnectionError, TimeoutError) as error:
            _tell("wrong", told=f"{behave.__name__}: {error!r}")
        await asyncio.sleep(_random.uniform(0, 1))


async def _load(address: str) -> None:
    kinds = [_asks] * 4 + [
        _supersedes, _cancels, _cancels, _breaks_and_resumes, _breaks_and_resumes, _sends_nonsense, _does_not_read,
        _is_killed,
    ]  # fmt: skip
    async with asyncio.TaskGroup() as group:
        for kind in kinds:
            group.create_task(_again_and_again(kind, address))


if __name__ == "__main__":
    asyncio.run(_until_killed(sys.argv[1]) if "--until-killed" in sys.argv else _load(sys.argv[1]))
