from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lego_core.command import run_command
from lego_training.cli import app

FIELDS = (
    "narration_id", "participant_id", "video_id", "narration_timestamp", "start_timestamp", "stop_timestamp",
    "start_frame", "stop_frame", "narration", "verb", "verb_class", "noun", "noun_class", "all_nouns",
    "all_noun_classes",
)  # fmt: skip

# Small frames, one candidate, no filter: what a test does not ask about does not get in its way.
PLAIN = ("height=64", "candidates=1", "similarity.measure=pixels", "similarity.lowest=-1", "similarity.highest=1")


def epic_row(action_id: str, start: Any, stop: Any, narration: str = "open drawer", fps: int = 60) -> dict[str, Any]:
    """A row as EPIC-KITCHENS-100 has them; times in seconds, or text to be taken as it is."""
    stamps = [
        time if isinstance(time, str) else f"{int(time // 3600):02}:{int(time % 3600 // 60):02}:{time % 60:05.2f}"
        for time in (start, stop)
    ]
    frames = [max(1, int(time * fps)) if not isinstance(time, str) else "" for time in (start, stop)]
    video = action_id.rpartition("_")[0]
    return dict(zip(FIELDS, (
        action_id, video[:3], video, stamps[0], *stamps, *frames, narration, "open", 3, "drawer", 8, "['drawer']",
        "[8]",
    ), strict=True))  # fmt: skip


@pytest.fixture
def write_epic(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows into an annotation file."""

    def write(*rows: dict[str, Any]) -> Path:
        path = tmp_path / "EPIC_100_train.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def epic_annotations() -> Path:
    path = Path(__file__).parents[4] / "shared/fixtures/annotations/epic"
    if not path.is_dir():
        pytest.skip("the shared fixtures (real annotations) are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def weights() -> Path:
    path = Path(__file__).parents[4] / "shared/fixtures/weights"
    if not path.is_dir():
        pytest.skip("the shared fixtures (aesthetic heads) are not beside this checkout")
    return path


def prepare(*arguments: str | Path) -> int:
    """Runs `lego-train prepare` in this process; returns its exit code."""
    return run_command(app, "lego-train", ["prepare", *map(str, arguments)])


def records(out: Path, name: str = "epickitchen", split: str = "train") -> dict[str, dict[str, str]]:
    """The records of a written split by action id."""
    clips = json.loads((out / f"{name}_{split}.json").read_text())
    return {action_id: record for actions in clips.values() for action_id, record in actions.items()}


def metadata(out: Path, name: str = "epickitchen") -> dict[str, Any]:
    return dict(json.loads((out / f"{name}_metadata.json").read_text()))


def report(out: Path, name: str = "epickitchen", split: str = "train") -> dict[str, Any]:
    return dict(json.loads((out / "prepare" / f"{name}_{split}" / "report.json").read_text()))


def skips(out: Path, name: str = "epickitchen") -> dict[str, str]:
    """Why each record that is left out is."""
    return {skip["action_id"]: skip["reason"] for skip in report(out, name)["skips"]}


def frames_of(out: Path, record: dict[str, str], name: str = "epickitchen", split: str = "train") -> tuple[Path, Path]:
    folder = out / "EgoGen" / name / split
    return folder / record["image_0"], folder / record["image_1"]
