"""Ten thousand messages that no honest client sends, while honest clients ask."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from lego_proto.v1 import guidance_pb2 as pb

from tests.server.fake_engine import FakeEngine
from tests.server.faults.scene import open_session, part, scene
from tests.server.harness import picture

_MESSAGES = 10_000
_SPEAKERS = 4
_PATHS = ("/lego.v1.Guidance/Guide", "/lego.v1.Guidance/Generate", "/lego.v1.Guidance/GetServerInfo")
_HUGE = 2**64 - 1
_TOLD = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}

_ids = st.sampled_from([0, 1, 2, 7, 2**31, 2**63, _HUGE])
_floats = st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 3.4e38, 0.5, 7.5])
_words = st.sampled_from(["", "?!", "open the drawer", "\0" * 40, "<eos>", "x" * 600, "\u202e\U0010ffff", "{}%s"])
_frames = st.builds(
    pb.Frame, frame_id=_ids, image=st.sampled_from([b"", b"\xff\xd8\xff", picture(), picture()[:50], b"GIF89a" * 9])
)
_options = st.builds(
    pb.GuidanceOptions,
    seed=_ids, steps=st.sampled_from([0, 1, 3, 2**32 - 1]), text_scale=_floats, image_scale=_floats,
    sampler=st.integers(-(2**31), 2**31 - 1), preview_every=st.sampled_from([0, 1, 2**32 - 1]), description=_words,
    jpeg_quality=st.sampled_from([0, 101, 2**32 - 1]), fidelity=st.integers(-2, 5), preview=st.integers(-2, 5),
)  # fmt: skip
_queries = st.builds(
    pb.Query,
    query_id=_ids, text=_words, frame_id=_ids, options=_options, deadline_ms=st.sampled_from([0, 1, 2**32 - 1]),
    model=_words,
)  # fmt: skip
_requests = st.one_of(
    st.just(pb.GuideRequest()),
    st.builds(pb.GuideRequest, frame=_frames),
    st.builds(pb.GuideRequest, query=_queries),
    st.builds(pb.GuideRequest, cancel=st.builds(pb.Cancel, query_id=_ids)),
    st.builds(pb.GuideRequest, resume=st.builds(pb.Resume, token=_words, received=_ids)),
)


@st.composite
def _mutations(draw: st.DrawFn) -> bytes:
    """A message with some of its bytes cut, changed, doubled or put in."""
    message: Message = draw(_requests)
    data = bytearray(message.SerializeToString())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["cut", "change", "double", "put in"])):
            case "cut":
                del data[at:]
            case "change" if at < len(data):
                data[at] ^= draw(st.integers(1, 255))
            case "double":
                data += data[at:]
            case _:
                data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


def malformed_messages() -> list[bytes]:
    """Returns messages of the protocol with some of their bytes wrong, and others that never were one."""
    found: list[bytes] = []

    @seed(11)
    @settings(
        max_examples=600, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.one_of(_mutations(), st.binary(max_size=64)))
    def collect(data: bytes) -> None:
        found.append(data)

    collect()
    found += [bytes(20_000)] * (len(found) // 100)  # more than the server takes
    draw = random.Random(11)
    return found + [draw.randbytes(draw.randrange(64)) for _ in range(len(found) // 10)]


class _Speaker:
    """Says whatever it is given, in calls of a random length.

    Its client has threads: grpc's asyncio client forgets a call whose end crosses a message of its own.
    """

    def __init__(self, port: int, messages: list[bytes], number: int) -> None:
        self._port = port
        self._messages = messages
        self._draw = random.Random(number)
        self._sent = 0
        self.statuses: Counter[grpc.StatusCode] = Counter()

    @property
    def received(self) -> int:
        """Messages that the server has had: all but the last of each call, which may have met its end."""
        return self._sent - self.statuses.total()

    def speak(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self._port}", options=options) as channel:
            while self.received < _MESSAGES / _SPEAKERS:
                path = self._draw.choices(_PATHS, [8, 1, 1])[0]
                method: Any = channel.stream_stream(path)
                call = method(self._requests(), timeout=30)
                try:
                    for _ in call:
                        pass
                    self.statuses[grpc.StatusCode.OK] += 1
                except grpc.RpcError as error:
                    self.statuses[error.code()] += 1

    def _requests(self) -> Iterator[bytes]:
        for _ in range(self._draw.randint(1, 60)):
            self._sent += 1
            yield self._draw.choice(self._messages)


async def test_ten_thousand_malformed_messages_harm_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with scene(
        FakeEngine(), bystanders=2, retried=True, resume_seconds=0.5, max_image_bytes=8192, max_message_bytes=16384
    ) as it:
        messages = malformed_messages()
        speakers = [_Speaker(it.server.server.port, messages, number) for number in range(_SPEAKERS)]
        with ThreadPoolExecutor(_SPEAKERS) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, each.speak) for each in speakers))
        await it.several_answers()

    statuses = sum((each.statuses for each in speakers), Counter[grpc.StatusCode]())
    assert sum(each.received for each in speakers) >= 10_000
    assert set(statuses) <= _TOLD, statuses
    assert statuses[grpc.StatusCode.INVALID_ARGUMENT] and statuses[grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_flood_of_resumptions_moves_one_session_about_and_leaves_one() -> None:
    async with scene(FakeEngine(delay=0.001), resume_seconds=0.5) as it:
        client, started = await open_session(it.server.stub)
        await client.frame()
        await client.query(1, steps=300)
        await client.read_until("progress")
        stolen = [(await open_session(it.server.stub))[0] for _ in range(30)]
        for each in stolen:
            await each.call.write(pb.GuideRequest(resume=pb.Resume(token=started.resume_token, received=_HUGE)))
        with pytest.raises(grpc.aio.AioRpcError, match="another stream"):
            await client.result()
        winner = None
        for each in stolen:
            again = (await each.read()).session_started
            assert again.resumed and again.session_id == started.session_id
        for each in stolen:
            try:
                await each.result()
                winner = each
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED
        assert winner is not None, "somebody got the answer"
        await part(winner)


async def test_a_session_that_resumes_itself_goes_on() -> None:
    async with scene(FakeEngine()) as it:
        client, started = await open_session(it.server.stub)
        await client.call.write(pb.GuideRequest(resume=pb.Resume(token=started.resume_token)))
        again = (await client.read()).session_started
        assert again.resumed and again.session_id == started.session_id
        await client.frame()
        await client.query(1)
        assert (await client.result()).query_id == 1
        await part(client)
