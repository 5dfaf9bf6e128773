"""Ego4D: frames at PRE-15 and PNR of the actions that are the wearer's and were not rejected, and their boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lego_training.check import check_data

from tests.training.prepare.conftest import PLAIN, frames_of, metadata, prepare, records, report, skips
from tests.training.prepare.films import number_of, steady, write_film

# Frames of the clip, at 30 a second; the clip is cut from 100 s on out of its video.
FRAMES = {
    "pre_45": 15,
    "pre_30": 30,
    "pre_15": 45,
    "pre_frame": 60,
    "contact_frame": 66,
    "pnr_frame": 75,
    "post_frame": 90,
}
BOXES = [
    {"object_type": "left_hand", "structured_noun": None, "bbox": {"x": 0, "y": 540, "width": 480, "height": 540}},
    {"object_type": "object_of_change", "structured_noun": "knife_(knife,_machete)",
     "bbox": {"x": 960.0, "y": 270.0, "width": 192.0, "height": 108.0}},
    {"object_type": "tool", "structured_noun": "cutting_board",
     "bbox": {"x": 1800, "y": 0, "width": 480, "height": 108}},
    {"object_type": "right_hand", "structured_noun": None, "bbox": {"x": 1930, "y": 0, "width": 10, "height": 10}},
]  # fmt: skip


def action(uid: str, **changes: Any) -> dict[str, Any]:
    """A narrated action with all fields that fho_main.json has."""
    return {
        "uid": uid, "narration_text": "#C C picks up the knife", "narration_timestamp_sec": 102.1,
        "clip_narration_timestamp_sec": 2.1, "narration_annotation_uid": "n", "start_sec": 100.5, "end_sec": 108.5,
        "start_frame": 3015, "end_frame": 3255, "clip_start_sec": 0.5, "clip_end_sec": 8.5, "clip_start_frame": 15,
        "clip_end_frame": 255, "structured_verb": "take_(pick,_grab,_get)", "freeform_verb": None,
        "structured_noun": "knife_(knife,_machete)", "state_transition": None, "is_valid_action": True,
        "is_partial": False, "is_rejected": False, "is_invalid_annotation": False, "reject_reason": None, "stage": None,
        "warnings": [], "critical_frames": {name: 3000 + number for name, number in FRAMES.items()},
        "clip_critical_frames": dict(FRAMES),
        "frames": [{"frame_type": name, "frame_number": 3000 + number, "boxes": BOXES if name == "pre_15" else []}
                   for name, number in FRAMES.items()],
        **changes,
    }  # fmt: skip


def annotate(
    path: Path, *actions: dict[str, Any], video: str = "video", clip: str = "clip", fps: float | None = 30.0
) -> Path:
    """Writes fho_main.json with one video of one interval."""
    interval = {"clip_uid": clip, "start_sec": 100.0, "end_sec": 110.0, "narrated_actions": list(actions)}
    about = {"fps": fps, "num_frames": 9000, "width": 1920, "height": 1080}
    videos = [
        {"video_uid": video, "video_metadata": about, "annotated_intervals": [interval]},
        {
            "video_uid": "other",
            "video_metadata": about,
            "annotated_intervals": [{"clip_uid": "c2", "narrated_actions": None}],
        },
    ]
    path.write_text(json.dumps({"version": "2.0", "videos": videos}))
    return path


def test_frames_are_those_of_pre_15_and_pnr_in_the_clip(tmp_path: Path) -> None:
    annotations = annotate(tmp_path / "fho_main.json", action("a1"))
    write_film(tmp_path / "clips" / "clip.mp4", steady(5, 30))
    out = tmp_path / "data"

    assert prepare("ego4d", "--annotations", annotations, "--clips", tmp_path / "clips", "--out", out, *PLAIN) == 0

    record = records(out, "ego4d")["a1"]
    assert [number_of(path) for path in frames_of(out, record, "ego4d.fho")] == [45, 75]
    assert record["action"] == "#C C picks up the knife"
    assert check_data(out, smallest_side=64, described=False).findings == []


def test_a_clip_of_another_rate_is_read_by_time(tmp_path: Path) -> None:
    annotations = annotate(tmp_path / "fho_main.json", action("a1"))
    write_film(tmp_path / "clips" / "clip.mp4", steady(5, 60))
    out = tmp_path / "data"

    assert prepare("ego4d", "--annotations", annotations, "--clips", tmp_path / "clips", "--out", out, *PLAIN) == 0

    assert [number_of(path) for path in frames_of(out, records(out, "ego4d")["a1"], "ego4d.fho")] == [90, 150]
    assert "the annotation counts 30 frames a second, the video has 60" in report(out, "ego4d")["notes"][0]["note"]


def test_full_scale_videos_are_read_at_their_own_frame_numbers(tmp_path: Path) -> None:
    annotations = annotate(tmp_path / "fho_main.json", action("a1"))
    write_film(tmp_path / "videos" / "video.mp4", steady(105, 10))
    out = tmp_path / "data"

    assert prepare("ego4d", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN) == 0

    record = records(out, "ego4d")["a1"]
    assert record["image_0"].startswith("clip/a1/")
    assert [number_of(path) for path in frames_of(out, record, "ego4d.fho")] == [1015, 1025]


def test_boxes_of_the_pre_15_frame_are_in_the_metadata_as_shares_of_the_frame(tmp_path: Path) -> None:
    annotations = annotate(tmp_path / "fho_main.json", action("a1"), action("a2", frames=None))
    write_film(tmp_path / "clips" / "clip.mp4", steady(5, 30))
    out = tmp_path / "data"

    assert prepare("ego4d", "--annotations", annotations, "--clips", tmp_path / "clips", "--out", out, *PLAIN) == 0

    assert metadata(out, "ego4d")["clip"]["boxes"] == {
        "a1": [
            {"name": "left hand", "box": [0.0, 0.5, 0.25, 1.0]},
            {"name": "knife", "box": [0.5, 0.25, 0.6, 0.35]},
            {"name": "cutting board", "box": [0.9375, 0.0, 1.0, 0.1]},  # cut at the edge; the right hand is outside
        ]
    }


def test_actions_that_are_of_no_use_are_left_out_and_named(tmp_path: Path) -> None:
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "rejected": ({"is_rejected": True}, "rejected by the annotators"),
        "not-valid": ({"is_valid_action": False}, "rejected by the annotators"),
        "invalid": ({"is_invalid_annotation": True}, "rejected by the annotators"),
        "other": ({"narration_text": "#O man X picks up the knife"}, "not the wearer's action"),
        "silent": ({"narration_text": None}, "no label"),
        "no-frames": ({"clip_critical_frames": None}, "no PRE-15 and PNR frame"),
        "no-pnr": ({"clip_critical_frames": {**FRAMES, "pnr_frame": None}}, "no PRE-15 and PNR frame"),
        "text": ({"clip_critical_frames": {**FRAMES, "pnr_frame": "75"}}, "no valid time"),
        "negative": ({"clip_critical_frames": {**FRAMES, "pre_15": -3}}, "starts before 0"),
        "order": ({"clip_critical_frames": {**FRAMES, "pnr_frame": 45}}, "target not after input"),
        "late": ({"clip_critical_frames": {**FRAMES, "pnr_frame": 400}}, "video too short"),
        "a/2": ({}, "id that is no file name"),
        "a1": ({}, "duplicated id"),
    }
    others = [action(uid, **changes) for uid, (changes, _) in faults.items()]
    annotations = annotate(tmp_path / "fho_main.json", action("a1"), *others)
    write_film(tmp_path / "clips" / "clip.mp4", steady(5, 30))
    out = tmp_path / "data"

    assert prepare("ego4d", "--annotations", annotations, "--clips", tmp_path / "clips", "--out", out, *PLAIN) == 0

    assert list(records(out, "ego4d")) == ["a1"]
    assert skips(out, "ego4d") == {uid: reason for uid, (_, reason) in faults.items()}


def test_the_manifest_chooses_the_videos_of_the_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = annotate(tmp_path / "fho_main.json", action("a1"))
    write_film(tmp_path / "clips" / "clip.mp4", steady(5, 30))
    manifest = tmp_path / "ego4d.json"
    manifest.write_text(
        json.dumps({"videos": [{"video_uid": "video", "split_fho": "val"}, {"video_uid": "other", "split_fho": None}]})
    )
    common = ("ego4d", "--annotations", annotations, "--clips", tmp_path / "clips", "--manifest", manifest)

    assert prepare(*common, "--out", tmp_path / "val", "--split", "val", *PLAIN) == 0
    assert prepare(*common, "--out", tmp_path / "train", "--split", "train", *PLAIN) == 2

    assert list(records(tmp_path / "val", "ego4d", "val")) == ["a1"]
    assert "has no video whose split_fho is 'train'; there are val (1), None (1)" in capsys.readouterr().err
