"""A clip played through a real session, and the film of it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.backoff import Backoff
from lego_client.errors import ServerError
from lego_client.events import GuidanceOptions
from lego_client.film import write_film
from lego_client.play import TimedAnswer, TimedQuery, load_queries, play_clip
from lego_client.sending import Sending
from lego_client.session import GuidanceClient
from lego_client.sources.factory import open_clip
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb

from tests.client.scenes import CLIP_FPS, CLIP_FRAMES, shade_of
from tests.client.scripted_server import Script, ScriptedServer

QUERIES = [TimedQuery(1.0, "how do I open the drawer?"), TimedQuery(2.5, "how do I close it?")]


async def played(server: ScriptedServer, clip: Path, queries: list[TimedQuery], speed: float = 5) -> list[TimedAnswer]:
    async with GuidanceClient(server.target, backoff=Backoff(0), sending=Sending(fps=60)) as client:
        return await play_clip(
            client, open_clip(str(clip), speed), queries, options=GuidanceOptions(preview_every=2), time_limit=10
        )


def shade_of_jpeg(data: bytes) -> int:
    return shade_of(cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def index_of_jpeg(data: bytes) -> int:
    """Which frame of the clip this is: the codecs move a shade by a few levels, and frames are eight apart."""
    return round(shade_of_jpeg(data) / 8)


async def test_every_query_is_asked_about_what_was_just_seen(server: ScriptedServer, clip: Path) -> None:
    answers = await played(server, clip, QUERIES)
    assert [answer.answer.query for answer in answers] == [query.query for query in QUERIES]
    for query, timed in zip(QUERIES, answers, strict=True):
        index = index_of_jpeg(timed.answer.frame.encoded.jpeg)
        assert query.time - 0.75 <= index / CLIP_FPS <= query.time + 0.05  # of the seven frames up to the query
        assert len(timed.answer.previews) == 1


async def test_frames_are_streamed_up_while_the_clip_plays(server: ScriptedServer, clip: Path) -> None:
    await played(server, clip, QUERIES)
    assert len(server.script.frames) > CLIP_FRAMES / 2
    _, newest = max(server.script.frames.items())
    assert index_of_jpeg(newest) >= CLIP_FRAMES - 4  # a busy machine may be a frame or two behind at the end


async def test_queries_wait_for_one_another_rather_than_supersede(clip: Path) -> None:
    async with ScriptedServer(Script(step_seconds=0.1)) as server:
        answers = await played(server, clip, [TimedQuery(0.5, "first"), TimedQuery(0.6, "second")])
    assert [answer.answer.query for answer in answers] == ["first", "second"]


async def test_a_query_after_the_end_is_asked_at_the_end(server: ScriptedServer, clip: Path) -> None:
    (timed,) = await played(server, clip, [TimedQuery(99, "how do I open the drawer?")], speed=50)
    assert index_of_jpeg(timed.answer.frame.encoded.jpeg) >= CLIP_FRAMES - 8


async def test_a_refused_query_ends_the_play(clip: Path) -> None:
    script = Script(error=pb.QueryError(code=pb.QueryError.CODE_OVERLOADED, message="8 queries wait"))
    async with ScriptedServer(script) as server:
        with pytest.raises(ServerError, match="overloaded: 8 queries wait"):
            await played(server, clip, QUERIES)


async def test_a_server_that_goes_away_ends_the_play(clip: Path) -> None:
    async with ScriptedServer(Script(dies_at_step=2)) as server:
        with pytest.raises(ServerError, match="went away"):
            await played(server, clip, QUERIES)


async def test_the_film_holds_the_clip_and_the_answers(server: ScriptedServer, clip: Path, tmp_path: Path) -> None:
    answers = await played(server, clip, QUERIES)
    write_film(tmp_path / "demo.mp4", clip, answers, notice="A toy.")
    film = cv2.VideoCapture(str(tmp_path / "demo.mp4"))
    frames = []
    while (read := film.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    seconds_looking = 3
    assert len(frames) >= CLIP_FRAMES + 2 * seconds_looking * CLIP_FPS
    height, width = frames[0].shape[:2]
    assert width > 2 * 600 and height > 360
    # The first answer is a negative of the frame asked about, beside it.
    view, guidance = frames[14 + 10][360, 600], frames[14 + 10][360, 600 + 656]
    assert np.abs(view.astype(int) + guidance - 255).max() < 30


def test_queries_are_read_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "queries.json"
    path.write_text(json.dumps([{"time": 2, "query": "b"}, {"time": 0.5, "query": "a"}]))
    assert load_queries(str(path)) == [TimedQuery(0.5, "a"), TimedQuery(2.0, "b")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "cannot be read as JSON"),
        ("[]", "holds no queries"),
        ('{"time": 1}', "holds no queries"),
        ('[{"time": 1, "query": "a"}, {"time": -1, "query": "b"}]', "query 2 is"),
        ('[{"time": 1, "query": " "}]', "query 1 is"),
        ('[{"time": NaN, "query": "a"}]', "query 1 is"),
        ('[{"time": 1e999, "query": "a"}]', "query 1 is"),
        ('[{"time": true, "query": "a"}]', "query 1 is"),
        ('[{"query": "a"}]', "query 1 is"),
    ],
)
def test_a_faulty_query_file_is_explained(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "queries.json"
    path.write_text(text)
    with pytest.raises(LegoError, match=words):
        load_queries(str(path))


def test_a_missing_query_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "queries.json").write_text("[]")
    with pytest.raises(LegoError, match=r"did you mean .*queries\.json"):
        load_queries(str(tmp_path / "querys.json"))
