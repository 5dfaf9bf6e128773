"""Checking a dataset: each fault is found, said with its record, and counted, and nothing else is."""

from __future__ import annotations

import copy
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lego_core.command import run_command
from lego_core.errors import LegoError
from lego_training.check import Report, check_data
from lego_training.cli import app
from PIL import Image

HEIGHT, WIDTH = 256, 456
NAME, FOLDER = "ego4d", "ego4d.fho"
RECORD = {
    "image_0": "clip/cut/0001.jpg", "image_1": "clip/cut/0002.jpg", "action": "#C C cuts the carrot",
    "llava_forecast_finetune": "The right hand cuts the carrot.",
}  # fmt: skip
CONVERSATION = {
    "image": RECORD["image_0"],
    "conversations": [
        {"from": "human", "value": "<image>\nHow do I cut the carrot?"},
        {"from": "gpt", "value": RECORD["llava_forecast_finetune"]},
    ],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound dataset: one record of train, one of val, one conversation."""
    for split, frames in (("train", (1, 2)), ("val", (1, 2)), ("val_gt_for_metric", (2,))):
        folder = tmp_path / "EgoGen" / FOLDER / split / "clip" / "cut"
        folder.mkdir(parents=True)
        for number in frames:
            Image.effect_noise((WIDTH, HEIGHT), 30).convert("RGB").save(folder / f"000{number}.jpg")
    for split in ("train", "val"):
        (tmp_path / f"{NAME}_{split}.json").write_text(json.dumps({"clip": {"cut": RECORD}}))
    (tmp_path / f"{NAME}_metadata.json").write_text(json.dumps({"clip": {"height": HEIGHT, "width": WIDTH}}))
    (tmp_path / "curation_from_gpt").mkdir()
    curation = tmp_path / "curation_from_gpt" / f"{NAME}_for_tuning_forecasting.json"
    curation.write_text(json.dumps([CONVERSATION]))
    return tmp_path


def faults(report: Report) -> list[tuple[str, str, str]]:
    return [(Path(finding.file).name, finding.record, finding.kind) for finding in report.findings]


def test_a_sound_dataset_has_no_fault(root: Path) -> None:
    walked = []

    report = check_data(root, advance=lambda done, total: walked.append((done, total)))

    assert (report.datasets, report.records, report.findings) == ([NAME], 3, [])
    assert walked == [(1, 3), (2, 3), (3, 3)]


def changed(**values: Any) -> Callable[[Path], None]:
    """Gives the training record other values; None takes a key away."""

    def change(root: Path) -> None:
        record = {key: value for key, value in {**RECORD, **values}.items() if value is not None}
        (root / f"{NAME}_train.json").write_text(json.dumps({"clip": {"cut": record}}))

    return change


def frame(split: str, number: int, content: Callable[[bytes], bytes] | None) -> Callable[[Path], None]:
    """Gives a frame another content; None takes it away."""

    def change(root: Path) -> None:
        path = root / "EgoGen" / FOLDER / split / "clip" / "cut" / f"000{number}.jpg"
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content(path.read_bytes()))

    return change


def small(root: Path) -> None:
    Image.new("RGB", (300, 200)).save(root / "EgoGen" / FOLDER / "train" / "clip" / "cut" / "0002.jpg")


def deeper(root: Path) -> None:
    folder = root / "EgoGen" / FOLDER / "train" / "clip" / "cut" / "more"
    folder.mkdir()
    (folder.parent / "0002.jpg").rename(folder / "0002.jpg")
    changed(image_1="clip/cut/more/0002.jpg")(root)


def backwards(root: Path) -> None:
    changed(image_0=RECORD["image_1"], image_1=RECORD["image_0"])(root)


def metadata(**values: Any) -> Callable[[Path], None]:
    return lambda root: (root / f"{NAME}_metadata.json").write_text(json.dumps(values)) and None


def said(**values: Any) -> Callable[[Path], None]:
    """Has the metadata say more of the clip."""
    return metadata(clip={"height": HEIGHT, "width": WIDTH, **values})


def linked(root: Path, name: str, split: str = "train") -> dict[str, str]:
    """Returns a sound record with frames of its own."""
    folder = root / "EgoGen" / FOLDER / split / "clip"
    (folder / name).mkdir()
    for frame in ("0001.jpg", "0002.jpg"):
        (folder / name / frame).hardlink_to(folder / "cut" / frame)
    return {**RECORD, "image_0": f"clip/{name}/0001.jpg", "image_1": f"clip/{name}/0002.jpg"}


CASES: list[tuple[Callable[[Path], None], str, str]] = [
    (frame("train", 1, None), "missing frame", r"image_0: .*train/clip/cut/0001\.jpg is missing"),
    (frame("train", 2, lambda _: b"not a picture"), "unreadable frame", r"image_1: .*0002\.jpg: .* are not a JPEG"),
    (frame("train", 2, lambda _: b""), "unreadable frame", "the image is empty"),
    (frame("train", 2, lambda whole: whole[: len(whole) // 2]), "truncated frame", "image_1: .*truncated"),
    (small, "small frame", r"0002\.jpg is 300x200 pixels; the shorter side must be 256"),
    (deeper, "path depth", "image_1 is 'clip/cut/more/0002.jpg'; it must be clip/action/frame"),
    (changed(image_0="/etc/hosts"), "unsafe path", "image_0 is '/etc/hosts'; it must be relative"),
    (changed(image_1="clip/../../val/clip/cut/0002.jpg"), "unsafe path", "image_1 is .*; it must be relative"),
    (changed(action=None), "missing key", "lacks action"),
    (changed(image_0=7), "not text", "image_0 is 7; it must be text"),
    (changed(llava_forecast_finetune=" "), "empty description", "has no description"),
    (changed(llava_forecast_finetune=None), "empty description", "has no description"),
    (changed(action="cut carrot"), "label", "action is 'cut carrot'; a narration of Ego4D begins with '#C C '"),
    (changed(action=""), "label", "action is empty"),
    (changed(action="#C C "), "label", "the label '#C C ' names no action; correct it or drop its record"),
    (changed(image_0=" "), "missing frame", "image_0 is empty; it must name a frame"),
    (backwards, "frame order", "the target 0001.jpg does not come after the input 0002.jpg by name"),
]


@pytest.mark.parametrize(("break_it", "kind", "message"), CASES)
def test_each_fault_of_a_record_is_found_and_nothing_else(
    root: Path, break_it: Callable[[Path], None], kind: str, message: str
) -> None:
    # The conversation shares a frame with the record: its own faults are another test's.
    (root / "curation_from_gpt" / f"{NAME}_for_tuning_forecasting.json").unlink()
    break_it(root)

    report = check_data(root)

    assert faults(report) == [(f"{NAME}_train.json", "record clip/cut", kind)]
    assert report.counts == {kind: 1}
    assert re.search(message, report.findings[0].message)


@pytest.mark.parametrize("content", [None, lambda whole: whole[:2000]])
def test_a_target_that_metrics_would_miss_is_found(root: Path, content: Callable[[bytes], bytes] | None) -> None:
    frame("val_gt_for_metric", 2, content)(root)

    kind = "truncated frame" if content else "missing target"
    assert faults(check_data(root)) == [(f"{NAME}_val.json", "record clip/cut", kind)]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (metadata(), "its clip is not in the metadata"),
        (metadata(clip={"height": HEIGHT}), "its clip's width is None in the metadata"),
        (metadata(clip={"height": "256", "width": WIDTH}), "its clip's height is '256' in the metadata"),
        (metadata(clip={"height": math.nan, "width": WIDTH}), "its clip's height is nan in the metadata"),
        (said(fps=math.nan), "its clip's fps is nan in the metadata, which is no number"),
        (said(actions={"cut": {"times": [0.5, math.inf]}}), "its clip's actions.cut.times.1 is inf in the metadata"),
        (said(actions=["cut"]), "its clip's actions are ['cut'] in the metadata; they must be a mapping"),
        (said(actions={"cut": 5}), "the metadata say 5 of it; that must be a mapping"),
    ],
)
def test_what_is_wrong_with_metadata_is_found(root: Path, break_it: Callable[[Path], None], message: str) -> None:
    break_it(root)

    report = check_data(root)

    assert report.counts == {"metadata": 2}, "one for each split"
    assert message in report.findings[0].message


def test_a_record_may_have_several_faults_and_the_walk_goes_on(root: Path) -> None:
    broken = {**RECORD, "action": "", "llava_forecast_finetune": ""}
    records = {"a": broken, "b": "x", "c": linked(root, "c")}
    (root / f"{NAME}_train.json").write_text(json.dumps({"clip": records, "d": []}))

    report = check_data(root)

    assert [(finding.record, finding.kind) for finding in report.findings] == [
        ("record clip/a", "label"), ("record clip/a", "empty description"), ("record clip/b", "no record"),
        ("record d/*", "no record"), ("record d/*", "metadata"),
    ]  # fmt: skip
    assert report.records == 6


def test_a_clip_that_lists_no_actions_is_found(root: Path) -> None:
    (root / f"{NAME}_train.json").write_text(json.dumps({"empty": {}, "clip": {"cut": RECORD}}))
    said(fps=30)(root)
    about = json.loads((root / f"{NAME}_metadata.json").read_text())
    metadata(**about, empty=about["clip"])(root)

    report = check_data(root)

    assert faults(report) == [(f"{NAME}_train.json", "record empty/*", "no actions")]
    assert str(report.findings[0]).endswith("record empty/*: its clip lists no actions; list them or take the clip out")
    assert report.records == 4


def test_records_that_share_a_frame_are_found(root: Path) -> None:
    again = {**linked(root, "again"), "image_1": RECORD["image_1"]}
    (root / f"{NAME}_train.json").write_text(json.dumps({"clip": {"cut": RECORD, "again": again}}))

    report = check_data(root)

    assert faults(report) == [(f"{NAME}_train.json", "record clip/again", "shared frame")]
    assert report.findings[0].message == "image_1 is 'clip/cut/0002.jpg', which is that of clip/cut too"


def test_a_clip_or_action_that_is_listed_twice_is_found(root: Path) -> None:
    record = json.dumps(RECORD)
    for content, key in (
        (f'{{"clip": {{"cut": {record}}}, "clip": {{"mix": {record}}}}}', "clip"),
        (f'{{"clip": {{"cut": {record}, "cut": {record}}}}}', "cut"),
    ):
        (root / f"{NAME}_train.json").write_text(content)

        report = check_data(root)

        assert faults(report) == [(f"{NAME}_train.json", "", "unreadable file")]
        assert f"'{key}' is listed twice" in report.findings[0].message


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
@pytest.mark.parametrize(
    "file", ["ego4d_train.json", "ego4d_metadata.json", "curation_from_gpt/ego4d_for_tuning_forecasting.json"]
)
def test_a_file_that_cannot_be_read_is_found_and_the_others_are_walked(root: Path, file: str, content: str) -> None:
    (root / file).write_text(content)

    report = check_data(root)

    assert faults(report) == [(Path(file).name, "", "unreadable file")]
    assert str(report.findings[0]).startswith(f"{root / file}: is not valid JSON")
    assert report.records == (3 if "metadata" in file else 2)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("ego4d_train.json", "{}"),
        ("curation_from_gpt/ego4d_for_tuning_forecasting.json", "[]"),
    ],
)
def test_a_file_without_a_record_is_found(root: Path, file: str, content: str) -> None:
    (root / file).write_text(content)

    assert faults(check_data(root)) == [(Path(file).name, "", "empty file")]


def test_a_dataset_without_a_training_split_is_found(root: Path) -> None:
    (root / f"{NAME}_train.json").unlink()

    assert faults(check_data(root)) == [(f"{NAME}_train.json", "", "missing split")]


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("image", "clip/cut/0009.jpg", "missing frame"),
        ("image", "../train/clip/cut/0001.jpg", "unsafe path"),
        ("conversations", [], "turns"),
    ],
)
def test_faults_of_conversations_are_found(root: Path, key: str, value: Any, kind: str) -> None:
    conversations = [copy.deepcopy(CONVERSATION), {**CONVERSATION, key: value}]
    path = root / "curation_from_gpt" / f"{NAME}_for_tuning_forecasting.json"
    path.write_text(json.dumps(conversations))

    assert faults(check_data(root)) == [(path.name, "record 1", kind)]


def test_a_path_that_no_system_takes_is_a_fault_like_others(root: Path) -> None:
    long = f"clip/cut/{'1' * 5000}.jpg"
    broken = {**RECORD, "image_1": long}
    for split in ("train", "val"):
        fine = linked(root, "b", split)
        (root / f"{NAME}_{split}.json").write_text(json.dumps({"clip": {"a": broken, "b": {**fine, "action": ""}}}))
    targets = root / "EgoGen" / FOLDER / "val_gt_for_metric" / "clip"
    (targets / "b").mkdir()
    (targets / "b" / "0002.jpg").hardlink_to(targets / "cut" / "0002.jpg")

    report = check_data(root)

    assert report.counts == {"unreadable frame": 3, "label": 2}, "one of them the target that metrics would miss"
    assert "File name too long" in report.findings[0].message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into any folder")
def test_a_folder_without_access_is_a_fault_like_others(root: Path) -> None:
    folder = root / "EgoGen" / FOLDER / "val" / "clip"
    folder.chmod(0)

    counts = check_data(root).counts
    folder.chmod(0o700)

    assert counts == {"unreadable frame": 2}


def test_another_smallest_side_can_be_asked_for(root: Path) -> None:
    assert check_data(root, smallest_side=300).counts == {"small frame": 6}
    small(root)
    assert check_data(root, smallest_side=200).findings == []


def test_a_dataset_that_is_yet_to_be_curated_may_lack_descriptions_but_not_have_empty_ones(root: Path) -> None:
    changed(llava_forecast_finetune=None)(root)
    assert check_data(root, described=False).findings == []
    changed(llava_forecast_finetune=" ")(root)
    assert check_data(root, described=False).counts == {"empty description": 1}


def test_only_the_dataset_asked_for_is_walked(root: Path) -> None:
    (root / "other_train.json").write_text("{")

    assert check_data(root, NAME).findings == []
    assert check_data(root).datasets == [NAME, "other"]
    with pytest.raises(LegoError, match=r"holds no dataset 'epic': there is no epic_train.json"):
        check_data(root, "epic")


def test_a_stopped_check_keeps_what_it_found_and_another_goes_on_from_there(root: Path) -> None:
    changed(action="")(root)
    frame("val_gt_for_metric", 2, None)(root)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    stopped = check_data(root, advance=stop)
    walked = []
    rest = check_data(root, skip=stopped.reached, advance=lambda done, total: walked.append((done, total)))

    assert (stopped.reached, stopped.total, stopped.counts) == (1, 3, {"label": 1})
    assert (rest.records, rest.counts, walked) == (2, {"missing target": 1}, [(2, 3), (3, 3)])


def test_a_conversation_keeps_its_number_when_others_are_skipped(root: Path) -> None:
    path = root / "curation_from_gpt" / f"{NAME}_for_tuning_forecasting.json"
    path.write_text(json.dumps([CONVERSATION, CONVERSATION, {**CONVERSATION, "conversations": []}]))

    report = check_data(root, skip=3)  # train, val and the first conversation

    assert (path.name, "record 2", "turns") in faults(report)


def test_more_than_there_is_cannot_be_skipped(root: Path) -> None:
    with pytest.raises(LegoError, match=r"3 records are to be skipped and .* has 3; skip fewer"):
        check_data(root, skip=3)


def test_ctrl_c_shows_what_is_found_so_far_and_how_to_go_on(root: Path) -> None:
    records = {"first": {**RECORD, "action": ""}}
    records |= {f"{number:04}": linked(root, f"{number:04}") for number in range(3000)}
    (root / f"{NAME}_train.json").write_text(json.dumps({"clip": records}))
    # A terminal, so that the progress bar tells when the walk is under way.
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lego_training", "check-data", str(root)], stdout=subprocess.PIPE, stderr=terminal,
        text=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while not re.search(rb"\b[1-9]\d*/3003", shown):
        shown += os.read(screen, 4096)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    with suppress(OSError), open(screen, "rb", buffering=0) as rest:  # a terminal's end is an error
        while more := rest.read(4096):
            shown += more

    assert process.returncode == 130
    lines = said.splitlines()
    assert lines[0].endswith("record clip/first: action is empty") and lines[1].split() == ["1", "label"]
    checked = re.fullmatch(rf"{NAME}: (\d+) records, 1 faults", lines[2])
    assert checked and 0 < int(checked[1]) < 3003
    assert f"stopped: after {checked[1]} of 3003 records, whose faults are above; --skip {checked[1]}" in shown.decode()


def test_a_report_that_cannot_be_written_is_told_before_the_walk(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert (
        run_command(app, "lego-train", ["check-data", str(root), "--json", str(root / f"{NAME}_val.json" / "r")]) == 2
    )

    said = capsys.readouterr()
    assert "cannot be written" in said.err and "records" not in said.out


def test_findings_are_shown_and_saved_in_a_new_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(action="")(root)
    place = root / "reports" / "today" / "r.json"

    assert run_command(app, "lego-train", ["check-data", str(root), "--json", str(place)]) == 1

    assert "record clip/cut: action is empty" in capsys.readouterr().out
    assert json.loads(place.read_text())["counts"] == {"label": 1}


def test_findings_are_shown_even_if_the_disk_is_full_then(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(action="")(root)

    assert run_command(app, "lego-train", ["check-data", str(root), "--json", "/dev/full"]) == 2

    said = capsys.readouterr()
    assert "record clip/cut: action is empty" in said.out and "No space left" in said.err


def test_a_report_is_saved_with_its_counts(root: Path, tmp_path: Path) -> None:
    changed(action="")(root)

    check_data(root).save(tmp_path / "report.json")

    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["records"] == 3 and saved["counts"] == {"label": 1}
    assert saved["findings"][0]["record"] == "record clip/cut"
