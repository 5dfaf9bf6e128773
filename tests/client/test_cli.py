"""The command as a user runs it: a process of its own against a real server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from lego_client.cli import run
from lego_client.protocol import options_from_proto
from lego_proto.v1 import guidance_pb2 as pb
from PIL import Image

from tests.client.scripted_server import Script, ScriptedServer

QUERY = "how do I open the drawer?"


@dataclass(frozen=True)
class Finished:
    code: int | None
    stdout: str
    stderr: str


async def start_client(*arguments: object, env: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lego_client", *map(str, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=env,
    )  # fmt: skip


async def finish(process: asyncio.subprocess.Process) -> Finished:
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    return Finished(process.returncode, stdout.decode(), stderr.decode())


async def lego_client(*arguments: object) -> Finished:
    return await finish(await start_client(*arguments))


def the_error(finished: Finished) -> str:
    """Returns the one line on stderr."""
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    return line


async def test_asking_shows_the_description_and_writes_the_answer(
    server: ScriptedServer, picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finished = await lego_client(
        "ask", "--server", server.target, "--source", picture, "--out", out, "--seed", 5, "--steps", 8,
        "--previews", 3, QUERY,
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    assert finished.stderr == ""
    assert "The left hand pulls the drawer open." in finished.stdout
    assert "This model knows a toy kitchen only." in finished.stdout
    assert "8/8" in finished.stdout
    assert "denoise" in finished.stdout
    assert str(out) in finished.stdout
    previews = {f"preview_{step:03d}.jpg" for step in (2, 4, 6)}
    names = {"guidance.jpg", "frame.jpg", "side_by_side.png", "record.json"}
    assert {path.name for path in out.iterdir()} == names | previews
    assert json.loads((out / "record.json").read_text())["sampling"]["seed"] == 5


async def test_cheaper_steps_are_asked_for_and_what_an_older_server_did_is_told(
    server: ScriptedServer, picture: Path, tmp_path: Path
) -> None:
    finished = await lego_client(
        "ask", "--server", server.target, "--source", picture, "--out", tmp_path / "out", "--guidance-interval", 0.35,
        0.8, "--cache-interval", 3, QUERY,
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    query = server.script.queries[-1]
    assert query.options.guidance_interval == pb.GuidanceInterval(low=0.35, high=0.8)
    assert query.options.cache_interval == 3
    assert options_from_proto(query.options).guidance_interval == (0.35, 0.8)
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert (record["asked_options"]["guidance_interval"], record["asked_options"]["cache_interval"]) == ([0.35, 0.8], 3)
    # The scripted server knows neither, as one of before.
    assert (record["sampling"]["guidance_interval"], record["sampling"]["cache_interval"]) == ([0.0, 1.0], 1)


async def test_asking_again_keeps_the_earlier_answer(server: ScriptedServer, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for seed in (1, 2):
        arguments = ("ask", "--server", server.target, "--source", picture, "--out", out, "--seed", seed, QUERY)
        assert (await lego_client(*arguments)).code == 0
    seeds = [json.loads((folder / "record.json").read_text())["sampling"]["seed"] for folder in (out, out / "002")]
    assert seeds == [1, 2]


async def test_several_queries_are_asked_in_turn_about_one_frame_sent_once(
    server: ScriptedServer, clip: Path, tmp_path: Path
) -> None:
    finished = await lego_client(
        "ask", "--server", server.target, "--source", clip, "--at", 1.5, "--out", tmp_path / "out", "first", "second"
    )
    assert finished.code == 0, finished.stderr
    assert [query.text for query in server.script.queries] == ["first", "second"]
    assert len(server.script.frames) == 1
    assert (tmp_path / "out" / "001" / "guidance.jpg").exists()
    assert (tmp_path / "out" / "002" / "guidance.jpg").exists()


async def test_a_given_description_is_painted(server: ScriptedServer, picture: Path, tmp_path: Path) -> None:
    sentence = "The right hand waves."
    finished = await lego_client(
        "ask",
        "--server",
        server.target,
        "--source",
        picture,
        "--out",
        tmp_path / "out",
        "--description",
        sentence,
        QUERY,
    )
    assert finished.code == 0, finished.stderr
    assert json.loads((tmp_path / "out" / "record.json").read_text())["description"] == sentence


async def test_real_photographs_keep_their_aspect_ratio(server: ScriptedServer, fixtures: Path, tmp_path: Path) -> None:
    photograph = sorted((fixtures / "images" / "epic_frames").glob("*.jpg"))[0]
    finished = await lego_client(
        "ask", "--server", server.target, "--source", photograph, "--out", tmp_path / "out", QUERY
    )
    assert finished.code == 0, finished.stderr
    with Image.open(tmp_path / "out" / "frame.jpg") as sent:
        assert sent.size == (456, 256)


async def test_info_shows_the_server(server: ScriptedServer) -> None:
    finished = await lego_client("info", "--server", server.target)
    assert finished.code == 0, finished.stderr
    assert "scripted-0123456789ab" in finished.stdout
    assert "4 (at most 100)" in finished.stdout


async def test_playing_a_clip_leaves_answers_and_a_film(server: ScriptedServer, clip: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.json"
    queries.write_text(json.dumps([{"time": 1.0, "query": QUERY}, {"time": 3.0, "query": "how do I close it?"}]))
    out = tmp_path / "out"
    finished = await lego_client(
        "play", "--server", server.target, "--clip", clip, "--queries", queries, "--out", out, "--speed", 5
    )
    assert finished.code == 0, finished.stderr
    assert "The left hand pulls the drawer open." in finished.stdout
    assert {path.name for path in out.iterdir()} == {"001", "002", "demo.mp4"}
    assert json.loads((out / "002" / "record.json").read_text())["query"] == "how do I close it?"


async def test_ctrl_c_cancels_the_query_on_the_server(picture: Path, tmp_path: Path) -> None:
    async with ScriptedServer(Script(steps=1000, step_seconds=0.02)) as server:
        process = await start_client(
            "ask", "--server", server.target, "--source", picture, "--out", tmp_path / "out", QUERY
        )
        await asyncio.wait_for(server.script.working.wait(), 30)
        process.send_signal(signal.SIGINT)
        finished = await finish(process)
        assert finished.code == 130
        assert finished.stderr == "stopped\n"
        assert server.script.cancelled == [1]
        done = server.script.steps_done
        await asyncio.sleep(0.1)
        assert server.script.steps_done == done


async def test_a_server_that_dies_is_one_line_and_code_one(picture: Path, tmp_path: Path) -> None:
    async with ScriptedServer(Script(dies_at_step=2)) as server:
        finished = await lego_client(
            "ask", "--server", server.target, "--source", picture, "--out", tmp_path / "out", "--reconnect", 0, QUERY
        )
    assert finished.code == 1
    assert "went away" in the_error(finished)


async def test_a_connection_that_is_lost_and_comes_back_is_told_and_answered_once(
    picture: Path, tmp_path: Path
) -> None:
    async with ScriptedServer(Script(resumable=True, forgets=True, breaks=[5], step_seconds=0.02)) as server:
        finished = await lego_client(
            "ask", "--server", server.target, "--source", picture, "--out", tmp_path / "out", QUERY
        )
    assert finished.code == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines.count("connection lost, trying again") == lines.count("back; asking again") == 1
    assert finished.stdout.count("The left hand pulls the drawer open.") == 1
    assert json.loads((tmp_path / "out" / "record.json").read_text())["query"] == QUERY


async def test_model_deadline_and_kind_of_preview_reach_the_server(picture: Path, tmp_path: Path) -> None:
    script = Script()
    script.info.models.extend(["small", "large"])
    script.info.max_deadline_ms = 90_000
    async with ScriptedServer(script) as server:
        finished = await lego_client(
            "ask", "--server", server.target, "--source", picture, "--out", tmp_path / "out", "--model", "large",
            "--deadline", 8, "--previews", 2, "--preview", "fast", QUERY,
        )  # fmt: skip
        shown = await lego_client("info", "--server", server.target)
        refused = await lego_client("info", "--server", server.target, "--model", "huge")
    assert finished.code == 0, finished.stderr
    (query,) = script.queries
    assert query.model == "large" and 7000 < query.deadline_ms <= 8000
    assert query.options.preview == pb.PREVIEW_FAST
    assert "small, large" in shown.stdout and "90 s" in shown.stdout
    assert refused.code == 2 and "'huge'" in the_error(refused)


async def test_no_server_is_one_line_and_code_one(picture: Path, tmp_path: Path) -> None:
    finished = await lego_client(
        "ask", "--server", "127.0.0.1:9", "--source", picture, "--out", tmp_path / "out", QUERY
    )
    assert finished.code == 1
    assert "no server at 127.0.0.1:9: start one with 'lego-server serve" in the_error(finished)


@pytest.mark.parametrize(("code", "exit_code"), [(pb.QueryError.CODE_INVALID, 2), (pb.QueryError.CODE_OVERLOADED, 1)])
async def test_a_refusal_is_one_line(code: pb.QueryError.Code, exit_code: int, picture: Path, tmp_path: Path) -> None:
    script = Script(error=pb.QueryError(code=code, message="steps is 500; the limit is 100"))
    async with ScriptedServer(script) as server:
        finished = await lego_client(
            "ask", "--server", server.target, "--source", picture, "--out", tmp_path / "out", QUERY
        )
    assert finished.code == exit_code
    assert "steps is 500; the limit is 100" in the_error(finished)


async def test_an_unreadable_picture_is_one_line(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    finished = await lego_client(
        "ask", "--server", server.target, "--source", tmp_path / "broken.jpg", "--out", tmp_path / "out", QUERY
    )
    assert finished.code == 2
    assert "broken.jpg cannot be read as a picture" in the_error(finished)


async def test_a_missing_camera_is_one_line(server: ScriptedServer, tmp_path: Path) -> None:
    finished = await lego_client("ask", "--server", server.target, "--source", "63", "--out", tmp_path / "out", QUERY)
    assert finished.code == 2
    assert "there is no camera 63" in the_error(finished)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0", QUERY], "steps is 0"),
        (["--steps", "many", QUERY], "Invalid value for '--steps'"),
        (["--sampler", "ddim", QUERY], "sampler is 'ddim'"),
        (["--previews", "-1", QUERY], "previews is -1"),
        (["--timeout", "0", QUERY], "the timeout is 0 s"),
        (["--quality", "101", QUERY], "quality is 101"),
        (["--deadline", "0", QUERY], "the deadline is 0 s"),
        (["--retries", "-1", QUERY], "retries is -1"),
        (["--reconnect", "-1", QUERY], "reconnect is -1 s"),
        (["--wait", "-1", QUERY], "wait is -1 s"),
        (["--preview", "tiny", QUERY], "preview is 'tiny'; choose one of fast, full"),
        (["--server", "nowhere", QUERY], "must be HOST:PORT"),
        (["--colour", "red", QUERY], "No such option: --colour"),
        ([""], "the query is empty"),
        (["caf\udce9"], "holds bytes that are no text"),
        ([], "Missing argument"),
    ],
)
def test_a_malformed_request_is_one_line_and_code_two(
    arguments: Sequence[str], words: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ask", "--source", str(picture), "--out", str(tmp_path / "out"), *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ") and words in line


def test_a_missing_source_is_one_line_with_the_nearest_name(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = picture.with_name("drawers.png")
    assert run(["ask", "--source", str(wrong), "--out", str(tmp_path / "out"), QUERY]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # nothing is left behind by a request that could not start


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "ask" in capsys.readouterr().out


def test_the_client_imports_nothing_that_only_models_need() -> None:
    code = "import sys, lego_client.cli; sys.exit(not sys.modules.keys().isdisjoint(('torch', 'tokenizers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
