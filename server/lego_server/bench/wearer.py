"""One simulated wearer: a `Guide` stream that asks, and notes when what came."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc

from lego_server.bench.sample import Load, Sample

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0  # seconds: what a polite client waits after a refusal, doubled each time
_PARTING_SECONDS = 1.0


class Wearer:
    """A session with a server; use it in `async with`."""

    def __init__(self, number: int, channel: grpc.aio.Channel, load: Load, began: float) -> None:
        """Sends nothing yet.

        Args:
            number: Tells wearers apart.
            channel: To the server.
            load: How to ask.
            began: `time.perf_counter()` when measuring began.
        """
        self.number = number
        self._stub = guidance_pb2_grpc.GuidanceStub(channel)
        self._load = load
        self._began = began
        self._random = random.Random(f"{load.seed} {number}")
        self._next_id = 1
        self._asking = False
        self._call: grpc.aio.StreamStreamCall[pb.GuideRequest, pb.GuideResponse] | None = None

    async def __aenter__(self) -> Self:
        self._call = self._stub.Guide()
        try:
            async with asyncio.timeout(self._load.time_limit):
                await self._call.read()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            told = error.details() if isinstance(error, grpc.aio.AioRpcError) else "it does not answer"
            raise LegoError(f"wearer {self.number} gets no session: {told}") from error
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._call is None:
            return
        if not self._asking:  # part as friends: a server keeps the session of a stream that breaks, for a while
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
                async with asyncio.timeout(_PARTING_SECONDS):
                    await self._call.done_writing()
                    while await self._call.read() is not grpc.aio.EOF:
                        pass
        self._call.cancel()

    async def ask(self, sample: Sample, frame: bytes, query: str, retry: bool) -> None:
        """Asks, and fills in the sample as the answer comes.

        Args:
            sample: To be filled in.
            frame: Encoded.
            query: The words.
            retry: Ask again, later, when the server is overloaded.
        """
        assert self._call is not None
        self._asking = True
        try:
            async with asyncio.timeout(self._load.time_limit):
                while (after := await self._answered(sample, frame, query)) is not None and retry:
                    delay = min(_FIRST_DELAY * 2 ** len(sample.retry_delays), _LONGEST_DELAY)
                    # At random, or all who were refused together would come back together.
                    delay = after + delay * self._random.uniform(0.5, 1.0)
                    sample.retry_delays.append(delay)
                    await asyncio.sleep(delay)
        except TimeoutError:
            sample.outcome = "timeout"
        except grpc.aio.AioRpcError as error:
            sample.outcome = error.code().name.lower()
        else:
            self._asking = False
        sample.done = self._now()

    async def _answered(self, sample: Sample, frame: bytes, query: str) -> float | None:
        """Asks once; returns in how many seconds it may be worth asking again, None if that is the end of it."""
        assert self._call is not None
        number, self._next_id = self._next_id, self._next_id + 1
        options = pb.GuidanceOptions(
            seed=self._load.seed, steps=self._load.steps, preview_every=self._load.preview_every or None
        )
        if sample.sent is None:
            sample.sent = self._now()
        await self._call.write(pb.GuideRequest(frame=pb.Frame(frame_id=number, image=frame)))
        asked = pb.Query(query_id=number, text=query, frame_id=number, options=options)
        if self._load.deadline is not None:
            asked.deadline_ms = round(1000 * self._load.deadline)
        await self._call.write(pb.GuideRequest(query=asked))
        while True:
            response = await self._call.read()
            if not isinstance(response, pb.GuideResponse):
                sample.outcome = "stream_ended"
                return None
            match response.WhichOneof("message"):
                case "description_delta" if response.description_delta.text and sample.first_token is None:
                    sample.first_token = self._now()
                case "progress" if response.progress.preview and sample.first_preview is None:
                    sample.first_preview = self._now()
                case "result" if response.result.query_id == number:
                    sample.outcome = "answered"
                    return None
                case "error" if response.error.query_id in (0, number):
                    sample.outcome = pb.QueryError.Code.Name(response.error.code).removeprefix("CODE_").lower()
                    return response.error.retry_after_ms / 1000 or None

    def _now(self) -> float:
        return time.perf_counter() - self._began
