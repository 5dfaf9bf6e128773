"""Recording, replaying and exporting as a user does it: commands in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from lego_client.cli import run
from lego_client.recording.happenings import View
from lego_client.recording.recording import Recording

from tests.client.recording.sessions import QUERIES, happenings
from tests.client.scripted_server import PIECES, Script, ScriptedServer
from tests.client.test_cli import Finished, finish, lego_client, the_error

SENTENCE = "".join(PIECES)


def asking(server: ScriptedServer, picture: Path, out: Path, *more: object) -> list[object]:
    return ["ask", "--server", server.target, "--source", picture, "--out", out, *more, QUERIES[0]]


def cut_in_half(recorded: Path, path: Path) -> Path:
    data = recorded.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


async def test_ask_records_its_session(server: ScriptedServer, picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.mcap"
    finished = await lego_client(*asking(server, picture, tmp_path / "out", "--record", path, "--record-consent"))
    assert finished.code == 0, finished.stderr
    assert finished.stderr.startswith(f"recording: {path} will keep what the camera sees")
    assert finished.stderr.endswith(f"recorded {path}\n")
    recording = Recording(path)
    assert recording.whole
    assert recording.started.settings["command"] == "ask"
    assert recording.started.settings["source"] == str(picture)
    (question,) = recording.questions()
    answer = recording.answer(question)
    assert answer is not None
    assert answer.guidance.image == (tmp_path / "out" / "guidance.jpg").read_bytes()


async def test_play_records_what_is_seen_too(server: ScriptedServer, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"time": 1.0, "query": QUERIES[0]}]))
    finished = await lego_client(
        "play", "--server", server.target, "--clip", clip, "--queries", tmp_path / "q.json", "--out", tmp_path / "out",
        "--no-film", "--record", tmp_path / "s.mcap", "--record-consent",
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    recording = Recording(tmp_path / "s.mcap")
    sent = {one.frame_id for one in happenings(recording) if isinstance(one, View)}
    assert sent >= set(server.script.frames)
    assert len(recording.questions()) == 1


async def test_nothing_is_recorded_where_nobody_can_agree(
    server: ScriptedServer, picture: Path, tmp_path: Path
) -> None:
    finished = await lego_client(*asking(server, picture, tmp_path / "out", "--record", tmp_path / "s.mcap"))
    assert finished.code == 2
    assert "recording needs your consent" in the_error(finished)
    assert "Add --record-consent if you agree" in the_error(finished)
    assert not (tmp_path / "s.mcap").exists() and not server.script.queries


async def at_a_terminal(answer: str, home: Path, *arguments: object) -> Finished:
    """Runs a command at a pseudo-terminal, where somebody types an answer; what it says there is `stderr`."""
    person, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lego_client", *map(str, arguments), stdin=terminal, stderr=terminal,
        stdout=subprocess.PIPE, env=os.environ | {"XDG_CONFIG_HOME": str(home)},
    )  # fmt: skip
    os.close(terminal)
    os.write(person, f"{answer}\n".encode())
    stdout, _ = await asyncio.wait_for(process.communicate(), 60)
    seen = b""
    try:
        while part := os.read(person, 65536):
            seen += part
    except OSError:  # the far end is closed
        pass
    finally:
        os.close(person)
    return Finished(process.returncode, stdout.decode(), seen.decode())


async def test_the_first_recording_asks_and_a_yes_is_remembered(
    server: ScriptedServer, picture: Path, tmp_path: Path
) -> None:
    first = await at_a_terminal(
        "y", tmp_path, *asking(server, picture, tmp_path / "out", "--record", tmp_path / "1.mcap")
    )
    assert first.code == 0, first.stderr
    assert "Tell those who come into view." in first.stderr and "Record? [y/N]" in first.stderr
    second = await at_a_terminal(
        "n", tmp_path, *asking(server, picture, tmp_path / "out", "--record", tmp_path / "2.mcap")
    )
    assert second.code == 0, second.stderr
    assert "Record?" not in second.stderr and "will keep what the camera sees" in second.stderr
    assert Recording(tmp_path / "1.mcap").whole and Recording(tmp_path / "2.mcap").whole


async def test_a_no_records_nothing_and_the_session_goes_on(
    server: ScriptedServer, picture: Path, tmp_path: Path
) -> None:
    for path in (tmp_path / "1.mcap", tmp_path / "2.mcap"):  # asked each time
        finished = await at_a_terminal("", tmp_path, *asking(server, picture, tmp_path / "out", "--record", path))
        assert finished.code == 0, finished.stderr
        assert "nothing is recorded" in finished.stderr
        assert not path.exists()
    assert len(server.script.queries) == 2


async def test_ctrl_c_leaves_a_recording_that_is_whole(picture: Path, tmp_path: Path) -> None:
    async with ScriptedServer(Script(step_seconds=0.2)) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lego_client",
            *map(str, asking(server, picture, tmp_path / "out", "--record", tmp_path / "s.mcap", "--record-consent")),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        await asyncio.wait_for(server.script.working.wait(), 60)
        process.send_signal(signal.SIGINT)
        assert (await finish(process)).code == 130
    recording = Recording(tmp_path / "s.mcap")
    assert recording.whole
    assert recording.questions()[0].outcome is None


async def test_a_session_that_fails_leaves_its_reason(picture: Path, tmp_path: Path) -> None:
    async with ScriptedServer(Script(refuse_session="come back tomorrow")) as server:
        finished = await lego_client(
            *asking(server, picture, tmp_path / "out", "--record", tmp_path / "s.mcap", "--record-consent")
        )
    assert finished.code == 1
    assert "note: the session ended:" in (await lego_client("replay", tmp_path / "s.mcap", "--display", "none")).stdout


async def test_replay_shows_the_session_without_a_server(recorded: Path) -> None:
    finished = await lego_client("replay", recorded, "--display", "terminal", "--speed", 1000)
    assert finished.code == 0, finished.stderr
    assert "2 questions" in finished.stdout
    assert finished.stdout.count(SENTENCE) == 2


async def test_replay_of_a_cut_file_plays_up_to_the_cut_and_says_so(recorded: Path, tmp_path: Path) -> None:
    cut = cut_in_half(recorded, tmp_path / "cut.mcap")
    finished = await lego_client("replay", cut, "--display", "none")
    assert finished.code == 0, finished.stderr
    assert "cut.mcap was cut at byte" in finished.stdout
    assert QUERIES[0] in finished.stdout and QUERIES[1] not in finished.stdout


async def test_replay_with_a_server_compares_the_answers(
    server: ScriptedServer, recorded: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    finished = await lego_client("replay", recorded, "--server", server.target, "--json", figures)
    assert finished.code == 0, finished.stderr
    assert finished.stdout.count("same") == 2 and finished.stdout.count("equal") == 2
    first = json.loads(figures.read_text())[0]
    assert first["query"] == QUERIES[0] and first["same_description"] is True and first["equal_pixels"] is True
    assert first["model_then"] == first["model_now"] == "scripted-0123456789ab"


@pytest.mark.parametrize("name", ["film.mp4", "session.rrd", "folder"])
async def test_export_writes_what_its_name_says(recorded: Path, tmp_path: Path, name: str) -> None:
    if name.endswith(".rrd"):
        pytest.importorskip("rerun", reason="rerun-sdk is not installed (the extra rerun)")
    finished = await lego_client("export", recorded, tmp_path / name)
    assert finished.code == 0, finished.stderr
    assert f"wrote {tmp_path / name}" in finished.stdout
    made = tmp_path / name
    assert (made / "session.json").exists() if made.is_dir() else made.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay", "RECORDING", "--speed", "0"], "the speed is 0; it must be above 0"),
        (["replay", "RECORDING", "--from", "-1"], "--from is -1 s; it must be 0 or more"),
        (["replay", "RECORDING", "--from", "99", "--display", "none"], "--from is 99 s, but the recording ends after"),
        (["replay", "RECORDING", "--json", "x.json"], "--json is for a comparison; name the server"),
        (["replay", "RECORDING", "--display", "cinema"], "it must be one of window, terminal, none"),
        (["replay", "none.mcap", "--display", "none"], "none.mcap cannot be read (No such file or directory)"),
        (["export", "RECORDING", "out.avi"], "a recording cannot become .avi; give a name that ends in .mp4 or .rrd"),
        (["export", "RECORDING", "RECORDING.mp4"], "exists and is not overwritten; choose another name"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    recorded: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path(f"{recorded}.mp4").touch()
    assert run([argument.replace("RECORDING", str(recorded)) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
