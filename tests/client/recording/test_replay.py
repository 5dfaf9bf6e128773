"""A recording played again without a server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from lego_client.recording.film import page_for
from lego_client.recording.happenings import Happening
from lego_client.recording.player import Player
from lego_client.recording.recording import Entry, Recording
from lego_client.recording.replay import Controls, checked_display, lines_of, play_in_terminal, with_clock
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from PIL import Image
from rich.console import Console

from tests.client.recording.sessions import QUERIES, record_session, shade
from tests.client.scenes import shade_of
from tests.client.scripted_server import PIECES, Script, ScriptedServer

SENTENCE = "".join(PIECES)


def close(image: Image.Image | None, value: int) -> bool:
    assert image is not None
    return abs(shade_of(np.asarray(image)) - value) < 8


def moment(recording: Recording, kind: str, number: int = 0) -> float:
    """Returns when something of a kind happened, the first or a later one."""
    return [
        entry.seconds
        for entry in recording.entries
        if type(getattr(entry.happening, "event", entry.happening)).__name__ == kind
    ][number]


async def test_at_every_moment_the_wearer_s_view_and_answer_are_shown(recorded: Path) -> None:
    recording = Recording(recorded)
    player = Player(recording)
    player.go(moment(recording, "Asked"))
    assert close(player.stage.view, shade(0))
    assert (player.shown.query, player.shown.description, player.shown.picture) == (QUERIES[0], "", None)
    player.go(moment(recording, "DescriptionPiece", 1))
    assert player.shown.description == "".join(PIECES[:2])
    player.go(moment(recording, "Progress", 1))
    assert player.shown.denoised == 0.5 and player.shown.picture is not None  # the preview
    player.go(moment(recording, "Guidance"))
    assert player.shown.description == SENTENCE and player.shown.denoised is None
    assert close(player.shown.picture, 255 - shade(0))
    assert player.shown.clock.startswith("after ")
    player.go(recording.seconds)
    assert player.shown.query == QUERIES[1]
    assert close(player.stage.view, shade(1)) and close(player.shown.picture, 255 - shade(1))


async def test_going_back_or_jumping_ahead_shows_what_playing_would_have_shown(recorded: Path) -> None:
    recording = Recording(recorded)
    played, jumped = Player(recording), Player(recording)
    jumped.go(recording.seconds)
    for entry in recording.entries:
        played.go(entry.seconds)
        jumped.go(recording.seconds)
        jumped.go(entry.seconds)
        assert jumped.shown.description == played.shown.description
        assert (jumped.shown.query, jumped.shown.clock) == (played.shown.query, played.shown.clock)
        assert jumped.stage.view.tobytes() == played.stage.view.tobytes()


async def test_a_broken_connection_is_shown_where_the_wearer_saw_it(tmp_path: Path) -> None:
    async with ScriptedServer(Script(resumable=True, breaks=[3])) as server:
        await record_session(server, tmp_path / "s.mcap", QUERIES[:1])
    recording = Recording(tmp_path / "s.mcap")
    player = Player(recording)
    player.go(moment(recording, "Disconnected"))
    assert player.shown.clock == "connection lost, trying again"
    player.go(recording.seconds)
    assert player.shown.description == SENTENCE


async def test_a_question_asked_anew_begins_its_description_again(tmp_path: Path) -> None:
    async with ScriptedServer(Script(breaks=[2], forgets=True)) as server:
        await record_session(server, tmp_path / "s.mcap", QUERIES[:1])
    recording = Recording(tmp_path / "s.mcap")
    player = Player(recording)
    player.go(moment(recording, "AskedAnew"))
    assert (player.shown.query, player.shown.description) == (QUERIES[0], "")
    player.go(recording.seconds)
    assert player.shown.description == SENTENCE


async def test_a_failure_is_shown_in_its_own_words(tmp_path: Path) -> None:
    error = pb.QueryError(code=pb.QueryError.CODE_OVERLOADED, message="the server is full")
    async with ScriptedServer(Script(error=error)) as server:
        await record_session(server, tmp_path / "s.mcap", QUERIES[:1])
    recording = Recording(tmp_path / "s.mcap")
    player = Player(recording)
    player.go(recording.seconds)
    assert player.shown.description == "the server is full"
    assert lines_of(recording)[-1].endswith("failed (overloaded): the server is full")


async def test_a_picture_that_is_none_does_not_end_the_replay(tmp_path: Path) -> None:
    async with ScriptedServer(Script(garbage_picture=True)) as server:
        await record_session(server, tmp_path / "s.mcap", QUERIES[:1])
    player = Player(Recording(tmp_path / "s.mcap"))
    player.go(100)
    assert "the server sent a picture that is none" in player.shown.description


async def test_pages_have_the_shape_of_the_view_and_tell_the_time(recorded: Path) -> None:
    recording = Recording(recorded)
    page, player = page_for(recording), Player(recording)
    player.go(recording.seconds)
    drawn = page.draw(player.stage.view, player.shown)
    assert drawn.size == page.size
    before = np.asarray(drawn).copy()
    after = np.asarray(with_clock(drawn, player, recording.seconds, Controls(player, recording.seconds, 2.0)))
    assert (before != after).any()
    assert (before[: page.size[1] * 3 // 4] == after[: page.size[1] * 3 // 4]).all()  # only in the last lines


async def test_the_keys_pause_seek_and_change_the_speed(recorded: Path) -> None:
    recording = Recording(recorded)
    player = Player(recording)
    controls = Controls(player, 60.0, 1.0)
    controls.tick(10)
    assert player.seconds == 10
    controls.press("+")
    controls.tick(10)
    assert player.seconds == 30
    controls.press(" ")
    controls.tick(10)
    assert controls.paused and player.seconds == 30
    controls.press("left")
    assert player.seconds == 25
    controls.press("right")
    controls.press("-")
    controls.press("-")
    controls.tick(2)
    assert player.seconds == 31 and controls.speed == 0.5
    controls.tick(1000)
    assert controls.paused and player.seconds == 60
    controls.press(" ")  # from the beginning
    assert not controls.paused and player.seconds == 0
    controls.press("q")
    assert controls.leaving


async def test_the_terminal_shows_questions_and_answers_at_their_pace(recorded: Path) -> None:
    recording = Recording(recorded)
    screen, waits = io.StringIO(), list[float]()
    play_in_terminal(recording, Console(file=screen, width=200), 0.0, 2.0, waits.append)
    text = screen.getvalue()
    assert [text.index(word) for word in QUERIES] == sorted(text.index(word) for word in QUERIES)
    assert text.count(SENTENCE) == 2
    assert "picture of 320x180 pixels, 4 steps, seed 1234" in text
    assert sum(waits) == pytest.approx(recording.seconds / 2)


async def test_the_terminal_begins_where_it_is_told_to(recorded: Path) -> None:
    recording = Recording(recorded)
    screen = io.StringIO()
    start = moment(recording, "Asked", 1)
    play_in_terminal(recording, Console(file=screen, width=200), start, 1000.0)
    assert QUERIES[1] in screen.getvalue() and QUERIES[0] not in screen.getvalue()


async def test_lines_tell_what_happened_and_when(recorded: Path) -> None:
    lines = lines_of(Recording(recorded))
    assert "connected to 127.0.0.1:" in lines[0] and "scripted-0123456789ab" in lines[0]
    assert [line.split("  ")[-1] for line in lines[1:4]] == [
        f"“{QUERIES[0]}”", SENTENCE, "picture of 320x180 pixels, 4 steps, seed 1234",
    ]  # fmt: skip
    assert all(line.strip()[0].isdigit() for line in lines)


def test_a_display_that_is_none_or_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(LegoError, match="the display is 'cinema'; it must be one of window, terminal, none"):
        checked_display("cinema")
    with pytest.raises(LegoError, match=r"there is no desktop here \(DISPLAY is not set\)"):
        checked_display("window")
    assert checked_display(None) == "terminal"


async def test_of_what_is_jumped_over_no_picture_is_read(recorded: Path) -> None:
    class Watched(Recording):
        read: tuple[str, ...] = ()

        def load(self, entry: Entry) -> Happening:
            self.read += (type(entry.happening).__name__,)
            return super().load(entry)

    recording = Watched(recorded)
    Player(recording).go(recording.seconds)
    assert recording.read.count("View") == 1
    assert recording.read.count("Heard") == len(recording.questions()[1].entries)
