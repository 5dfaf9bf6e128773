"""A recording as a film, a folder and a file for rerun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from lego_client.recording.film import export_film, page_for
from lego_client.recording.folder import export_folder
from lego_client.recording.happenings import View
from lego_client.recording.recording import Recording
from lego_core.errors import LegoError

from tests.client.recording.sessions import QUERIES, happenings, record_session, shade
from tests.client.scenes import shade_of
from tests.client.scripted_server import PIECES, Script, ScriptedServer


def frames_of(path: Path) -> list[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    found = []
    while (read := video.read())[0]:
        found.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    video.release()
    return found


def panels(page: np.ndarray) -> tuple[int, int]:
    """Returns the shades of the view and of what stands beside it."""
    width, height = 640, 360  # of a 16:9 view, 16 pixels from the edges and from one another
    left, right = page[16 : 16 + height, 16 : 16 + width], page[16 : 16 + height, 32 + width : 32 + 2 * width]
    return shade_of(left), shade_of(right)


async def test_a_film_ends_with_the_last_answer_beside_the_last_view(recorded: Path, tmp_path: Path) -> None:
    recording = Recording(recorded)
    export_film(recording, tmp_path / "out.mp4", fps=10)
    frames = frames_of(tmp_path / "out.mp4")
    assert len(frames) == round((recording.seconds + 3) * 10)
    assert frames[0].shape[1::-1] == page_for(recording).size
    view, guidance = panels(frames[-1])
    assert abs(view - shade(1)) < 18 and abs(guidance - (255 - shade(1))) < 18  # the first question's are 40 away


def test_a_recording_without_a_frame_still_becomes_a_film(tmp_path: Path) -> None:
    from lego_client.recording.recorder import Recorder

    with Recorder(tmp_path / "s.mcap", {}):
        pass
    export_film(Recording(tmp_path / "s.mcap"), tmp_path / "out.mp4", fps=2)
    assert len(frames_of(tmp_path / "out.mp4")) == 6


async def test_a_rate_out_of_range_is_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="fps is 0; it must be from 1 to 60"):
        export_film(Recording(recorded), tmp_path / "out.mp4", fps=0)


async def test_a_folder_has_every_frame_and_answer_and_all_that_happened(recorded: Path, tmp_path: Path) -> None:
    recording = Recording(recorded)
    out = tmp_path / "out"
    export_folder(recording, out)
    lines = [json.loads(line) for line in (out / "happenings.jsonl").read_text().splitlines()]
    assert len(lines) == len(recording.entries)
    views = {one.frame_id: one.jpeg for one in happenings(recording) if isinstance(one, View)}
    kept = {line["frame_id"]: (out / line["file"]).read_bytes() for line in lines if line["happening"] == "View"}
    assert kept == views
    words = "".join(line["text"] for line in lines if line["happening"] == "DescriptionPiece")
    assert words == 2 * "".join(PIECES)
    session = json.loads((out / "session.json").read_text())
    assert session["whole"] is True and session["server"]["model_name"] == "scripted"
    assert [question["query"] for question in session["questions"]] == list(QUERIES)
    for number, query in enumerate(QUERIES, 1):
        record = json.loads((out / f"{number:03d}" / "record.json").read_text())
        assert record["query"] == query and record["created"].startswith(recording.began.isoformat()[:16])
        assert (out / f"{number:03d}" / "frame.jpg").read_bytes() == views[number]


async def test_a_picture_that_is_none_is_kept_as_it_came(tmp_path: Path) -> None:
    async with ScriptedServer(Script(garbage_picture=True)) as server:
        await record_session(server, tmp_path / "s.mcap", QUERIES[:1])
    export_folder(Recording(tmp_path / "s.mcap"), tmp_path / "out")
    assert (tmp_path / "out" / "001" / "guidance.bin").read_bytes() == b"not a picture"


async def test_a_folder_in_use_is_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(LegoError, match="is not empty; choose another folder"):
        export_folder(Recording(recorded), tmp_path)


def test_rerun_reads_what_was_written_for_it(recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason="rerun-sdk is not installed (the extra rerun)")
    from lego_client.recording.rrd import export_rerun

    path = tmp_path / "out.rrd"
    export_rerun(Recording(recorded), path)
    rerun = [sys.executable, "-m", "rerun", "rrd"]
    subprocess.run([*rerun, "verify", str(path)], check=True, capture_output=True, timeout=120)
    printed = subprocess.run(
        [*rerun, "print", "-vvv", str(path)], check=True, capture_output=True, text=True, timeout=120
    )
    for expected in ("/view", "/guidance", "/log", "/description", "EncodedImage", *QUERIES, "".join(PIECES)):
        assert expected in printed.stdout
