"""A session over connections that break: what the wearer sees, and what the server is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest
from lego_client.answer import ask
from lego_client.backoff import Backoff, Outage
from lego_client.errors import ServerError
from lego_client.events import (
    ConnectionLost,
    DescriptionPiece,
    Event,
    Guidance,
    GuidanceOptions,
    Progress,
    QueryFailed,
    QueryRestarted,
    Reconnected,
)
from lego_client.session import GuidanceClient
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb

from tests.client.scenes import scene
from tests.client.scripted_server import PIECES, Script, ScriptedServer
from tests.client.test_play import index_of_jpeg, shade_of_jpeg

QUERY = "how do I open the drawer?"
SENTENCE = "".join(PIECES)


def quick(seconds: float = 5.0) -> Backoff:
    return Backoff(seconds, base=0.01, cap=0.05)


@asynccontextmanager
async def session(
    script: Script, backoff: Backoff | None = None
) -> AsyncIterator[tuple[ScriptedServer, GuidanceClient]]:
    async with ScriptedServer(script) as server, GuidanceClient(server.target, backoff=backoff or quick()) as client:
        yield server, client


async def events_of(client: GuidanceClient, deadline: float | None = None, retries: int = 0) -> list[Event]:
    frame = await client.send_frame(scene())
    return [event async for event in client.ask(QUERY, frame, deadline_seconds=deadline, retries=retries)]


def sentence(events: Sequence[Event]) -> str:
    """Returns the description as someone reads it who heeds restarts."""
    text = ""
    for event in events:
        match event:
            case DescriptionPiece(text=piece):
                text += piece
            case QueryRestarted():
                text = ""
    return text


async def frames_have_come(script: Script, count: int) -> None:
    while len(script.frames) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def endings(events: Sequence[Event]) -> int:
    return sum(isinstance(event, Guidance | QueryFailed) for event in events)


def kinds(events: Sequence[Event]) -> list[type]:
    return [type(event) for event in events if not isinstance(event, DescriptionPiece | Progress)]


@pytest.mark.parametrize("after", range(1, 8))
async def test_a_resumed_session_goes_on_wherever_the_stream_broke(after: int) -> None:
    script = Script(resumable=True, breaks=[after], step_seconds=0.01)
    async with session(script) as (_, client):
        events = await events_of(client)
        assert client.session_id == "session-1"

    assert kinds(events) == [ConnectionLost, Reconnected, Guidance]
    assert [e for e in events if isinstance(e, Reconnected)] == [Reconnected(resumed=True)]
    assert sentence(events) == SENTENCE
    assert len(script.queries) == len(script.frames) == 1, "nothing was sent again"
    assert [(resume.token, resume.received) for resume in script.resumes] == [("token of session-1", after)]


async def test_messages_that_come_twice_are_shown_once() -> None:
    script = Script(resumable=True, breaks=[4], repeats=True, step_seconds=0.01)
    async with session(script) as (_, client):
        events = await events_of(client)

    assert sentence(events) == SENTENCE
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == sorted(set(steps))
    assert endings(events) == 1


@pytest.mark.parametrize("breaks", [[2, 0, 0, 2, 1], [1, 1, 1, 1, 1, 1]])
async def test_a_link_that_breaks_again_and_again_delays_the_answer_only(breaks: list[int]) -> None:
    async with session(Script(resumable=True, breaks=breaks, step_seconds=0.005)) as (_, client):
        events = await events_of(client)
    assert isinstance(events[-1], Guidance) and endings(events) == 1
    assert sentence(events) == SENTENCE


@pytest.mark.parametrize(
    "script",
    [
        Script(resumable=True, forgets=True, breaks=[5]),
        Script(breaks=[5]),  # from before there were tokens
        Script(
            resumable=True, breaks=[5],
            resume_reply=pb.GuideResponse(
                sequence=1, error=pb.QueryError(code=pb.QueryError.CODE_INVALID, message="no such message")
            ),
        ),
    ],
    ids=["forgets", "no tokens", "answers with an error"],
)  # fmt: skip
async def test_where_the_session_is_lost_frame_and_query_are_sent_again(script: Script) -> None:
    script.step_seconds = 0.005
    async with session(script) as (_, client):
        events = await events_of(client)
        assert client.session_id == "session-2"

    assert kinds(events) == [ConnectionLost, Reconnected, QueryRestarted, Guidance]
    assert Reconnected(resumed=False) in events
    assert sentence(events) == SENTENCE
    first, again = script.queries
    assert first.text == again.text and first.options == again.options
    assert script.frames[first.frame_id] == script.frames[again.frame_id]
    guidance = events[-1]
    assert isinstance(guidance, Guidance) and guidance.query_id == again.query_id


async def test_a_server_that_is_killed_and_started_again_answers_once() -> None:
    async with session(Script(steps=40, step_seconds=0.005, resumable=True)) as (server, client):
        asking = asyncio.create_task(events_of(client))
        await server.script.working.wait()
        await server.stop()
        await asyncio.sleep(0.1)
        await server.restart()
        events = await asking
        following = await events_of(client)

    assert kinds(events) == [ConnectionLost, Reconnected, QueryRestarted, Guidance]
    assert sentence(events) == SENTENCE
    assert kinds(following) == [Guidance]


async def test_a_query_lost_on_the_way_is_sent_again_in_the_resumed_session() -> None:
    script = Script(resumable=True, lost_queries=1)
    async with session(script) as (_, client):
        events = await events_of(client)
    assert kinds(events) == [ConnectionLost, Reconnected, Guidance]
    assert [query.query_id for query in script.queries] == [1]


async def test_a_query_that_was_not_lost_is_not_confused_by_being_sent_again() -> None:
    script = Script(resumable=True, frame_credits=4, breaks=[1], step_seconds=0.01)  # the first message is the frame's
    async with session(script) as (_, client):
        events = await events_of(client)
    assert isinstance(events[-1], Guidance) and endings(events) == 1
    assert sentence(events) == SENTENCE


async def test_an_old_frame_can_be_asked_about_after_a_restart() -> None:
    async with session(Script()) as (server, client):
        old = await client.send_frame(scene(40))
        newer = await client.send_frame(scene(200))
        await server.stop()
        await server.restart()
        answers = [[event async for event in client.ask(QUERY, frame)] for frame in (newer, old, newer)]
        frames = dict(server.script.frames)
    shades = [shade_of_jpeg(frames[a[-1].frame_id]) for a in answers if isinstance(a[-1], Guidance)]
    assert shades == pytest.approx([200, 40, 200], abs=4)


async def test_a_query_may_be_asked_while_the_connection_is_lost() -> None:
    async with session(Script()) as (server, client):
        await server.stop()
        await asyncio.sleep(0.1)
        asking = asyncio.create_task(events_of(client))
        await asyncio.sleep(0.1)
        await server.restart()
        events = await asking
    assert kinds(events)[0] is ConnectionLost
    assert isinstance(events[-1], Guidance) and endings(events) == 1


async def test_a_server_that_stays_away_is_given_up_in_time() -> None:
    async with session(Script(steps=1000, step_seconds=0.01), quick(0.3)) as (server, client):
        asking = asyncio.create_task(events_of(client))
        await server.script.working.wait()
        await server.stop()
        with pytest.raises(ServerError, match="did not come back in time: no server at"):
            await asking
        with pytest.raises(ServerError, match="did not come back in time"):
            await events_of(client)


async def test_a_query_that_breaks_its_server_each_time_is_given_up() -> None:
    script = Script(dies_at_step=2)
    async with session(script) as (_, client):
        with pytest.raises(ServerError, match="lost this query 6 times"):
            await events_of(client)
    assert len(script.queries) == 6


async def test_a_server_that_breaks_every_stream_at_once_is_given_up_in_time() -> None:
    async with session(Script(resumable=True, breaks=[1, *[0] * 1000]), quick(0.3)) as (_, client):
        with pytest.raises(ServerError, match="did not come back in time"):
            await events_of(client)


async def test_a_query_left_while_the_connection_is_lost_is_cancelled_later() -> None:
    script = Script(resumable=True, steps=1000, step_seconds=0.01, breaks=[5])
    async with session(script) as (_, client):
        frame = await client.send_frame(scene())
        async with aclosing(client.ask(QUERY, frame)) as events:
            async for event in events:
                if isinstance(event, ConnectionLost):
                    break
        following = [event async for event in client.ask(QUERY, frame, GuidanceOptions(steps=1))]
    assert script.cancelled == [1]
    assert isinstance(following[-1], Guidance) and endings(following) == 1


async def test_the_deadline_travels_and_what_is_left_of_it_when_asked_again() -> None:
    script = Script(resumable=True, forgets=True, breaks=[5], step_seconds=0.02)
    async with session(script) as (_, client):
        await events_of(client, deadline=10)
    first, again = (query.deadline_ms for query in script.queries)
    assert 9000 < first <= 10_000
    assert first - 2000 < again < first - 20


async def test_a_query_past_its_deadline_ends_even_while_the_connection_is_lost() -> None:
    async with session(Script(steps=1000, step_seconds=0.01)) as (server, client):
        asking = asyncio.create_task(events_of(client, deadline=0.2))
        await server.script.working.wait()
        await server.stop()
        last = (await asking)[-1]
    assert isinstance(last, QueryFailed) and last.code == "deadline_exceeded"


@pytest.mark.parametrize("code", [pb.QueryError.CODE_OVERLOADED, pb.QueryError.CODE_UNAVAILABLE])
async def test_a_server_without_room_is_asked_again_when_it_says(code: pb.QueryError.Code) -> None:
    script = Script(refusals=[pb.QueryError(code=code, message="full", retry_after_ms=20)] * 2)
    async with session(script) as (_, client):
        events = await events_of(client, retries=2)
    assert kinds(events) == [QueryRestarted, QueryRestarted, Guidance]
    assert [query.query_id for query in script.queries] == [1, 2, 3]


@pytest.mark.parametrize(
    ("retries", "retry_after_ms", "deadline"), [(1, 20, None), (0, 20, None), (5, 0, None), (5, 60_000, 1.0)]
)
async def test_a_refusal_is_final_without_retries_a_time_or_room_before_the_deadline(
    retries: int, retry_after_ms: int, deadline: float | None
) -> None:
    refusal = pb.QueryError(code=pb.QueryError.CODE_OVERLOADED, message="full", retry_after_ms=retry_after_ms)
    async with session(Script(error=refusal)) as (_, client):
        events = await events_of(client, deadline, retries)
    last = events[-1]
    assert isinstance(last, QueryFailed) and last.code == "overloaded" and endings(events) == 1


async def test_previews_of_a_picture_that_was_begun_anew_are_dropped() -> None:
    script = Script(resumable=True, forgets=True, breaks=[5], step_seconds=0.005)
    async with session(script) as (_, client):
        frame = await client.send_frame(scene())
        options = GuidanceOptions(preview_every=1)
        answer = await ask(client, QUERY, frame, source="test", options=options, time_limit=10)
    assert [step for step, _ in answer.previews] == [1, 2, 3]


async def test_no_more_frames_are_on_their_way_than_the_server_allows_and_the_newest_wins() -> None:
    script = Script(frame_credits=1)
    async with session(script) as (_, client):
        script.acknowledging.clear()
        client.offer_frame(scene(8))
        await frames_have_come(script, 1)
        for shade in (40, 80, 120, 160):
            client.offer_frame(scene(shade))
            await asyncio.sleep(0.01)
        assert len(script.frames) == 1
        script.acknowledging.set()
        await frames_have_come(script, 2)
        await asyncio.sleep(0.05)
    assert [index_of_jpeg(data) for data in script.frames.values()] == [1, 20]


async def test_a_frame_asked_about_is_sent_whatever_is_offered() -> None:
    script = Script(frame_credits=1)
    async with session(script) as (_, client):
        script.acknowledging.clear()
        client.offer_frame(scene(8))
        sending = asyncio.create_task(client.send_frame(scene(80)))
        await asyncio.sleep(0.05)
        client.offer_frame(scene(120))
        script.acknowledging.set()
        frame = await sending
        last = [event async for event in client.ask(QUERY, frame)][-1]
    assert isinstance(last, Guidance)
    assert shade_of_jpeg(script.frames[last.frame_id]) == pytest.approx(80, abs=4)


async def test_the_model_chosen_is_asked() -> None:
    script = Script()
    script.info.models.extend(["small", "large"])
    script.info.max_deadline_ms = 90_000
    async with ScriptedServer(script) as server, GuidanceClient(server.target, model="large") as client:
        await events_of(client)
        assert (client.info.models, client.info.max_deadline_seconds) == (("small", "large"), 90.0)
    assert [query.model for query in script.queries] == ["large"]


@pytest.mark.parametrize(("models", "words"), [([], "runs scripted only; leave --model out"), (["small"], "'huge'")])
async def test_a_model_the_server_does_not_have_is_refused(models: list[str], words: str) -> None:
    script = Script()
    script.info.models.extend(models)
    async with ScriptedServer(script) as server:
        with pytest.raises(LegoError, match=words):
            async with GuidanceClient(server.target, model="huge"):
                pass


async def test_the_kind_of_preview_travels() -> None:
    script = Script()
    async with session(script) as (_, client):
        frame = await client.send_frame(scene())
        for kind in ("fast", "full", None):
            _ = [event async for event in client.ask(QUERY, frame, GuidanceOptions(preview=kind))]
    assert [query.options.preview for query in script.queries] == [pb.PREVIEW_FAST, pb.PREVIEW_FULL, 0]


async def test_a_server_that_is_not_there_yet_is_waited_for_if_asked() -> None:
    async with ScriptedServer() as server:
        await server.stop()
        client = GuidanceClient(server.target, backoff=quick(), wait_seconds=5)
        connecting = asyncio.create_task(client.__aenter__())
        await asyncio.sleep(0.1)
        await server.restart()
        await connecting
        assert isinstance((await events_of(client))[-1], Guidance)
        await client.__aexit__(None, None, None)


async def test_waits_are_jittered_doubled_and_bounded() -> None:
    now, waits = 0.0, []
    draws = iter([0.0, 1.0, 0.5, 1.0, 1.0, 1.0])
    outage = Outage(Backoff(0.02, base=0.001, cap=0.004, uniform=lambda: next(draws), clock=lambda: now))
    loop = asyncio.get_running_loop()
    for _ in range(5):
        before = loop.time()
        await outage.pause()
        waits.append(loop.time() - before)
    assert [wait >= least for wait, least in zip(waits, (0, 0.002, 0.002, 0.004, 0.004), strict=True)] == [True] * 5
    now = 0.0205
    assert outage.seconds_left < 0
    before = loop.time()
    await outage.pause(at_least=10)
    assert loop.time() - before < 1


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_time_to_reconnect_out_of_range_is_refused(seconds: float) -> None:
    with pytest.raises(LegoError, match="reconnect is"):
        Backoff(seconds)
