"""EPIC-KITCHENS-100: which frames are taken of which actions, and what is said of those that are left out."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from lego_training.check import check_data
from lego_training.dataset import read_records
from PIL import Image

from tests.training.prepare.conftest import (
    PLAIN,
    epic_row,
    frames_of,
    metadata,
    prepare,
    records,
    report,
    skips,
)
from tests.training.prepare.films import number_of, painted, steady, write_film

Write = Callable[..., Path]


def numbers(out: Path, action_id: str) -> tuple[int, int]:
    """The painted numbers of the frames of a record."""
    first, second = frames_of(out, records(out)[action_id])
    return number_of(first), number_of(second)


def test_real_rows_give_the_frames_of_the_papers_times(epic_annotations: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((epic_annotations / "EPIC_100_validation_first300.csv").open()))
    early = [row for row in rows if row["video_id"] == "P01_11" and row["stop_timestamp"] < "00:01:00"]
    write_film(tmp_path / "videos" / "P01" / "P01_11.MP4", steady(62, 10))
    with (tmp_path / "EPIC_100_validation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(early)
    out = tmp_path / "data"

    annotations = tmp_path / "EPIC_100_validation.csv"
    code = prepare(
        "epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, "--split", "val", *PLAIN
    )

    assert code == 0
    assert len(early) == 17 and len(records(out, split="val")) == 16
    for row in early:
        start, stop = (
            60 * float(row[f"{key}_timestamp"][3:5]) + float(row[f"{key}_timestamp"][6:]) for key in ("start", "stop")
        )
        if row["narration_id"] == "P01_11_0":  # it starts with the video
            continue
        record = records(out, split="val")[row["narration_id"]]
        assert record["action"] == row["narration"]
        for path, time in zip(
            frames_of(out, record, split="val"), (start - 0.25, start + 0.6 * (stop - start)), strict=True
        ):
            assert abs(number_of(path) / 10 - time) <= 0.05 + 1e-6
        target = out / "EgoGen" / "epickitchen" / "val_gt_for_metric" / record["image_1"]
        assert target.read_bytes() == frames_of(out, record, split="val")[1].read_bytes()
    assert report(out, split="val")["skipped"] == {"input before the video's start": 1}
    assert check_data(out, smallest_side=64, described=False).findings == []
    assert len(read_records(out, "epickitchen", "val")) == 16


def test_times_decide_where_the_frame_rate_varies(write_epic: Write, tmp_path: Path) -> None:
    # Ten frames a second, then 40, then a pause of a second, then ten again: 0 to 2 s, 2 to 3 s, 4 s on.
    times = [*steady(2, 10), *(2 + time for time in steady(1, 40)), *(4 + time for time in steady(2, 10))]
    write_film(tmp_path / "videos" / "P01_01.mp4", times)
    annotations = write_epic(
        epic_row("P01_01_0", 2.5, 5.5), epic_row("P01_01_1", 1.25, 2.5), epic_row("P01_01_2", 3.7, 5)
    )
    out = tmp_path / "data"

    assert prepare("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN) == 0

    assert [times[number] for number in numbers(out, "P01_01_0")] == pytest.approx([2.25, 4.3])
    assert [times[number] for number in numbers(out, "P01_01_1")] == pytest.approx([1.0, 2.0])
    assert skips(out) == {"P01_01_2": "no frame at that time"}


def test_far_apart_actions_give_the_same_frames_as_near_ones(write_epic: Write, tmp_path: Path) -> None:
    # Jumps land on keyframes, here 30 s apart, and must be decoded forward from there.
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(90, 10), keyframes=300)
    rows = [epic_row("P01_01_0", 5, 6), epic_row("P01_01_1", 31, 32), epic_row("P01_01_2", 88, 89)]
    out = tmp_path / "data"

    annotations = write_epic(*rows)
    assert (
        prepare(
            "epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN, "input_delta=1"
        )
        == 0
    )

    found = [numbers(out, f"P01_01_{index}") for index in range(3)]
    assert found == [(40, 56), (300, 316), (870, 886)]


@pytest.mark.parametrize("candidates", [1, 7])
def test_the_sharpest_of_the_candidates_is_taken(write_epic: Write, tmp_path: Path, candidates: int) -> None:
    # Wanted are frames 20 and 33; 18 and 36 are sharp, and so is 12, which is too far away.
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10), is_sharp=lambda number: number in (12, 18, 36))
    out = tmp_path / "data"
    annotations = write_epic(epic_row("P01_01_0", 2.5, 3.8333))

    options = (*PLAIN, f"candidates={candidates}", "input_delta=0.5")
    assert prepare("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *options) == 0

    assert numbers(out, "P01_01_0") == ((20, 33) if candidates == 1 else (18, 36))
    facts = metadata(out)["P01_01"]["actions"]["P01_01_0"]
    assert (facts["wanted_input_time"], facts["input_time"]) == (2.0, 2.0 if candidates == 1 else 1.8)
    assert metadata(out)["P01_01"]["score"] == report(out)["settings"]["score"] == "sharpness"


def test_a_stride_spreads_the_candidates(write_epic: Write, tmp_path: Path) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10), is_sharp=lambda number: number in (16, 19))
    out = tmp_path / "data"
    annotations = write_epic(epic_row("P01_01_0", 2.5, 4.5))

    options = (*PLAIN, "candidates=5", "stride=2", "input_delta=0.5")
    assert prepare("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *options) == 0

    assert numbers(out, "P01_01_0")[0] == 16


def test_extracted_frames_are_found_by_the_annotations_rate(write_epic: Write, tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "P01" / "rgb_frames" / "P01_101"
    folder.mkdir(parents=True)
    for number in range(1, 201):
        Image.fromarray(painted(number)).save(folder / f"frame_{number:010d}.jpg", quality=95)
    (folder / "frame_0000000051.jpg").write_bytes((folder / "frame_0000000051.jpg").read_bytes()[:300])
    rows = [
        epic_row(f"P01_101_{index}", *span, fps=50) for index, span in enumerate([(2.25, 3.27), (1.25, 2), (3.5, 9)])
    ]
    out = tmp_path / "data"

    code = prepare(
        "epic",
        "--annotations",
        write_epic(*rows),
        "--frames",
        tmp_path / "frames",
        "--out",
        out,
        *PLAIN,
        "tolerance=0.01",
    )

    assert code == 0
    assert numbers(out, "P01_101_0") == (101, 144)  # frame 1 is that of 0 s
    assert skips(out) == {"P01_101_1": "broken frames", "P01_101_2": "video too short"}


def test_records_that_cannot_be_used_are_left_out_and_named(write_epic: Write, tmp_path: Path) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    rows = {
        "P01_01_0": (epic_row("P01_01_0", 2.05, 3), None),
        "P01_01_1": (epic_row("P01_01_1", 3, 2), "ends before it starts"),
        "P01_01_2": (epic_row("P01_01_2", "nan", 2), "no valid time"),
        "P01_01_3": (epic_row("P01_01_3", "00:00:nan", "00:00:02.00"), "no valid time"),
        "P01_01_4": (epic_row("P01_01_4", "00:00:-2.00", 3), "starts before 0"),
        "P01_01_5": (epic_row("P01_01_5", 0.1, 3), "input before the video's start"),
        "P01_01_6": (epic_row("P01_01_6", 2, 30), "video too short"),
        "P01_01_7": (epic_row("P01_01_7", 2, 3, narration=" "), "no label"),
        "P09_99_0": (epic_row("P09_99_0", 2, 3), "missing video"),
        "../x_8": (epic_row("../x_8", 2, 3), "id that is no file name"),
    }
    annotations = write_epic(*(row for row, _ in rows.values()), epic_row("P01_01_0", 4, 5))
    out = tmp_path / "data"

    assert prepare("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN) == 0

    expected = {action_id: reason for action_id, (_, reason) in rows.items() if reason}
    assert skips(out) == expected | {"P01_01_0": "duplicated id"}
    assert list(records(out)) == ["P01_01_0"] and numbers(out, "P01_01_0") == (18, 26)
    messages = {skip["action_id"]: skip["message"] for skip in report(out)["skips"]}
    assert messages["P01_01_1"] == "it lasts from 3.000 s to 2.000 s"
    assert messages["P01_01_6"].startswith("target frame: ") and messages["P01_01_6"].endswith("before 18.800 s")


def test_a_video_that_breaks_off_gives_what_it_has(write_epic: Write, tmp_path: Path) -> None:
    film = write_film(tmp_path / "videos" / "P01_01.mp4", steady(40, 10))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    (tmp_path / "videos" / "P01_02.mp4").write_bytes(b"no film")
    annotations = write_epic(epic_row("P01_01_0", 2.05, 3), epic_row("P01_01_1", 35, 36), epic_row("P01_02_0", 2, 3))
    out = tmp_path / "data"

    assert prepare("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN) == 0

    assert numbers(out, "P01_01_0") == (18, 26)
    assert skips(out) == {"P01_01_1": "truncated video", "P01_02_0": "unreadable video"}


def test_broken_frames_cost_only_the_actions_they_are_wanted_for(write_epic: Write, tmp_path: Path) -> None:
    film = write_film(tmp_path / "videos" / "P01_01.mp4", steady(30, 10), keyframes=10)
    data = bytearray(film.read_bytes())
    middle = len(data) // 2  # frame 70, which is a keyframe
    data[middle : middle + len(data) // 20] = bytes(len(data) // 20)
    film.write_bytes(data)
    rows = [epic_row(f"P01_01_{second}", second + 0.05, second + 0.5) for second in (2, 6, 7, 8, 9, 10, 11, 27)]
    out = tmp_path / "data"

    assert (
        prepare("epic", "--annotations", write_epic(*rows), "--videos", tmp_path / "videos", "--out", out, *PLAIN) == 0
    )

    # Wanted are frames 2 before and 3 after each second; from 70 on there are none until the next sound keyframe, 100.
    assert skips(out) == {f"P01_01_{second}": "broken frames" for second in (7, 8, 9, 10)}
    assert {second: numbers(out, f"P01_01_{second}") for second in (2, 6, 11, 27)} == {
        second: (10 * second - 2, 10 * second + 3) for second in (2, 6, 11, 27)
    }


def test_a_frame_rate_that_is_not_the_videos_is_noted(write_epic: Write, tmp_path: Path) -> None:
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    out = tmp_path / "data"
    annotations = write_epic(epic_row("P01_01_0", 2.05, 3, fps=60))

    assert prepare("epic", "--annotations", annotations, "--videos", tmp_path / "videos", "--out", out, *PLAIN) == 0

    (note,) = report(out)["notes"]
    assert note["clip"] == "P01_01" and note["note"].startswith(
        "the annotation counts 60 frames a second, the video has 10"
    )
    assert numbers(out, "P01_01_0") == (18, 26)


def test_another_file_than_an_annotation_is_refused_with_the_column_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "wrong.csv").write_text("narration_id,verb\nP01_01_0,open\n")

    code = prepare(
        "epic", "--annotations", tmp_path / "wrong.csv", "--videos", tmp_path / "videos", "--out", tmp_path / "data"
    )

    assert code == 2 and "has no column video_id" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
