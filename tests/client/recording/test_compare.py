"""The questions of a recording asked again."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from lego_client.events import Guidance, QueryFailed
from lego_client.recording.compare import Comparison, compare, psnr
from lego_client.recording.recording import Recording
from lego_client.session import GuidanceClient
from lego_proto.v1 import guidance_pb2 as pb
from PIL import Image, ImageEnhance

from tests.client.recording.sessions import QUERIES, quick, record_session
from tests.client.scenes import scene
from tests.client.scripted_server import Script, ScriptedServer, jpeg


async def compared(path: Path, script: Script) -> tuple[list[Comparison], Script]:
    async with ScriptedServer(script) as server, GuidanceClient(server.target, backoff=quick()) as client:
        return await compare(Recording(path), client, time_limit=30), server.script


async def test_a_server_that_answers_alike_is_equal_in_words_and_to_the_pixel(recorded: Path) -> None:
    found, _ = await compared(recorded, Script())
    assert [one.query for one in found] == list(QUERIES)
    assert [one.same_description for one in found] == [True, True]
    assert [one.psnr for one in found] == [math.inf, math.inf]


async def test_the_same_bytes_are_asked_about_with_the_seed_of_the_answer(
    server: ScriptedServer, recorded: Path
) -> None:
    _, script = await compared(recorded, Script())
    assert list(script.frames.values()) == list(server.script.frames.values())
    assert [query.options.seed for query in script.queries] == [1234, 1234]
    assert not any(query.options.HasField("preview_every") for query in script.queries)


async def test_other_words_and_another_picture_are_told(recorded: Path) -> None:
    def darker(image: Image.Image) -> Image.Image:
        return ImageEnhance.Brightness(image).enhance(0.5)

    found, _ = await compared(recorded, Script(pieces=("Something else.",), paint=darker))
    assert [one.same_description for one in found] == [False, False]
    assert all(one.psnr is not None and 0 < one.psnr < 30 for one in found)


async def test_a_question_that_fails_now_is_told(recorded: Path) -> None:
    found, _ = await compared(recorded, Script(error=pb.QueryError(code=pb.QueryError.CODE_INTERNAL, message="broken")))
    assert [type(one.then) for one in found] == [Guidance, Guidance]
    assert [one.now for one in found] == [QueryFailed(number, "internal", "broken") for number in (1, 2)]
    assert [(one.same_description, one.psnr) for one in found] == [(None, None), (None, None)]


async def test_a_question_that_got_no_answer_then_is_asked_all_the_same(tmp_path: Path) -> None:
    error = pb.QueryError(code=pb.QueryError.CODE_OVERLOADED, message="full")
    async with ScriptedServer(Script(error=error)) as server:
        await record_session(server, tmp_path / "s.mcap", QUERIES[:1])
    ((one,), _) = await compared(tmp_path / "s.mcap", Script())
    assert isinstance(one.then, QueryFailed) and isinstance(one.now, Guidance)


def test_psnr_is_of_pixels_and_needs_one_size() -> None:
    grey = np.full((32, 32, 3), 100, np.uint8)
    one, other = (jpeg(Image.fromarray(pixels)) for pixels in (grey, grey + 10))
    assert psnr(one, other) == pytest.approx(20 * math.log10(255 / 10), abs=0.2)
    assert psnr(one, one) == math.inf
    assert psnr(one, jpeg(Image.fromarray(scene()))) is None
