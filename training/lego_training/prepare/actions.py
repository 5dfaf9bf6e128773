"""What annotations say, in one form for every source: clips, their actions, and the records that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

# Ids become names of folders.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Reason(StrEnum):
    """Why a record is not in the dataset."""

    UNSAFE_ID = "id that is no file name"
    DUPLICATE_ID = "duplicated id"
    NO_LABEL = "no label"
    NO_TIME = "no valid time"
    NEGATIVE_START = "starts before 0"
    END_BEFORE_START = "ends before it starts"
    MISSING_VIDEO = "missing video"
    UNREADABLE_VIDEO = "unreadable video"
    TRUNCATED_VIDEO = "truncated video"
    SHORT_VIDEO = "video too short"
    BROKEN_FRAMES = "broken frames"
    NO_FRAME = "no frame at that time"
    WRONG_ORDER = "target not after input"
    BEFORE_VIDEO = "input before the video's start"
    REJECTED = "rejected by the annotators"
    NOT_THE_WEARER = "not the wearer's action"
    NO_KEY_FRAMES = "no PRE-15 and PNR frame"
    TOO_DIFFERENT = "frames too different"
    TOO_ALIKE = "frames too alike"

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the record, so that `on_error: stop` stops there."""
        return self not in _CHOICES


# What the method leaves out of sound annotations.
_CHOICES = frozenset({
    Reason.BEFORE_VIDEO, Reason.REJECTED, Reason.NOT_THE_WEARER, Reason.NO_KEY_FRAMES,
    Reason.TOO_DIFFERENT, Reason.TOO_ALIKE,
})  # fmt: skip


class NamedBox(TypedDict):
    """An object or hand in a frame: [x1, y1, x2, y2], 0 to 1, from the top left corner (lego-reference E)."""

    name: str
    box: list[float]


@dataclass(frozen=True)
class Action:
    """An action that frames can be looked for.

    Attributes:
        action_id: Unique in its clip.
        label: The narration, as annotated.
        input_time: Seconds from the clip's first frame at which the input frame is wanted.
        target_time: Likewise the target frame.
        facts: What else the annotation says, for the metadata.
        boxes: Of the input frame.
    """

    action_id: str
    label: str
    input_time: float
    target_time: float
    facts: dict[str, Any] = field(default_factory=dict)
    boxes: tuple[NamedBox, ...] = ()


@dataclass(frozen=True)
class Skip:
    """A record that is left out.

    Attributes:
        action_id: Of the record.
        reason: To count by.
        message: What exactly, with the value.
        facts: Figures of a pair that the similarity filter dropped.
    """

    action_id: str
    reason: Reason
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Clip:
    """A video, or a stretch of one, and its actions.

    Attributes:
        clip_id: First key in the dataset.
        video: Name of the file or folder of frames, without its suffix.
        fps: Frames a second that the annotation counts in; None if it does not say.
        actions: In the annotation's order.
        skips: Records that the annotation alone shows to be of no use.
    """

    clip_id: str
    video: str
    fps: float | None = None
    actions: list[Action] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    def add(self, record: Action | Skip) -> None:
        """Appends a record; a second one of an id is skipped, and so is an id that is no file name."""
        taken = {each.action_id for each in self.actions}
        if isinstance(record, Skip):
            self.skips.append(record)
        elif not is_safe_id(record.action_id):
            self.skips.append(Skip(record.action_id, Reason.UNSAFE_ID, f"its id {record.action_id!r} is no file name"))
        elif record.action_id in taken:
            self.skips.append(Skip(record.action_id, Reason.DUPLICATE_ID, "an earlier record has this id too"))
        elif record.input_time < 0:
            text = f"its input frame would be {-record.input_time:.3f} s before the video's first"
            self.skips.append(Skip(record.action_id, Reason.BEFORE_VIDEO, text))
        elif record.target_time <= record.input_time:
            text = f"its target at {record.target_time:.3f} s is not after its input at {record.input_time:.3f} s"
            self.skips.append(Skip(record.action_id, Reason.WRONG_ORDER, text))
        else:
            self.actions.append(record)


def is_safe_id(text: str) -> bool:
    """Whether an id can be the name of a folder that stays where it is put."""
    return _SAFE_ID.fullmatch(text) is not None


def count_records(clips: Iterable[Clip]) -> int:
    """Returns how many records the annotation has, whatever their use."""
    return sum(len(clip.actions) + len(clip.skips) for clip in clips)
