"""Chooses and writes the pairs of one clip: the work of one process at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError
from lego_core.images import encode_jpeg
from PIL import Image

from lego_training.dataset import Split, split_folder
from lego_training.files import write_whole
from lego_training.prepare.actions import Action, Clip, Reason, Skip
from lego_training.prepare.boxes import with_visor_boxes
from lego_training.prepare.config import PrepareConfig
from lego_training.prepare.frames import FrameFolder
from lego_training.prepare.judge import Judge, JudgeSpec
from lego_training.prepare.source import FrameSource, TimedFrame, UnusableVideo
from lego_training.prepare.video import VideoFile

# Dropped pairs of a clip and a reason that are kept small, for the report.
_SAMPLES = 2
_SAMPLE_HEIGHT = 128
# Of the annotated and the file's frames a second; 59.94 is called 60 everywhere.
_SAME_RATE = 0.01


@dataclass(frozen=True)
class ClipJob:
    """A clip and all that its pairs depend on.

    Attributes:
        clip: With its actions.
        place: Its video file or folder of frames; None if there is none.
        dataset: Name of the dataset.
        split: Of the dataset.
        out: Dataset directory.
        samples: Folder for small pictures of dropped pairs.
        config: The settings.
        judge: What frames are judged by.
        visor: VISOR's folder and the video's part of its table of frames, if boxes are wanted.
    """

    clip: Clip
    place: Path | None
    dataset: str
    split: Split
    out: Path
    samples: Path
    config: PrepareConfig
    judge: JudgeSpec
    visor: tuple[Path, dict[str, str]] | None = None


@dataclass
class ClipResult:
    """What became of a clip; goes into the journal as JSON.

    Attributes:
        clip_id: Of the clip.
        records: The dataset's, by action id, in the annotation's order.
        metadata: Of the clip, as in the dataset.
        skips: Records that are left out: action_id, reason, message, facts.
        notes: What else there is to say.
        was_read: Whether there was a video; if not, the next run looks again.
    """

    clip_id: str
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    skips: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    was_read: bool = False

    def skip(self, skip: Skip) -> None:
        """Leaves a record out."""
        self.skips.append(
            {
                "action_id": skip.action_id,
                "reason": str(skip.reason),
                "message": skip.message,
                "facts": skip.facts,
            }
        )


@dataclass(frozen=True)
class _Choice:
    """The best of a time's candidates."""

    time: float
    score: float
    image: Image.Image


def prepare_clip(job: ClipJob, judge: Judge) -> ClipResult:
    """Reads a clip's video once, in order of time, and writes its pairs.

    Raises:
        OSError: A frame cannot be written, such as on a full disk.
    """
    result = ClipResult(job.clip.clip_id)
    for skip in job.clip.skips:
        result.skip(skip)
    clip = job.clip
    if job.visor is not None:
        try:
            clip = with_visor_boxes(clip, *job.visor, within=job.config.boxes_within)
        except LegoError as error:
            result.notes.append(f"no boxes: {error}")
    try:
        source = _open(job)
    except UnusableVideo as error:
        for action in clip.actions:
            result.skip(Skip(action.action_id, error.reason, str(error)))
        return result
    try:
        _note_rate(clip, source, result)
        kept = _choose_pairs(clip, source, judge, job, result)
    finally:
        source.close()
    result.was_read = True
    width, height = source.size
    result.metadata = {
        "height": height, "width": width, "fps": source.fps, "source": job.place.name if job.place else None,
        "source_height": source.source_size[1], "source_width": source.source_size[0],
        "score": job.judge.score, "similarity": job.judge.measure, "actions": {}, "boxes": {},
    }  # fmt: skip
    for action in clip.actions:
        if action.action_id in kept:
            result.records[action.action_id], result.metadata["actions"][action.action_id] = kept[action.action_id]
            if action.boxes:
                result.metadata["boxes"][action.action_id] = list(action.boxes)
    return result


def _open(job: ClipJob) -> FrameSource:
    if job.place is None:
        raise UnusableVideo(Reason.MISSING_VIDEO, f"there is no video {job.clip.video}")
    if not job.place.is_dir():
        return VideoFile(job.place, job.config.height)
    if job.clip.fps is None:
        text = f"the annotation of {job.clip.video} does not tell the rate of its frames in {job.place}"
        raise UnusableVideo(Reason.UNREADABLE_VIDEO, text)
    return FrameFolder(job.place, job.clip.fps, job.config.height)


def _note_rate(clip: Clip, source: FrameSource, result: ClipResult) -> None:
    if clip.fps is not None and abs(source.fps / clip.fps - 1) > _SAME_RATE:
        result.notes.append(
            f"the annotation counts {clip.fps:g} frames a second, the video has {source.fps:.2f}; "
            "frames are chosen by time"
        )


def _choose_pairs(
    clip: Clip, source: FrameSource, judge: Judge, job: ClipJob, result: ClipResult
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the record and the facts of each action whose pair was kept and written."""
    wanted = sorted(
        (time, is_target, number)
        for number, action in enumerate(clip.actions)
        for is_target, time in ((False, action.input_time), (True, action.target_time))
    )
    inputs: dict[int, _Choice] = {}
    kept = {}
    windows = source.windows([time for time, _, _ in wanted], job.config.candidates // 2, job.config.stride)
    skipped: set[int] = set()
    for (time, is_target, number), frames in zip(wanted, windows, strict=True):
        action = clip.actions[number]
        if number in skipped:
            continue
        choice = _best(frames, time, judge, job.config.tolerance)
        if choice is None:
            skipped.add(number)
            inputs.pop(number, None)
            reason, message = source.why_missing(time)
            result.skip(Skip(action.action_id, reason, f"{'target' if is_target else 'input'} frame: {message}"))
        elif is_target:
            pair = _judge_pair(action, inputs.pop(number), choice, judge, job, result)
            if pair is not None:
                kept[action.action_id] = pair
        else:
            inputs[number] = choice
    return kept


def _best(frames: list[TimedFrame], wanted: float, judge: Judge, tolerance: float) -> _Choice | None:
    """Returns the candidate with the highest score, the earliest of equals; None if no frame is near enough."""
    if not frames or min(abs(frame.time - wanted) for frame in frames) > tolerance:
        return None
    scores = judge.scores([frame.image for frame in frames])
    best = scores.index(max(scores))
    return _Choice(frames[best].time, scores[best], frames[best].image)


def _judge_pair(
    action: Action, first: _Choice, second: _Choice, judge: Judge, job: ClipJob, result: ClipResult
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Writes a pair and returns its record and facts, unless it is dropped."""
    facts = {
        **action.facts,
        "wanted_input_time": round(action.input_time, 4), "wanted_target_time": round(action.target_time, 4),
        "input_time": round(first.time, 4), "target_time": round(second.time, 4),
        "input_score": round(first.score, 4), "target_score": round(second.score, 4),
    }  # fmt: skip
    names = [f"frame_{round(choice.time * 1000):010d}.jpg" for choice in (first, second)]
    if names[1] <= names[0]:
        text = f"the best target at {second.time:.3f} s is not after the best input at {first.time:.3f} s"
        result.skip(Skip(action.action_id, Reason.WRONG_ORDER, text, facts))
        return None
    similarity = judge.similarity(first.image, second.image)
    facts["similarity"] = round(similarity, 4)
    spec = job.judge
    if not spec.lowest <= similarity <= spec.highest:
        reason = Reason.TOO_ALIKE if similarity > spec.highest else Reason.TOO_DIFFERENT
        text = f"{spec.measure} similarity {similarity:.4f} is outside {spec.lowest:g} to {spec.highest:g}"
        if sum(skip["reason"] == reason for skip in result.skips) < _SAMPLES:
            _write_sample(job.samples / job.clip.clip_id / f"{action.action_id}.jpg", first.image, second.image)
        result.skip(Skip(action.action_id, reason, text, facts))
        return None
    paths = [f"{job.clip.clip_id}/{action.action_id}/{name}" for name in names]
    pictures = [encode_jpeg(choice.image, job.config.jpeg_quality) for choice in (first, second)]
    for path, picture in zip(paths, pictures, strict=True):
        write_whole(split_folder(job.out, job.dataset, job.split) / path, picture)
    if job.split == "val":
        write_whole(split_folder(job.out, job.dataset, "val_gt_for_metric") / paths[1], pictures[1])
    return {"image_0": paths[0], "image_1": paths[1], "action": action.label}, facts


def _write_sample(path: Path, first: Image.Image, second: Image.Image) -> None:
    write_whole(path, side_by_side(first, second))


def side_by_side(first: Image.Image, second: Image.Image) -> bytes:
    """Returns a small JPEG of two frames."""
    width = max(1, round(first.width * _SAMPLE_HEIGHT / first.height))
    sheet = Image.new("RGB", (2 * width, _SAMPLE_HEIGHT))
    for index, image in enumerate((first, second)):
        sheet.paste(image.resize((width, _SAMPLE_HEIGHT)), (index * width, 0))
    return encode_jpeg(sheet, 80)
