"""What a session leaves in its recording, and what recording never does to the session."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from lego_client.connection import Connection
from lego_client.events import DescriptionPiece, Event, Guidance, Progress, QueryFailed
from lego_client.recording.happenings import (
    Asked,
    AskedAnew,
    Connected,
    Disconnected,
    Ended,
    Heard,
    Note,
    Started,
    View,
)
from lego_client.recording.recorder import Recorder
from lego_client.recording.recording import Recording
from lego_client.session import GuidanceClient
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb

from tests.client.recording.sessions import (
    QUERIES,
    ask_in_turn,
    events_of,
    happenings,
    kinds,
    quick,
    record_session,
)
from tests.client.scenes import scene
from tests.client.scripted_server import Script, ScriptedServer

QUERY = QUERIES[0]


async def test_a_recording_holds_every_event_as_its_reader_got_it(server: ScriptedServer, tmp_path: Path) -> None:
    events: list[Event] = await record_session(server, tmp_path / "s.mcap")
    heard = [one.event for one in happenings(Recording(tmp_path / "s.mcap")) if isinstance(one, Heard)]
    assert heard == events
    assert any(isinstance(event, Progress) and event.preview for event in heard)
    assert sum(isinstance(event, Guidance) for event in heard) == 2


async def test_frames_are_kept_byte_for_byte_as_they_were_sent(server: ScriptedServer, recorded: Path) -> None:
    views = [one for one in happenings(Recording(recorded)) if isinstance(one, View)]
    assert {view.frame_id: view.jpeg for view in views} == server.script.frames


async def test_happenings_are_in_order_and_time_never_runs_backwards(recorded: Path) -> None:
    recording = Recording(recorded)
    names = kinds(recording)
    assert names[:4] == ["Started", "Connected", "View", "Asked"]
    assert names[-1] == "Ended"
    assert names.count("Asked") == 2
    assert "Disconnected" not in names  # the end of the session was no outage
    seconds = [entry.seconds for entry in recording.entries]
    assert seconds == sorted(seconds) and seconds[0] == 0
    assert recording.whole and not recording.faults


async def test_it_says_what_it_was_made_with_and_when(recorded: Path) -> None:
    recording = Recording(recorded)
    assert recording.started.settings == {"command": "test", "source": "scenes"}
    assert {"python", "numpy", "grpcio"} <= set(recording.started.software)
    assert recording.server.model_version == "scripted-0123456789ab"
    assert abs(recording.began.timestamp() - time.time()) < 3600


async def test_a_question_is_found_again_with_its_frame_and_answer(server: ScriptedServer, recorded: Path) -> None:
    recording = Recording(recorded)
    first, second = (recording.answer(question) for question in recording.questions())
    assert first is not None and second is not None
    assert (first.query, second.query) == QUERIES
    assert second.frame.encoded.jpeg == server.script.frames[2]
    assert second.guidance.frame_id == 2
    assert [step for step, _ in second.previews] == [2]
    assert 0 < second.first_words_seconds < second.seconds  # type: ignore[operator]
    assert second.options.preview_every == 2


async def test_a_token_is_never_recorded(server: ScriptedServer, tmp_path: Path) -> None:
    token = "a-token-that-nobody-may-see"
    with Recorder(tmp_path / "s.mcap", {"server": server.target}) as recorder:
        async with GuidanceClient(server.target, connection=Connection(token=token), observer=recorder) as client:
            await events_of(client, QUERY, await client.send_frame(scene()))
    assert token.encode() not in (tmp_path / "s.mcap").read_bytes()


async def test_a_connection_that_breaks_and_comes_back_is_recorded(tmp_path: Path) -> None:
    async with ScriptedServer(Script(resumable=True, breaks=[3])) as server:
        await record_session(server, tmp_path / "s.mcap", (QUERY,))
    recording = Recording(tmp_path / "s.mcap")
    states = [one for one in happenings(recording) if isinstance(one, Connected | Disconnected)]
    assert [type(state) for state in states] == [Connected, Disconnected, Connected]
    assert isinstance(states[1], Disconnected) and "went away" in states[1].reason and not states[1].for_good
    assert isinstance(states[2], Connected) and states[2].resumed
    (question,) = recording.questions()
    assert isinstance(question.outcome, Guidance)


async def test_a_question_asked_anew_is_one_question_with_one_answer(tmp_path: Path) -> None:
    async with ScriptedServer(Script(lost_queries=1)) as server:
        await record_session(server, tmp_path / "s.mcap", (QUERY,))
    recording = Recording(tmp_path / "s.mcap")
    assert "AskedAnew" in kinds(recording)
    (question,) = recording.questions()
    answer = recording.answer(question)
    assert answer is not None and answer.guidance.description == "The left hand pulls the drawer open."
    assert any(isinstance(entry.happening, AskedAnew) for entry in question.entries)


async def test_a_failed_question_is_recorded_with_its_reason(tmp_path: Path) -> None:
    error = pb.QueryError(code=pb.QueryError.CODE_OVERLOADED, message="full", retry_after_ms=1500)
    async with ScriptedServer(Script(error=error)) as server:
        await record_session(server, tmp_path / "s.mcap", (QUERY,))
    (question,) = Recording(tmp_path / "s.mcap").questions()
    assert question.outcome == QueryFailed(1, "overloaded", "full", 1.5)


async def test_sessions_that_share_a_file_do_not_share_ids(server: ScriptedServer, tmp_path: Path) -> None:
    with Recorder(tmp_path / "s.mcap", {}) as recorder:
        for _ in range(2):
            await ask_in_turn(server, recorder)
    recording = Recording(tmp_path / "s.mcap")
    asked = [one for one in happenings(recording) if isinstance(one, Asked)]
    assert [one.query_id for one in asked] == [1, 2, 3, 4]
    assert [one.frame_id for one in asked] == [1, 2, 3, 4]
    answers = [recording.answer(question) for question in recording.questions()]
    assert [answer.query for answer in answers if answer is not None] == [*QUERIES, *QUERIES]


def test_frames_that_are_not_sent_are_recorded_so_often_and_no_more(tmp_path: Path) -> None:
    with Recorder(tmp_path / "s.mcap", {}, views_per_second=0.001) as recorder:
        for shade in range(5):
            recorder.captured(scene(shade))
    views = [one for one in happenings(Recording(tmp_path / "s.mcap")) if isinstance(one, View)]
    assert [view.frame_id for view in views] == [0]
    assert views[0].jpeg.startswith(b"\xff\xd8")


def test_frames_are_dropped_and_counted_where_they_come_faster_than_they_can_be_written(tmp_path: Path) -> None:
    large = np.zeros((3000, 4000, 3), np.uint8)  # two of them are more than may wait
    with Recorder(tmp_path / "s.mcap", {}, views_per_second=1000) as recorder:
        for _ in range(12):
            recorder.captured(large)
            time.sleep(0.002)
        assert recorder.dropped > 0
        recorder.note("the words go on")
    recording = Recording(tmp_path / "s.mcap")
    names = kinds(recording)
    assert recording.dropped == recorder.dropped == 12 - names.count("View")
    notes = [one for one in happenings(recording) if isinstance(one, Note)]
    assert sum(note.dropped for note in notes) == recorder.dropped
    assert notes[-1].text == "the words go on"


async def test_at_its_limit_a_recording_takes_no_more_frames_but_words(server: ScriptedServer, tmp_path: Path) -> None:
    told: list[str] = []
    noise = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), np.uint8)
    path = tmp_path / "s.mcap"
    with Recorder(path, {}, limit_mb=1.5, tell=told.append) as recorder:
        async with GuidanceClient(server.target, observer=recorder, backoff=quick()) as client:
            server.script.info.max_image_bytes = 0
            for _ in range(4):
                frame = await client.send_frame(noise)
            events = await events_of(client, QUERY, frame)
    assert isinstance(events[-1], Guidance)
    assert path.stat().st_size <= 1_500_000
    found = happenings(Recording(path))
    assert 0 < sum(isinstance(one, View) for one in found) < 4
    assert [one.limit_reached for one in found if isinstance(one, Note)] == [True]
    assert "no more frames" in told[0]
    assert sum(isinstance(one, Heard) and isinstance(one.event, DescriptionPiece) for one in found) == 3


def test_at_its_limit_a_recording_ends_whole(tmp_path: Path) -> None:
    told: list[str] = []
    with Recorder(tmp_path / "s.mcap", {}, limit_mb=1, tell=told.append) as recorder:
        for _ in range(12):
            recorder.note("a" * 100_000)
    assert recorder.failure == f"the recording stopped at its limit of 1 MB; {tmp_path / 's.mcap'} is whole"
    assert told == [f"{recorder.failure}; the session goes on"]
    recording = Recording(tmp_path / "s.mcap")
    assert recording.whole and kinds(recording).count("Note") == 9
    assert (tmp_path / "s.mcap").stat().st_size < 1_010_000  # with its index


@contextmanager
def disk_with(room: int) -> Iterator[None]:
    """Lets no file of this process grow beyond so many bytes: the operating system refuses, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_stops_the_recording_and_not_the_session(server: ScriptedServer, tmp_path: Path) -> None:
    told: list[str] = []
    with disk_with(25_000), Recorder(tmp_path / "s.mcap", {}, tell=told.append) as recorder:
        events = await ask_in_turn(server, recorder)
    assert sum(isinstance(event, Guidance) for event in events) == 2
    (sentence,) = told
    assert sentence.startswith("the recording stopped (File too large)")
    assert sentence.endswith("the session goes on")
    recording = Recording(tmp_path / "s.mcap")
    assert not recording.whole and "was cut at byte" in recording.faults[0]
    assert kinds(recording)[:4] == ["Started", "Connected", "View", "Asked"]


def test_what_was_recorded_before_a_kill_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s.mcap"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from lego_client.recording.recorder import Recorder\n"
        "with Recorder(Path(sys.argv[1]), {}) as recorder:\n"
        "    for number in range(1000):\n"
        "        recorder.note(f'note {number}')\n"
        "        print(number, flush=True); time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                process.send_signal(signal.SIGKILL)
                break
    recording = Recording(path)
    notes = [one.text for one in happenings(recording) if isinstance(one, Note)]
    assert notes[:15] == [f"note {number}" for number in range(15)]
    assert not recording.whole


def test_an_earlier_recording_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(LegoError, match=r"s\.mcap exists; a recording never overwrites: choose another name"):
        Recorder(path, {}).__enter__()
    assert path.read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LegoError, match="cannot be recorded to"):
        Recorder(tmp_path / "file" / "s.mcap", {}).__enter__()


def test_a_recording_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    with Recorder(tmp_path / "s.mcap", {}):
        pass
    assert stat.S_IMODE(os.stat(tmp_path / "s.mcap").st_mode) == 0o600
    assert happenings(Recording(tmp_path / "s.mcap"))[-1] == Ended(0)


def test_an_array_that_is_no_frame_is_refused(tmp_path: Path) -> None:
    with Recorder(tmp_path / "s.mcap", {}) as recorder, pytest.raises(LegoError, match=r"array \(2, 2\) of float64"):
        recorder.captured(np.zeros((2, 2)))
    assert Recording(tmp_path / "s.mcap").whole


@pytest.mark.parametrize(
    ("options", "message"),
    [({"limit_mb": 0.5}, "the record limit is 0.5 MB"), ({"views_per_second": -1}, "-1 recorded views per second")],
)
def test_values_out_of_range_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(LegoError, match=message):
        Recorder(tmp_path / "s.mcap", {}, **options)  # type: ignore[arg-type]


def test_settings_are_recorded_as_text(tmp_path: Path) -> None:
    with Recorder(tmp_path / "s.mcap", {"speed": 2.5, "model": None}):
        pass
    started = happenings(Recording(tmp_path / "s.mcap"))[0]
    assert isinstance(started, Started) and started.settings == {"speed": "2.5"}
