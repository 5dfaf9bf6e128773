"""VISOR's masks as boxes of EPIC-KITCHENS' input frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.prepare.conftest import PLAIN, epic_row, metadata, prepare, records, report
from tests.training.prepare.films import steady, write_film

HAND = {"id": "1", "name": "left hand", "class_id": 300, "in_contact_object": "2",
        "segments": [[[0, 540], [480, 540], [480, 800]], [[100, 900], [200, 1080], [150, 950]]]}  # fmt: skip
KNIFE = {
    "id": "2",
    "name": "knife",
    "class_id": 4,
    "exhaustive": "y",
    "segments": [[[960, 270], [1152, 300], [1000, 378]]],
}
EMPTY = {"id": "3", "name": "plate", "class_id": 2, "segments": []}


@pytest.fixture
def visor(tmp_path: Path) -> Path:
    """VISOR's annotation of three frames, at 0.9 s, 1.9 s and 5 s of the video by its table of frames."""
    folder = tmp_path / "visor"
    (folder / "train").mkdir(parents=True)
    shown = {100: [KNIFE], 200: [HAND, KNIFE, EMPTY], 500: [HAND]}
    frames = [
        {"image": {"image_path": "", "name": f"P01_01_frame_{number:010d}.jpg", "subsequence": "s", "video": "P01_01"},
         "annotations": each}
        for number, each in shown.items()
    ]  # fmt: skip
    (folder / "train" / "P01_01.json").write_text(json.dumps({"video_annotations": frames}))
    times = {100: 0.9, 200: 1.9, 500: 5.0}
    table = {
        f"P01_01_frame_{number:010d}.jpg": f"frame_{round(60 * time) + 1:010d}.jpg" for number, time in times.items()
    }
    (folder / "frame_mapping.json").write_text(json.dumps({"P01_01": table}))
    return folder


def run(write_epic: Callable[..., Path], tmp_path: Path, visor: Path, *rows: dict[str, Any]) -> int:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(8, 10))
    return prepare(
        "epic", "--annotations", write_epic(*rows), "--videos", tmp_path / "videos", "--out", tmp_path / "data",
        "--boxes", visor, *PLAIN,
    )  # fmt: skip


def test_a_box_is_that_of_all_polygons_of_the_nearest_annotated_frame(
    write_epic: Callable[..., Path], tmp_path: Path, visor: Path
) -> None:
    assert run(write_epic, tmp_path, visor, epic_row("P01_01_0", 2.05, 3), epic_row("P01_01_1", 3.5, 5)) == 0

    assert list(records(tmp_path / "data")) == ["P01_01_0", "P01_01_1"]
    # The second action's input is more than half a second from any annotated frame.
    assert metadata(tmp_path / "data")["P01_01"]["boxes"] == {
        "P01_01_0": [
            {"name": "left hand", "box": [0.0, 0.5, 0.25, 1.0]},
            {"name": "knife", "box": [0.5, 0.25, 0.6, 0.35]},
        ]
    }
    assert report(tmp_path / "data")["boxes"] == 1


def test_damaged_annotations_of_a_video_cost_its_boxes_alone_and_are_noted(
    write_epic: Callable[..., Path], tmp_path: Path, visor: Path
) -> None:
    (visor / "train" / "P01_01.json").write_text('{"video_annotations": [{"image": {"name": "x"}')

    assert run(write_epic, tmp_path, visor, epic_row("P01_01_0", 2.05, 3)) == 0

    assert metadata(tmp_path / "data")["P01_01"]["boxes"] == {}
    notes = [note["note"] for note in report(tmp_path / "data")["notes"]]
    assert any(note.startswith("no boxes: ") and "P01_01.json is not valid JSON" in note for note in notes)


def test_boxes_need_visors_table_of_frames(
    write_epic: Callable[..., Path], tmp_path: Path, visor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (visor / "frame_mapping.json").unlink()

    assert run(write_epic, tmp_path, visor, epic_row("P01_01_0", 2.05, 3)) == 2

    assert "frame_mapping.json is missing" in capsys.readouterr().err
