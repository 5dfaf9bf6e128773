"""Guidance for other programs: `lego_client.Guide` and the examples that use it."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
from contextlib import aclosing
from pathlib import Path

import grpc
import lego_client
import numpy as np
import pytest
import trustme
from lego_client import (
    DescriptionPiece,
    Frame,
    Guidance,
    GuidanceOptions,
    Guide,
    LegoError,
    Progress,
    ServerError,
)
from lego_client.recording.recorder import Recorder
from lego_client.recording.recording import Recording
from lego_proto.v1 import guidance_pb2 as pb
from PIL import Image

from tests.client.scenes import scene, shade_of
from tests.client.scripted_server import PIECES, Script, ScriptedServer, jpeg
from tests.client.test_play import shade_of_jpeg

QUERY = "how do I open the drawer?"
SENTENCE = "".join(PIECES)
EXAMPLES = Path(__file__).parents[2] / "examples"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


async def test_an_answer_has_words_and_a_picture(server: ScriptedServer) -> None:
    async with Guide(server.target) as guide:
        assert guide.info.model_name == "scripted"
        answer = await guide.answer(scene(60), QUERY, GuidanceOptions(seed=7))
    assert answer.description == SENTENCE
    assert answer.guidance.seed == 7
    assert answer.picture.size == (320, 180)
    assert abs(shade_of(np.asarray(answer.picture)) - 195) < 8


async def test_events_come_as_they_happen_and_end_with_the_guidance(server: ScriptedServer) -> None:
    async with Guide(server.target) as guide:
        events = [event async for event in guide.ask(scene(), QUERY)]
    assert "".join(event.text for event in events if isinstance(event, DescriptionPiece)) == SENTENCE
    assert any(isinstance(event, Progress) for event in events)
    assert isinstance(events[-1], Guidance)


@pytest.mark.parametrize("kind", ["array", "png", "image", "grey image", "path", "png path", "text path"])
async def test_a_frame_may_be_of_any_usual_kind(server: ScriptedServer, tmp_path: Path, kind: str) -> None:
    pixels = scene(90)
    (tmp_path / "f.png").write_bytes(png(pixels))
    (tmp_path / "f.jpg").write_bytes(jpeg(Image.fromarray(pixels)))
    frames: dict[str, Frame] = {
        "array": pixels, "png": png(pixels), "image": Image.fromarray(pixels),
        "grey image": Image.fromarray(pixels).convert("L"), "path": tmp_path / "f.jpg",
        "png path": tmp_path / "f.png", "text path": str(tmp_path / "f.jpg"),
    }  # fmt: skip
    async with Guide(server.target) as guide:
        await guide.answer(frames[kind], QUERY)
    (sent,) = server.script.frames.values()
    assert abs(shade_of_jpeg(sent) - 90) < 8


async def test_a_jpeg_is_sent_byte_for_byte(server: ScriptedServer) -> None:
    data = jpeg(Image.fromarray(scene(90)))
    async with Guide(server.target) as guide:
        await guide.answer(data, QUERY)
    assert list(server.script.frames.values()) == [data]


async def test_a_large_jpeg_is_scaled_down(server: ScriptedServer) -> None:
    async with Guide(server.target) as guide:
        await guide.answer(jpeg(Image.fromarray(scene(90, 2560, 1440))), QUERY)
    (sent,) = server.script.frames.values()
    assert Image.open(io.BytesIO(sent)).size == (1280, 720)


async def test_a_jpeg_beyond_the_server_s_limits_is_encoded_anew(server: ScriptedServer) -> None:
    server.script.info.max_image_pixels = 160 * 90
    async with Guide(server.target) as guide:
        await guide.answer(jpeg(Image.fromarray(scene(90))), QUERY)
    (sent,) = server.script.frames.values()
    assert Image.open(io.BytesIO(sent)).size == (160, 90)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((180, 320), np.uint8), r"array \(180, 320\) of uint8; it must be \(height, width, 3\) of uint8, RGB"),
        (np.zeros((180, 320, 3), np.float32), r"array \(180, 320, 3\) of float32"),
        (b"nonsense", "the 8 bytes are not a JPEG, PNG or WebP picture"),
        (b"\xff\xd8nonsense", "the 10 bytes are not a JPEG, PNG or WebP picture"),
        ("missing.jpg", r"the frame 'missing.jpg' cannot be read \(No such file or directory\); check the path"),
        (__file__, r"test_guide_api.py': the \d+ bytes are not a JPEG"),
        (7, "the frame is of the type int; give an array, a picture's bytes, a Pillow image or a path"),
        (None, r"no frame was pushed yet; give one to push\(\)"),
    ],
)
async def test_what_is_no_frame_is_said_in_words(server: ScriptedServer, frame: Frame, message: str) -> None:
    async with Guide(server.target) as guide:
        with pytest.raises(LegoError, match=message):
            await guide.answer(frame, QUERY)
        assert (await guide.answer(scene(), QUERY)).description == SENTENCE  # the session is none the worse


async def test_the_newest_pushed_frame_is_asked_about_whichever_thread_it_came_from(server: ScriptedServer) -> None:
    async with Guide(server.target) as guide:

        def device() -> None:
            for shade in (20, 60, 100, 140):
                guide.push(scene(shade))

        thread = threading.Thread(target=device)
        thread.start()
        await asyncio.to_thread(thread.join)
        await guide.answer(None, QUERY)
    (sent,) = server.script.frames.values()
    assert abs(shade_of_jpeg(sent) - 140) < 8


async def test_a_guide_that_is_not_open_says_so(server: ScriptedServer) -> None:
    guide = Guide(server.target)
    with pytest.raises(LegoError, match="the guide is not open; use it in 'async with', or call connect"):
        await guide.answer(scene(), QUERY)
    await guide.connect()
    await guide.answer(scene(), QUERY)
    await guide.close()
    await guide.close()
    with pytest.raises(LegoError, match="the guide is not open"):
        await guide.answer(scene(), QUERY)


async def test_leaving_early_cancels_the_question() -> None:
    async with ScriptedServer(Script(step_seconds=0.05, steps=100)) as server, Guide(server.target) as guide:
        async with aclosing(guide.ask(scene(), QUERY)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    break
        assert server.script.cancelled == [1]


async def test_a_refused_question_raises_and_leaves_the_session_open() -> None:
    refusal = pb.QueryError(code=pb.QueryError.CODE_INVALID, message="steps is 101; at most 100")
    async with ScriptedServer(Script(refusals=[refusal])) as server, Guide(server.target) as guide:
        with pytest.raises(LegoError, match="steps is 101; at most 100"):
            await guide.answer(scene(), QUERY)
        assert (await guide.answer(scene(), QUERY)).description == SENTENCE


async def test_a_break_is_mended_while_a_question_waits() -> None:
    async with ScriptedServer(Script(resumable=True, breaks=[3])) as server, Guide(server.target) as guide:
        assert (await guide.answer(scene(), QUERY)).description == SENTENCE
    assert server.script.resumes


async def test_a_session_lost_for_good_is_opened_anew_by_the_next_question(server: ScriptedServer) -> None:
    async with Guide(server.target, reconnect_seconds=0) as guide:
        await guide.answer(scene(), QUERY)
        await server.stop()
        with pytest.raises(ServerError):
            await guide.answer(scene(), QUERY)
        with pytest.raises(ServerError):
            await guide.answer(scene(), QUERY)
        await server.restart()
        assert (await guide.answer(scene(), QUERY)).description == SENTENCE


async def test_a_server_that_is_missing_is_named() -> None:
    with pytest.raises(ServerError, match="no server at localhost:1"):
        async with Guide("localhost:1"):
            pass


async def test_a_token_goes_over_tls_and_never_in_the_clear(tmp_path: Path) -> None:
    seen: list[str] = []

    class Tokens(grpc.aio.ServerInterceptor):
        async def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]
            seen.extend(value for key, value in details.invocation_metadata if key == "authorization")
            return await continuation(details)

    from lego_proto.v1 import guidance_pb2_grpc

    from tests.client.scripted_server import ScriptedGuidance

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost")
    server = grpc.aio.server(interceptors=[Tokens()])
    script = Script()
    guidance_pb2_grpc.add_GuidanceServicer_to_server(ScriptedGuidance(script), server)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    port = server.add_secure_port(
        "localhost:0", grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)])
    )  # fmt: skip
    await server.start()
    try:
        async with Guide(f"localhost:{port}", token="s" * 32, ca=tmp_path / "ca.pem") as guide:
            assert (await guide.answer(scene(), QUERY)).description == SENTENCE
    finally:
        await server.stop(None)
    assert set(seen) == {f"Bearer {'s' * 32}"}
    with pytest.raises(LegoError, match=r"the token would travel to guide\.example in the clear"):
        Guide("guide.example:50051", token="s" * 32)


async def test_a_guide_s_session_can_be_recorded(server: ScriptedServer, tmp_path: Path) -> None:
    with Recorder(tmp_path / "s.mcap", {"command": "my program"}) as recorder:
        async with Guide(server.target, observer=recorder) as guide:
            await guide.answer(scene(), QUERY)
    (question,) = Recording(tmp_path / "s.mcap").questions()
    assert question.asked.text == QUERY and isinstance(question.outcome, Guidance)


def test_everything_promised_by_name_is_there() -> None:
    for name in lego_client.__all__:
        assert getattr(lego_client, name) is not None
    assert set(lego_client.__all__) <= set(dir(lego_client))
    with pytest.raises(AttributeError, match="has no attribute 'Guise'"):
        lego_client.Guise  # noqa: B018


def test_the_package_loads_nothing_heavy_before_it_is_needed() -> None:
    program = (
        "import sys, lego_client\n"
        "heavy = {'grpc', 'cv2', 'numpy', 'mcap', 'yaml', 'rich'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


async def example(tmp_path: Path, name: str, *arguments: object) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), *map(str, arguments), cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, stdout.decode(), stderr.decode()


async def test_the_ten_line_example_answers(server: ScriptedServer, picture: Path, tmp_path: Path) -> None:
    code, stdout, stderr = await example(tmp_path, "ask_once.py", server.target, picture, QUERY)
    assert (code, stdout.strip()) == (0, SENTENCE), stderr
    assert Image.open(tmp_path / "guidance.png").size == (320, 180)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(png(scene(30 * number)))
    return folder


async def test_the_wearable_s_example_asks_about_the_frame_at_the_press(
    server: ScriptedServer, frames: Path, tmp_path: Path
) -> None:
    code, stdout, stderr = await example(tmp_path, "wearable.py", server.target, frames, QUERY)
    assert code == 0, stderr
    assert stdout.splitlines() == [SENTENCE, "guidance.jpg (seed 1234)"]
    (sent,) = server.script.frames.values()
    assert round(shade_of_jpeg(sent) / 30) in (3, 4, 5)  # pressed at the fourth; a busy machine may see a later one


async def test_the_wearable_s_example_says_what_went_wrong(frames: Path, tmp_path: Path) -> None:
    error = pb.QueryError(code=pb.QueryError.CODE_INTERNAL, message="the engine stumbled")
    async with ScriptedServer(Script(error=error)) as server:
        code, _, stderr = await example(tmp_path, "wearable.py", server.target, frames, QUERY)
    assert code == 1 and "no guidance: the engine stumbled" in stderr
    code, _, stderr = await example(tmp_path, "wearable.py", "localhost:1", frames, QUERY)
    assert code == 1 and stderr.startswith("error: no server at localhost:1")
