"""Questions asked by a wearer, over real connections that may break."""

from __future__ import annotations

import asyncio
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.errors import ServerError
from lego_client.overlay.labels import State
from lego_client.sources import RING_SIZE
from lego_client.sources.watch import PictureWatch
from lego_proto.v1 import guidance_pb2 as pb

from tests.client.live.parts import QUERY, Camera, live, until
from tests.client.scenes import scene
from tests.client.scripted_server import PIECES, Script, ScriptedServer
from tests.client.test_session import free_port


async def test_a_typed_question_gets_its_picture_and_its_sentence(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        wearer.type(QUERY)
        assert wearer.state.doing is State.THINKING
        await until(lambda: wearer.state.doing is State.ANSWER)
        exchange = wearer.state.shown
    assert exchange is not None and exchange.guidance is not None and exchange.picture is not None
    assert (exchange.query, exchange.description) == (QUERY, "".join(PIECES))
    assert exchange.picture.shape == (180, 320, 3)
    answer = exchange.answer("a camera")
    assert answer is not None and len(answer.previews) == 1


async def test_a_newer_question_takes_the_place_of_one_under_way(tmp_path: Path) -> None:
    async with ScriptedServer(Script(step_seconds=0.2)) as server, live(server.target, tmp_path) as wearer:
        wearer.conversation.ask("first")
        await until(lambda: server.script.working.is_set())
        wearer.conversation.ask("second")
        await until(lambda: wearer.state.doing is State.ANSWER)
        older, newer = wearer.state.exchanges
    assert "newer question" in older.failed and older.guidance is None
    assert newer.guidance is not None
    assert server.script.cancelled == [1]


async def test_a_question_asked_while_the_server_is_away_waits_for_it(tmp_path: Path) -> None:
    server = ScriptedServer()
    server.target = f"127.0.0.1:{free_port()}"
    async with live(server.target, tmp_path) as wearer:
        wearer.conversation.ask("never heard")
        wearer.conversation.ask(QUERY)  # one waits, the newest
        await until(lambda: wearer.state.doing is State.OFFLINE)
        async with server:
            await until(lambda: wearer.state.doing is State.ANSWER)
            assert [query.text for query in server.script.queries] == [QUERY]


async def test_a_server_that_restarts_in_the_middle_is_told_and_the_question_answered(tmp_path: Path) -> None:
    async with ScriptedServer(Script(step_seconds=0.3)) as server, live(server.target, tmp_path) as wearer:
        wearer.conversation.ask(QUERY)
        await until(lambda: server.script.working.is_set())
        await server.stop()
        await until(lambda: wearer.state.doing is State.OFFLINE)
        server.script.step_seconds = 0
        await server.restart()
        await until(lambda: wearer.state.doing is State.ANSWER)
        exchange = wearer.state.shown
    assert exchange is not None and exchange.description == "".join(PIECES)


async def test_nothing_is_sent_before_the_wearer_begins_to_ask(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        wearer.source.wait_for(1, 5)
        assert server.script.frames == {}
        wearer.controls.press("enter")
        wearer.controls.press("h")
        await until(lambda: len(server.script.frames) == 1)
        assert server.script.queries == []


async def test_a_question_is_about_the_view_that_was_sent_while_it_was_typed(
    server: ScriptedServer, tmp_path: Path
) -> None:
    async with live(server.target, tmp_path) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        wearer.source.wait_for(1, 5)
        wearer.controls.press("enter")
        wearer.controls.press("h")
        await until(lambda: len(server.script.frames) == 1)
        wearer.controls.press("i")
        wearer.controls.press("enter")
        await until(lambda: wearer.state.doing is State.ANSWER)
        shown = wearer.state.shown
    assert [query.frame_id for query in server.script.queries] == list(server.script.frames)
    assert shown is not None and shown.frame is not None
    assert [shown.frame.encoded.jpeg] == list(server.script.frames.values())


@pytest.mark.parametrize("since", ["sharper views", "another view"])
async def test_a_question_is_not_about_a_view_sent_before_if_there_is_a_better_one(
    since: str, server: ScriptedServer, tmp_path: Path
) -> None:
    camera = Camera()
    blurred = cv2.GaussianBlur(scene(), (0, 0), 2)
    async with live(server.target, tmp_path, camera=camera) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        camera.shows.put(blurred)
        camera.wait_for(1, 5)
        wearer.conversation.look_ahead()
        await until(lambda: len(server.script.frames) == 1)
        for _ in range(RING_SIZE if since == "another view" else 3):
            camera.shows.put(blurred if since == "another view" else scene())
        camera.wait_for(RING_SIZE + 1 if since == "another view" else 4, 5)
        wearer.conversation.ask(QUERY)
        await until(lambda: wearer.state.doing is State.ANSWER)
    first, second = server.script.frames
    assert [query.frame_id for query in server.script.queries] == [second] != [first]


async def test_a_view_that_is_older_than_the_present_is_not_asked_about(server: ScriptedServer, tmp_path: Path) -> None:
    camera = Camera()
    async with live(server.target, tmp_path, camera=camera) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        camera.shows.put(scene())
        camera.wait_for(1, 5)
        wearer.conversation.look_ahead()
        await until(lambda: len(server.script.frames) == 1)
        await asyncio.sleep(0.6)  # of a slow camera, whose newest frames are seconds apart
        for shade in range(RING_SIZE - 1):
            camera.shows.put(scene(100 + shade))
        camera.wait_for(RING_SIZE, 5)
        wearer.conversation.ask(QUERY)
        await until(lambda: wearer.state.doing is State.ANSWER)
    assert [query.frame_id for query in server.script.queries] == [max(server.script.frames)]
    assert len(server.script.frames) == 2


async def test_the_same_view_is_sent_ahead_once(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        wearer.source.wait_for(1, 5)
        for _ in range(3):
            wearer.conversation.look_ahead()
            await asyncio.sleep(0.35)
    assert len(server.script.frames) == 1


async def test_what_a_camera_shows_while_it_wakes_up_is_not_sent_ahead(server: ScriptedServer, tmp_path: Path) -> None:
    camera = Camera(PictureWatch(finds_still=False))
    async with live(server.target, tmp_path, camera=camera) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        camera.shows.put(np.zeros((180, 320, 3), np.uint8))
        camera.wait_for(1, 5)
        wearer.conversation.look_ahead()
        await asyncio.sleep(0.4)
        assert server.script.frames == {}
        camera.shows.put(scene())
        camera.wait_for(2, 5)
        wearer.conversation.look_ahead()
        await until(lambda: len(server.script.frames) == 1)


async def test_one_view_that_cannot_be_sent_does_not_end_sending_ahead(server: ScriptedServer, tmp_path: Path) -> None:
    camera = Camera()
    async with live(server.target, tmp_path, camera=camera) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        camera.shows.put(np.zeros((4, 4000, 3), np.uint8))  # too narrow
        camera.wait_for(1, 5)
        wearer.conversation.look_ahead()
        await asyncio.sleep(0.4)
        for _ in range(RING_SIZE):
            camera.shows.put(scene())
        camera.wait_for(RING_SIZE + 1, 5)
        for _ in range(2):  # the first is told what became of the one before
            wearer.conversation.look_ahead()
            await asyncio.sleep(0.35)
        await until(lambda: len(server.script.frames) == 1)


async def test_a_question_for_which_no_server_comes_back_ends_and_the_next_tries_again(
    server: ScriptedServer, tmp_path: Path
) -> None:
    async with live(server.target, tmp_path, patience=0.3) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        await server.stop()
        await until(lambda: "tries again" in wearer.state.offline)
        wearer.conversation.ask(QUERY)
        await until(lambda: wearer.state.newest is not None and not wearer.state.newest.pending)
        assert wearer.state.newest is not None and server.target in wearer.state.newest.failed
        await server.restart()
        wearer.conversation.ask(QUERY)
        await until(lambda: wearer.state.doing is State.ANSWER)


async def test_without_looking_ahead_only_the_question_brings_a_view(server: ScriptedServer, tmp_path: Path) -> None:
    async with live(server.target, tmp_path, ahead=False) as wearer:
        await until(lambda: wearer.state.doing is State.READY)
        wearer.type(QUERY)
        await until(lambda: wearer.state.doing is State.ANSWER)
    assert len(server.script.frames) == 1


async def test_a_question_is_given_up_when_asked_to(tmp_path: Path) -> None:
    async with ScriptedServer(Script(step_seconds=0.2)) as server, live(server.target, tmp_path) as wearer:
        wearer.conversation.ask(QUERY)
        await until(lambda: server.script.working.is_set())
        wearer.controls.press("escape")
        await until(lambda: server.script.cancelled == [1])
        exchange = wearer.state.shown
    assert exchange is not None and exchange.failed == "cancelled" and wearer.state.notice == "given up"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (Script(error=pb.QueryError(code=pb.QueryError.CODE_INTERNAL, message="it broke; ask again")), "it broke"),
        (Script(refuse_frames="the picture is too dark a secret"), "too dark a secret"),
        (Script(garbage_picture=True), "a picture that is none"),
    ],
)
async def test_a_failure_is_one_sentence_and_the_next_question_goes_on(
    script: Script, told: str, tmp_path: Path
) -> None:
    async with ScriptedServer(script) as server, live(server.target, tmp_path) as wearer:
        wearer.conversation.ask(QUERY)
        await until(lambda: wearer.state.newest is not None and not wearer.state.newest.pending)
        assert wearer.state.newest is not None and told in wearer.state.newest.failed
        assert told in wearer.state.notice and "\n" not in wearer.state.notice
        script.error, script.refuse_frames, script.garbage_picture = None, "", False
        wearer.conversation.ask(QUERY)
        await until(lambda: wearer.state.doing is State.ANSWER)
        assert wearer.state.newest.guidance is not None


async def test_a_server_that_has_not_the_protocol_ends_the_session_at_once(tmp_path: Path) -> None:
    script = Script(info=pb.ServerInfo(models=["other"]))
    async with ScriptedServer(script) as server:
        with pytest.raises(ServerError, match="refused"):
            script.refuse_session = "refused"
            async with live(server.target, tmp_path) as wearer:
                await wearer.conversation.connect()
