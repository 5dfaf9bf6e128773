"""Reads the actions of EPIC-KITCHENS-100 from EPIC_100_train.csv or EPIC_100_validation.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from lego_core.errors import LegoError

from lego_training.prepare.actions import Action, Clip, Reason, Skip, is_safe_id

_COLUMNS = ("narration_id", "video_id", "start_timestamp", "stop_timestamp", "start_frame", "stop_frame", "narration")


def read_epic(path: Path, input_delta: float, target_share: float) -> list[Clip]:
    """Returns the clips of a CSV file, in the order in which it first names them.

    The input frame is wanted `input_delta` before the action's start, the target frame after `target_share` of its
    duration (lego-reference D5). The paper prints the second as δ_o = t + 0.6 (t̂ − t), a time where a difference of
    times belongs. Taken here is what it must mean: the target's time is t + 0.6 (t̂ − t), so that δ_o = 0.6 (t̂ − t).

    Args:
        path: The file.
        input_delta: Seconds; the paper's is 0.25.
        target_share: 0 to 1; the paper's is 0.6.

    Raises:
        LegoError: No such file, or not such a CSV.
    """
    if not path.is_file():
        raise LegoError(f"{path} is no file; give EPIC_100_train.csv or EPIC_100_validation.csv")
    clips: dict[str, Clip] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            lacking = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if lacking:
                raise LegoError(f"{path} has no column {lacking[0]}; give a CSV of the epic-kitchens-100-annotations")
            for row in rows:
                values = {name: (row[name] or "").strip() for name in _COLUMNS}
                clip = clips.setdefault(values["video_id"], Clip(values["video_id"], values["video_id"]))
                clip.add(_record(values, input_delta, target_share))
                clip.fps = _frame_rate(values) or clip.fps
    except (csv.Error, UnicodeDecodeError) as error:
        raise LegoError(f"{path} cannot be read as CSV ({error}); fetch it again") from error
    if not clips:
        raise LegoError(f"{path} holds no actions")
    return list(clips.values())


def parse_timestamp(text: str) -> float:
    """Returns the seconds of HH:MM:SS.ss; nan if it is no such time."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return math.nan


def _record(values: dict[str, str], input_delta: float, target_share: float) -> Action | Skip:
    action_id, label = values["narration_id"], values["narration"]
    start, stop = (parse_timestamp(values[f"{name}_timestamp"]) for name in ("start", "stop"))
    if not is_safe_id(values["video_id"]):
        return Skip(action_id, Reason.UNSAFE_ID, f"its video_id {values['video_id']!r} is no file name")
    if not label:
        return Skip(action_id, Reason.NO_LABEL, "its narration is empty")
    if not (math.isfinite(start) and math.isfinite(stop)):
        texts = f"{values['start_timestamp']!r} to {values['stop_timestamp']!r}"
        return Skip(action_id, Reason.NO_TIME, f"its times {texts} are not HH:MM:SS.ss")
    if start < 0:
        return Skip(action_id, Reason.NEGATIVE_START, f"it starts at {start:.3f} s")
    if stop <= start:
        return Skip(action_id, Reason.END_BEFORE_START, f"it lasts from {start:.3f} s to {stop:.3f} s")
    facts = {"start": start, "stop": stop}
    return Action(action_id, label, start - input_delta, start + target_share * (stop - start), facts)


def _frame_rate(values: dict[str, str]) -> float | None:
    """The rate of the annotation's frame numbers, which are those of the extracted frames.

    It is 60 for the videos of 2018 whatever their own rate (29.97 to 90), and 50 for the later ones. Frame numbers are
    cut to whole ones, so that those of the first two seconds may round to another rate.
    """
    stop = parse_timestamp(values["stop_timestamp"])
    if not values["stop_frame"].isdecimal() or not stop > 2:
        return None
    return float(round(int(values["stop_frame"]) / stop))
