"""Paints a dataset's records with a method: in parts, over several workers, each picture with a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lego_core.errors import LegoError

from lego_training.dataset import Record, check_distinct
from lego_training.evaluation.methods.method import Ask, Method
from lego_training.evaluation.metrics.bench import progress
from lego_training.evaluation.metrics.samples import Fault, find_picture, in_batches
from lego_training.files import append_line, check_settings, read_lines, write_whole
from lego_training.stages.features import Shard

_JOURNAL = "paintings"


@dataclass(frozen=True)
class Gallery:
    """A folder of one method's pictures: images/clip/action/frame, and a journal of their words.

    Attributes:
        folder: Of the method.
    """

    folder: Path

    @property
    def images(self) -> Path:
        """Where the pictures are."""
        return self.folder / "images"

    def place(self, record: Record) -> Path:
        """Where a record's picture goes, as the original has it; its ending may be another."""
        return self.images.joinpath(*record.target_path.parts[-3:])

    def find(self, record: Record) -> Path | None:
        """Returns a record's picture, if it is there."""
        return find_picture(self.place(record))

    def missing(self, records: Sequence[Record]) -> list[Record]:
        """Returns the records without a picture."""
        return [record for record in records if self.find(record) is None]

    def descriptions(self) -> dict[str, str]:
        """Returns the words that pictures were painted from, by clip/action."""
        paths = sorted(self.folder.glob(f"{_JOURNAL}.*.jsonl"))
        return {entry["name"]: entry["description"] for path in paths for entry in read_lines(path)}


def generate(
    load: Callable[[], Method],
    records: Sequence[Record],
    gallery: Gallery,
    settings: dict[str, Any],
    seed: int,
    batch_size: int,
    shard: Shard,
    title: str,
) -> list[Fault]:
    """Paints the records of a shard that have no picture yet.

    Args:
        load: Makes the method; called only if there is something to paint.
        records: All of the split, labels normalised.
        gallery: Where pictures go.
        settings: All that tells pictures of one way of painting from those of another: weights and settings.
        seed: With a record's ids it seeds its picture.
        batch_size: Pictures that are painted together.
        shard: Which of the records.
        title: For the progress bar.

    Returns:
        The records that could not be painted; the others were.

    Raises:
        LegoError: The gallery is of another method or of other settings, or two records share a target frame.
    """
    check_distinct(
        records, lambda record: gallery.place(record).with_suffix(""), "pictures are named after their target frame"
    )
    check_settings(gallery.folder / "settings.json", {**settings, "seed": seed}, "pictures")
    todo = gallery.missing(shard.of(records))
    if not todo:
        return []
    method, faults = load(), []
    journal = gallery.folder / f"{_JOURNAL}.{shard.number}-of-{shard.count}.jsonl"
    with progress(f"painting with {title}", len(todo)) as advance:
        for some in in_batches(todo, batch_size):
            faults += _paint([Ask.of(record, seed) for record in some], method, gallery, journal)
            advance(len(some))
    return faults


def _paint(asks: Sequence[Ask], method: Method, gallery: Gallery, journal: Path) -> list[Fault]:
    try:
        paintings = method.paint(asks)
    except LegoError as error:
        if len(asks) == 1:
            return [Fault(str(asks[0].record.input_path), str(error))]
        # One of them cannot be painted: each by itself, so that the others are.
        return [fault for ask in asks for fault in _paint([ask], method, gallery, journal)]
    for ask, painting in zip(asks, paintings, strict=True):
        record = ask.record
        place = gallery.place(record).with_suffix(painting.suffix)
        name = f"{record.clip_id}/{record.action_id}"
        # Before its picture: a picture that is there has its words.
        append_line(journal, {"name": name, "seed": ask.seed, "description": painting.description})
        write_whole(place, painting.content)
    return []


def choose_records(records: Sequence[Record], limit: int | None) -> list[Record]:
    """Returns so many of the records, evenly spread, or all."""
    if limit is None or limit >= len(records):
        return list(records)
    return [records[int(place)] for place in np.linspace(0, len(records) - 1, limit).round()]
