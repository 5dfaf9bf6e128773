"""A session with a real model, recorded; then played, compared, exported; and a task led by it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.processes import CLIENT, REPOSITORY, Server, asking, client

QUERIES = ("how do I open the drawer?", "how do I turn on the tap?")


@pytest.fixture(scope="module")
def recorded(server: Server, kitchen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    path = folder / "session.mcap"
    arguments = asking(server, kitchen, folder / "out", QUERIES[0], "--record", str(path), "--record-consent")
    result = client(*arguments, QUERIES[1])
    assert result.returncode == 0, result.stderr
    return path


def test_the_same_server_answers_a_recording_s_questions_to_the_pixel(
    server: Server, recorded: Path, tmp_path: Path
) -> None:
    result = client("replay", str(recorded), "--server", server.address, "--json", str(tmp_path / "figures.json"))
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [one["query"] for one in figures] == list(QUERIES)
    assert all(one["same_description"] and one["equal_pixels"] for one in figures)


def test_a_recording_is_played_and_exported_without_a_server(recorded: Path, tmp_path: Path) -> None:
    played = client("replay", str(recorded), "--display", "none")
    assert played.returncode == 0, played.stderr
    assert all(query in played.stdout for query in QUERIES)
    exported = client("export", str(recorded), str(tmp_path / "folder"))
    assert exported.returncode == 0, exported.stderr
    for number in (1, 2):
        again = (tmp_path / "folder" / f"{number:03d}" / "guidance.jpg").read_bytes()
        assert again == (recorded.parent / "out" / f"{number:03d}" / "guidance.jpg").read_bytes()


def test_a_task_is_led_with_a_real_model(server: Server, kitchen: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [*CLIENT, "task", str(REPOSITORY / "docs" / "tasks" / "tea.yaml"), "--server", server.address,
         "--source", str(kitchen), "--out", str(tmp_path / "out"), "--steps", "2"],
        input="next\ndone\nwhere am I?\nstop\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Step 2 of 6: Stop the water. 1 done." in result.stdout
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("*/record.json"))]
    assert [record["query"] for record in records] == ["how do I turn on the tap?", "how do I turn off the tap?"]
