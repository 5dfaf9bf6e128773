"""Reads the hand and object interactions of Ego4D from fho_main.json (version 2)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.prepare.actions import Action, Clip, NamedBox, Reason, Skip, is_safe_id
from lego_training.prepare.boxes import named_box

# What the released labels begin with: the wearer's own actions.
_WEARER = re.compile(r"#C C\b")


def read_ego4d(path: Path, clips_cut: bool, videos: set[str] | None = None) -> list[Clip]:
    """Returns one clip for each annotated interval, in file order.

    The input frame is the annotation's PRE-15, the target its PNR (point of no return) frame (lego-reference D5).
    They are given as frame numbers, which count from 0 at the rate in the annotation; as videos differ, the times that
    result are what is looked for.

    Args:
        path: fho_main.json.
        clips_cut: Whether the videos are Ego4D's clips, one an interval and named by clip_uid. Otherwise they are the
            full-scale videos, named by video_uid.
        videos: Only these video_uids; None takes all.

    Raises:
        LegoError: No such file, or not such a JSON.
    """
    clips: dict[str, Clip] = {}
    for video in _videos(path):
        if videos is not None and video.get("video_uid") not in videos:
            continue
        about = video.get("video_metadata") or {}
        for interval in video.get("annotated_intervals") or []:
            clip_id, name = str(interval.get("clip_uid")), str(video.get("video_uid"))
            clip = clips.setdefault(clip_id, Clip(clip_id, clip_id if clips_cut else name, _number(about.get("fps"))))
            for action in interval.get("narrated_actions") or []:
                clip.add(_record(action, clip, about, clips_cut))
    if not clips:
        raise LegoError(f"{path} holds no annotated interval" + (" of these videos" if videos is not None else ""))
    return list(clips.values())


def videos_of_split(path: Path, split: str) -> set[str]:
    """Returns the video_uids that ego4d.json puts into a split of the hand and object benchmark.

    Raises:
        LegoError: No such file, not such a JSON, or no video of the split.
    """
    videos = _videos(path)
    found = {str(video.get("video_uid")) for video in videos if video.get("split_fho") == split}
    if not found:
        known = ", ".join(f"{value} ({count})" for value, count in Counter(v.get("split_fho") for v in videos).items())
        raise LegoError(f"{path} has no video whose split_fho is {split!r}; there are {known or 'no videos'}")
    return found


def _videos(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise LegoError(f"{path} is no file; give a JSON of Ego4D's annotations")
    try:
        videos = json.loads(path.read_text(encoding="utf-8")).get("videos")
    except (ValueError, AttributeError) as error:
        raise LegoError(f"{path} is not valid JSON of Ego4D ({error}); fetch it again") from error
    if not isinstance(videos, list) or not all(isinstance(video, dict) for video in videos):
        raise LegoError(f"{path} has no list of videos; give fho_main.json of version 2, or ego4d.json")
    return videos


def _record(action: dict[str, Any], clip: Clip, about: dict[str, Any], clips_cut: bool) -> Action | Skip:
    action_id, label = str(action.get("uid")), str(action.get("narration_text") or "").strip()
    if not is_safe_id(clip.clip_id):
        return Skip(action_id, Reason.UNSAFE_ID, f"its clip_uid {clip.clip_id!r} is no file name")
    if not action.get("is_valid_action") or action.get("is_rejected") or action.get("is_invalid_annotation"):
        return Skip(action_id, Reason.REJECTED, f"it was rejected: {action.get('reject_reason') or 'no reason given'}")
    if not label:
        return Skip(action_id, Reason.NO_LABEL, "its narration_text is empty")
    if not _WEARER.match(label):
        return Skip(action_id, Reason.NOT_THE_WEARER, f"its narration {label!r} does not begin with '#C C'")
    frames = action.get("clip_critical_frames" if clips_cut else "critical_frames") or {}
    if frames.get("pre_15") is None or frames.get("pnr_frame") is None:
        return Skip(action_id, Reason.NO_KEY_FRAMES, "its critical frames lack pre_15 or pnr_frame")
    input_frame, target_frame = _number(frames["pre_15"]), _number(frames["pnr_frame"])
    if input_frame is None or target_frame is None or not clip.fps:
        text = f"pre_15 {frames['pre_15']!r}, pnr_frame {frames['pnr_frame']!r}, {clip.fps} frames/s give no times"
        return Skip(action_id, Reason.NO_TIME, text)
    if min(input_frame, target_frame) < 0:
        return Skip(action_id, Reason.NEGATIVE_START, f"its frames are {input_frame:g} and {target_frame:g}")
    facts = {"verb": action.get("structured_verb"), "noun": action.get("structured_noun")}
    boxes = tuple(_boxes(action, about))
    return Action(action_id, label, input_frame / clip.fps, target_frame / clip.fps, facts, boxes)


def _boxes(action: dict[str, Any], about: dict[str, Any]) -> Iterator[NamedBox]:
    """The boxes of the PRE-15 frame."""
    width, height = _number(about.get("width")), _number(about.get("height"))
    if not width or not height:
        return
    for frame in action.get("frames") or []:
        for each in frame.get("boxes") or [] if frame.get("frame_type") == "pre_15" else []:
            corners = [_number((each.get("bbox") or {}).get(key)) for key in ("x", "y", "width", "height")]
            if None not in corners:
                x, y, wide, high = (corner or 0.0 for corner in corners)
                box = named_box(_object_name(each), [(x, y), (x + wide, y + high)], (width, height))
                yield from [box] if box else []


def _object_name(box: dict[str, Any]) -> str:
    """Calls "left_hand" a left hand, "knife_(knife,_machete)" a knife, and what has no noun by its part."""
    kind, noun = str(box.get("object_type") or "object"), str(box.get("structured_noun") or "")
    return (kind if kind.endswith("hand") or not noun else noun.split("_(")[0]).replace("_", " ")


def _number(value: Any) -> float | None:
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if sound else None
