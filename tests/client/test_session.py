"""The session over a real connection."""

from __future__ import annotations

import asyncio
import socket
from contextlib import aclosing

import grpc.aio
import pytest
from lego_client.answer import ask
from lego_client.backoff import Backoff
from lego_client.errors import ServerError
from lego_client.events import DescriptionPiece, Event, Guidance, GuidanceOptions, Progress, QueryFailed
from lego_client.session import GuidanceClient
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb

from tests.client.scenes import scene
from tests.client.scripted_server import PIECES, Script, ScriptedServer

QUERY = "how do I open the drawer?"


async def events_of(client: GuidanceClient, query: str = QUERY, options: GuidanceOptions | None = None) -> list[Event]:
    frame = await client.send_frame(scene())
    return [event async for event in client.ask(query, frame, options)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_connecting_learns_what_the_server_runs(server: ScriptedServer) -> None:
    async with GuidanceClient(server.target) as client:
        assert client.session_id == "session-1"
        assert client.info.model_version == "scripted-0123456789ab"
        assert client.info.defaults == GuidanceOptions(
            steps=4, text_scale=7.5, image_scale=1.5, sampler="euler_ancestral", jpeg_quality=90
        )
        assert client.info.notice


async def test_a_query_is_answered_piece_by_piece(server: ScriptedServer) -> None:
    async with GuidanceClient(server.target) as client:
        events = await events_of(client)
    pieces = [event for event in events if isinstance(event, DescriptionPiece)]
    assert [piece.text for piece in pieces] == list(PIECES)
    assert [piece.done for piece in pieces] == [False, False, True]
    progress = [event for event in events if isinstance(event, Progress)]
    assert (progress[-1].step, progress[-1].steps) == (4, 4)
    guidance = events[-1]
    assert isinstance(guidance, Guidance)
    assert (guidance.query_id, guidance.frame_id) == (1, 1)
    assert (guidance.width, guidance.height) == (320, 180)
    assert guidance.sampler == "euler"
    assert guidance.timings.total_ms == 21


async def test_only_the_options_given_are_sent(server: ScriptedServer) -> None:
    options = GuidanceOptions(
        seed=0, steps=2, text_scale=5.0, sampler="dpm_solver_pp", description="The hand waves.", fidelity="original"
    )
    async with GuidanceClient(server.target) as client:
        await events_of(client, options=options)
        await events_of(client)
    expected = pb.GuidanceOptions(
        seed=0,
        steps=2,
        text_scale=5.0,
        sampler=pb.SAMPLER_DPM_SOLVER_PP,
        description="The hand waves.",
        fidelity=pb.FIDELITY_ORIGINAL,
    )
    assert server.script.queries[0].options == expected
    assert server.script.queries[1].options == pb.GuidanceOptions()


async def test_queries_on_one_stream_have_their_own_answers_and_ids(server: ScriptedServer) -> None:
    async with GuidanceClient(server.target) as client:
        answers = [(await events_of(client, f"query {number}"))[-1] for number in range(3)]
    assert [(a.query_id, a.frame_id) for a in answers if isinstance(a, Guidance)] == [(1, 1), (2, 2), (3, 3)]
    assert [query.text for query in server.script.queries] == ["query 0", "query 1", "query 2"]


async def test_a_newer_query_supersedes_the_older() -> None:
    async with ScriptedServer(Script(steps=1000, step_seconds=0.02)) as server, GuidanceClient(server.target) as client:
        older = asyncio.create_task(events_of(client))
        await server.script.working.wait()
        newer = await events_of(client, options=GuidanceOptions(steps=1))
        last = (await older)[-1]
    assert isinstance(last, QueryFailed) and last.code == "superseded"
    assert isinstance(newer[-1], Guidance) and newer[-1].query_id == 2


async def test_leaving_the_iteration_cancels_the_query_on_the_server() -> None:
    async with ScriptedServer(Script(steps=1000, step_seconds=0.01)) as server, GuidanceClient(server.target) as client:
        frame = await client.send_frame(scene())
        async with aclosing(client.ask(QUERY, frame)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    break
        assert server.script.cancelled == [1]
        done = server.script.steps_done
        await asyncio.sleep(0.1)
        assert server.script.steps_done == done  # the work stopped
        following = await events_of(client, options=GuidanceOptions(steps=1))
    assert isinstance(following[-1], Guidance)  # and the session goes on


async def test_cancelling_the_task_cancels_the_query_on_the_server() -> None:
    async with ScriptedServer(Script(steps=1000, step_seconds=0.01)) as server, GuidanceClient(server.target) as client:
        asking = asyncio.create_task(events_of(client))
        await server.script.working.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert server.script.cancelled == [1]


async def test_an_answer_that_takes_too_long_is_cancelled() -> None:
    async with ScriptedServer(Script(steps=1000, step_seconds=0.01)) as server, GuidanceClient(server.target) as client:
        frame = await client.send_frame(scene())
        with pytest.raises(ServerError, match=r"no answer within 0\.2 s"):
            await ask(client, QUERY, frame, source="test", options=GuidanceOptions(), time_limit=0.2)
        assert server.script.cancelled == [1]


async def test_progress_nobody_read_is_replaced_by_newer_progress(server: ScriptedServer) -> None:
    async with GuidanceClient(server.target) as client:
        frame = await client.send_frame(scene())
        events = client.ask(QUERY, frame, GuidanceOptions(steps=100, preview_every=30))
        seen = [await anext(events)]
        await asyncio.sleep(0.3)  # a wearer's device busy with something else
        seen += [event async for event in events]
    progress = [event for event in seen if isinstance(event, Progress)]
    assert len(progress) < 10
    assert progress[-1].step == 100
    assert any(event.preview for event in progress)  # the newest preview is not lost with the rest


async def test_a_large_frame_is_shrunk_to_the_servers_limits(server: ScriptedServer) -> None:
    server.script.info.max_image_pixels = 30_000
    server.script.info.max_image_bytes = 4_000
    async with GuidanceClient(server.target) as client:
        sent = await client.send_frame(scene(width=640, height=480))
        _ = [event async for event in client.ask(QUERY, sent)]
    assert server.script.frames[1] == sent.encoded.jpeg
    assert len(sent.encoded.jpeg) <= 4_000
    assert sent.encoded.width * sent.encoded.height <= 30_000


async def test_a_query_that_is_no_text_is_not_sent(server: ScriptedServer) -> None:
    async with GuidanceClient(server.target) as client:
        with pytest.raises(LegoError, match=r"the query .* holds bytes that are no text; type it again, in UTF-8"):
            await anext(client.ask("caf\udce9"))
    assert server.script.queries == []


@pytest.mark.parametrize("query", ["", "   ", "\n"])
async def test_an_empty_query_is_not_sent(server: ScriptedServer, query: str) -> None:
    async with GuidanceClient(server.target) as client:
        with pytest.raises(LegoError, match="the query is empty"):
            await events_of(client, query)
    assert not server.script.queries


async def test_a_query_longer_than_the_server_allows_is_not_sent(server: ScriptedServer) -> None:
    async with GuidanceClient(server.target) as client:
        with pytest.raises(LegoError, match="has 201 characters; this server allows 200"):
            await events_of(client, "x" * 201)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (pb.QueryError.CODE_INVALID, LegoError, "steps is 5000"),
        (pb.QueryError.CODE_OVERLOADED, ServerError, "overloaded: steps is 5000"),
        (pb.QueryError.CODE_INTERNAL, ServerError, "steps is 5000"),
    ],
)
async def test_a_refusal_is_raised_in_the_servers_words(
    code: pb.QueryError.Code, kind: type[Exception], words: str
) -> None:
    script = Script(error=pb.QueryError(code=code, message="steps is 5000"))
    async with ScriptedServer(script) as server, GuidanceClient(server.target) as client:
        frame = await client.send_frame(scene())
        with pytest.raises(kind, match=words):
            await ask(client, QUERY, frame, source="test", options=GuidanceOptions(), time_limit=5)


async def test_a_refused_frame_is_named_as_the_reason() -> None:
    async with ScriptedServer(Script(refuse_frames="too dark")) as server, GuidanceClient(server.target) as client:
        last = (await events_of(client))[-1]
    assert isinstance(last, QueryFailed)
    assert last.code == "no_frame"
    assert "too dark" in last.message


async def test_no_server_is_reported_with_how_to_start_one() -> None:
    target = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=f"no server at {target}: start one with 'lego-server serve"):
        async with GuidanceClient(target):
            pass


async def test_a_server_that_does_not_answer_is_reported() -> None:
    async with ScriptedServer(Script(answers=False)) as server:
        with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
            async with GuidanceClient(server.target, timeout=0.3):
                pass


async def test_a_server_of_another_kind_is_reported() -> None:
    other = grpc.aio.server()
    port = other.add_insecure_port("127.0.0.1:0")
    await other.start()
    with pytest.raises(ServerError, match="is not a LEGO guidance server"):
        async with GuidanceClient(f"127.0.0.1:{port}"):
            pass
    await other.stop(None)


async def test_something_that_does_not_speak_grpc_is_reported() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(ServerError, match="is not a LEGO guidance server; check the port"):
            async with GuidanceClient(f"127.0.0.1:{port}"):
                pass


async def test_an_unknown_host_is_reported() -> None:
    with pytest.raises(ServerError, match=r"no host by the name in no-such-host\.invalid:50051; check its spelling"):
        async with GuidanceClient("no-such-host.invalid:50051"):
            pass


async def test_a_server_that_takes_no_session_is_quoted() -> None:
    async with ScriptedServer(Script(refuse_session="shutting down")) as server:
        with pytest.raises(ServerError, match="takes no session now: shutting down"):
            async with GuidanceClient(server.target):
                pass


async def test_a_server_that_dies_while_answering_is_reported() -> None:
    async with (
        ScriptedServer(Script(steps=1000, step_seconds=0.01)) as server,
        GuidanceClient(server.target, backoff=Backoff(0)) as client,
    ):
        asking = asyncio.create_task(events_of(client))
        await server.script.working.wait()
        await server.stop()
        with pytest.raises(ServerError, match="went away"):
            await asking
        with pytest.raises(ServerError):  # nothing more can be asked, and that is said rather than waited for
            await events_of(client)


@pytest.mark.parametrize(
    "target", ["", "localhost", "localhost:", "localhost:0", "localhost:70000", "http://a:1", "a b:1"]
)
def test_a_malformed_server_address_is_refused(target: str) -> None:
    with pytest.raises(LegoError, match="must be HOST:PORT"):
        GuidanceClient(target)


@pytest.mark.parametrize("target", ["localhost:50051", "10.0.0.7:1", "[::1]:50051", "gpu.example.org:443"])
def test_a_server_address_is_accepted(target: str) -> None:
    assert GuidanceClient(target).target == target


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is"),
        ({"steps": 0}, "steps is 0; it must be from 1"),
        ({"text_scale": 0.5}, "text-scale is 0.5"),
        ({"text_scale": float("nan")}, "text-scale is nan"),
        ({"image_scale": 11.0}, "image-scale is 11.0"),
        ({"guidance_interval": (0.5, 0.2)}, "guidance-interval is 0.5 to 0.2; its beginning must lie before its end"),
        ({"guidance_interval": (0.5, 2.0)}, "guidance-interval's end is 2.0; it must lie between 0 and 1"),
        ({"cache_interval": 0}, "cache-interval is 0"),
        ({"fidelity": "exact"}, "fidelity is 'exact'; choose one of default, original"),
        ({"sampler": "ddim"}, "sampler is 'ddim'; choose one of euler_ancestral"),
        ({"jpeg_quality": 0}, "quality is 0"),
        ({"description": " "}, "the description is empty"),
    ],
)
def test_an_option_out_of_range_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(LegoError, match=words):
        GuidanceOptions(**values)  # type: ignore[arg-type]
