"""Prepares one split: clips in parallel, then the dataset's tables and a report."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lego_training.dataset import Split
from lego_training.prepare.actions import Clip, Reason, count_records
from lego_training.prepare.config import PrepareConfig
from lego_training.prepare.finding import find_frames, find_videos
from lego_training.prepare.journal import Journal
from lego_training.prepare.judge import JudgeSpec
from lego_training.prepare.pairs import ClipJob, ClipResult
from lego_training.prepare.pool import prepare_clips
from lego_training.prepare.report import Report, write_report
from lego_training.prepare.tables import write_tables


@dataclass(frozen=True)
class Source:
    """What is to be prepared.

    Attributes:
        dataset: Name of the dataset: "epickitchen" or "ego4d".
        split: Of the dataset.
        clips: Of the annotation.
        annotations: Its file.
        videos: Folder of video files, or None.
        frames: Folder of extracted frames, or None.
        visor: VISOR's folder and table of frames, if boxes are wanted.
        settings: What else the dataset depends on.
    """

    dataset: str
    split: Split
    clips: list[Clip]
    annotations: Path
    videos: Path | None
    frames: Path | None
    visor: tuple[Path, dict[str, dict[str, str]]] | None
    settings: dict[str, Any]


def prepare_split(source: Source, out: Path, config: PrepareConfig, judge: JudgeSpec) -> Report:
    """Writes or completes one split of a dataset directory; the same source and settings always give the same files.

    Clips that an earlier, ended run has done are kept. The JSON files appear, whole, at the end.

    Args:
        source: What is prepared.
        out: Dataset directory, made if absent. The other split of the dataset may be there already.
        config: The settings.
        judge: What frames are judged by.

    Returns:
        What was kept and what was not; it is also in <out>/prepare/<dataset>_<split>.

    Raises:
        LegoError: Other settings than those the split was begun with, a full disk, nothing kept, or, if so configured,
            a record that something is wrong with.
    """
    journal = Journal(out / "prepare" / f"{source.dataset}_{source.split}")
    try:
        with journal.locked():
            journal.settle(source.settings)
            results = _results(source, out, config, judge, journal)
            report = Report(source.dataset, source.split, source.settings, results)
            write_report(report, out, journal)
            if not report.kept:
                records = count_records(source.clips)
                raise LegoError(f"no pair was kept of {records} records; {journal.folder / 'report.html'} says why")
            write_tables(out, source.dataset, source.split, results)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise LegoError(f"the disk of {out} is full; make room and run the same command again to go on") from error
    return report


def _results(source: Source, out: Path, config: PrepareConfig, judge: JudgeSpec, journal: Journal) -> list[ClipResult]:
    """Returns what became of every clip, in the annotation's order."""
    if config.on_error == "stop":
        for clip in source.clips:
            for skip in clip.skips:
                if skip.reason.is_fault:
                    raise LegoError(f"record {clip.clip_id}/{skip.action_id}: {skip.reason}: {skip.message}")
    done = {clip.clip_id: result for clip in source.clips if (result := journal.read(clip.clip_id)) is not None}
    jobs = list(_jobs([clip for clip in source.clips if clip.clip_id not in done], source, out, config, judge, journal))
    total = sum(len(clip.actions) for clip in source.clips)
    lengths = {clip.clip_id: len(clip.actions) for clip in source.clips}
    columns = (TextColumn("preparing actions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=sum(lengths[clip_id] for clip_id in done))
        with closing(prepare_clips(jobs, journal, config.workers)) as results:
            for result in results:
                if config.on_error == "stop":
                    _stop_at_fault(result)
                done[result.clip_id] = result
                progress.advance(task, lengths[result.clip_id])
    return [done[clip.clip_id] for clip in source.clips]


def _stop_at_fault(result: ClipResult) -> None:
    for skip in result.skips:
        if Reason(skip["reason"]).is_fault:
            record = f"record {result.clip_id}/{skip['action_id']}"
            raise LegoError(f"{record}: {skip['reason']}: {skip['message']}; with on_error=skip it is left out")


def _jobs(
    clips: Sequence[Clip], source: Source, out: Path, config: PrepareConfig, judge: JudgeSpec, journal: Journal
) -> Iterator[ClipJob]:
    files = find_videos(source.videos) if source.videos is not None else {}
    for clip in clips:
        place = find_frames(source.frames, clip.video) if source.frames is not None else files.get(clip.video)
        visor = (source.visor[0], source.visor[1].get(clip.video, {})) if source.visor is not None else None
        yield ClipJob(
            clip, place, source.dataset, source.split, out, journal.samples, config, judge, visor
        )  # fmt: skip
