"""`lego-client task` as a user runs it: a process of its own, at a keyboard, against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from lego_client.recording.recording import Recording
from lego_proto.v1 import guidance_pb2 as pb

from tests.client.scripted_server import PIECES, Script, ScriptedServer
from tests.client.test_cli import Finished

STEPS = ["how do I turn on the tap?", "how do I turn on the stove?", "how do I pour the kettle?"]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "tea.yaml"
    lines = [f"- title: Step {number}\n  query: {query}\n" for number, query in enumerate(STEPS, 1)]
    path.write_text("title: Make tea\nsteps:\n" + "".join(lines))
    return path


def command(server: ScriptedServer, task: Path, picture: Path, *more: object) -> list[str]:
    return [sys.executable, "-m", "lego_client", "task", str(task), "--server", server.target, "--source", str(picture),
            "--out", str(task.parent / "out"), *map(str, more)]  # fmt: skip


async def led(lines: str, *arguments: str) -> Finished:
    """Runs the command with lines on its input."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    stdout, stderr = await asyncio.wait_for(process.communicate(lines.encode(errors="surrogateescape")), 60)
    return Finished(process.returncode, stdout.decode(), stderr.decode())


async def test_a_task_is_led_from_its_first_step_to_its_last(server: ScriptedServer, task: Path, picture: Path) -> None:
    finished = await led("what next?\ndone\nhow do I open the drawer?\nwhere am I\nnext\ndone\nnever read\n",
                         *command(server, task, picture))  # fmt: skip
    assert finished.code == 0, finished.stderr
    asked = [query.text for query in server.script.queries]
    assert asked == [STEPS[0], STEPS[1], "how do I open the drawer?", STEPS[2]]
    text = finished.stdout
    places = [text.index(part) for part in ("Make tea: 3 steps. First: Step 1.", "Step 1 of 3: Step 1.",
              "Step 2 of 3: Step 2.", "1 done.", "Step 3 of 3: Step 3.", "Make tea is finished.")]  # fmt: skip
    assert places == sorted(places)
    assert text.count("".join(PIECES)) == 4
    assert sorted(path.name for path in (task.parent / "out").iterdir()) == ["001", "002", "003", "004"]
    assert json.loads((task.parent / "out" / "003" / "record.json").read_text())["query"] == asked[2]


async def test_a_byte_that_is_no_text_is_asked_as_such(server: ScriptedServer, task: Path, picture: Path) -> None:
    finished = await led("caf\udce9?\nstop\n", *command(server, task, picture))
    assert finished.code == 0, finished.stderr
    assert [query.text for query in server.script.queries] == ["caf\N{REPLACEMENT CHARACTER}?"]


async def test_one_can_stop_and_go_on_later(server: ScriptedServer, task: Path, picture: Path) -> None:
    state = task.parent / "state.json"
    first = await led("next\ndone\nstop\n", *command(server, task, picture, "--state", state))
    assert first.code == 0 and "Step 2 of 3: Step 2. 1 done." in first.stdout
    second = await led("next\n", *command(server, task, picture, "--state", state))
    assert second.code == 0 and "Make tea: 3 steps. Step 2 of 3: Step 2. 1 done." in second.stdout
    assert [query.text for query in server.script.queries] == [STEPS[0], STEPS[1], STEPS[1]]


async def test_a_finished_task_says_so_and_ends(server: ScriptedServer, task: Path, picture: Path) -> None:
    state = task.parent / "state.json"
    await led("done\ndone\ndone\n", *command(server, task, picture, "--state", state))
    again = await led("next\n", *command(server, task, picture, "--state", state))
    assert again.code == 0 and "Make tea is finished." in again.stdout


async def test_a_step_that_fails_can_be_repeated(task: Path, picture: Path) -> None:
    refusal = pb.QueryError(code=pb.QueryError.CODE_INTERNAL, message="the engine stumbled")
    async with ScriptedServer(Script(refusals=[refusal])) as server:
        finished = await led("next\nrepeat\n", *command(server, task, picture))
    assert finished.code == 0, finished.stderr
    assert "the engine stumbled; say repeat to try again" in finished.stdout
    assert "".join(PIECES) in finished.stdout
    assert [query.text for query in server.script.queries] == [STEPS[0], STEPS[0]]


async def test_a_server_that_goes_away_for_good_ends_the_task(task: Path, picture: Path) -> None:
    async with ScriptedServer(Script(dies_at_step=2)) as server:
        finished = await led("next\nnext\n", *command(server, task, picture, "--reconnect", 0))
    assert finished.code == 1
    assert finished.stderr.startswith("error: ") and "went away" in finished.stderr


async def test_a_task_can_be_recorded(server: ScriptedServer, task: Path, picture: Path) -> None:
    path = task.parent / "s.mcap"
    finished = await led("next\nnext\n", *command(server, task, picture, "--record", path, "--record-consent"))
    assert finished.code == 0, finished.stderr
    recording = Recording(path)
    assert [question.asked.text for question in recording.questions()] == STEPS[:2]
    assert recording.started.settings["task"] == "Make tea"


@pytest.fixture
def faulty(task: Path) -> Path:
    task.write_text("title: Make tea\nsteps: boil")
    return task


async def test_faults_are_one_line(server: ScriptedServer, faulty: Path, picture: Path) -> None:
    finished = await led("", *command(server, faulty, picture))
    assert finished.code == 2
    assert finished.stderr.startswith("error: ") and "tea.yaml, line 2: steps is 'boil'" in finished.stderr


@asynccontextmanager
async def at_a_terminal(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Runs the command with a pseudo-terminal as its keyboard, whose other end is yielded."""
    person, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    os.close(terminal)
    try:
        yield process, person
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(person)


async def test_at_a_keyboard_a_new_line_gives_up_the_answer_under_way(task: Path, picture: Path) -> None:
    async with (
        ScriptedServer(Script(step_seconds=0.2, steps=50)) as server,
        at_a_terminal(*command(server, task, picture)) as (process, person),
    ):
        os.write(person, b"next\n")
        await asyncio.wait_for(server.script.working.wait(), 60)
        os.write(person, b"stop\n")
        stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, stderr
    assert b"Step 1 of 3: Step 1. 0 done." in stdout
    assert server.script.cancelled == [1]


async def test_ctrl_c_ends_it_while_nobody_types(server: ScriptedServer, task: Path, picture: Path) -> None:
    async with at_a_terminal(*command(server, task, picture)) as (process, _):
        assert process.stdout is not None
        while b"First: Step 1." not in await asyncio.wait_for(process.stdout.readline(), 60):
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert stderr == b"stopped\n"
