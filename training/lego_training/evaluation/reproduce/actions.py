"""Several actions painted into one frame, as figure 7 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lego_training.dataset import Record
from lego_training.evaluation.methods.generate import Gallery as Pictures
from lego_training.evaluation.methods.generate import choose_records, generate
from lego_training.evaluation.reproduce.comparisons import METHODS
from lego_training.evaluation.reproduce.methods import Sources
from lego_training.evaluation.reproduce.report import ActionSheet
from lego_training.evaluation.reproduce.run import Job
from lego_training.stages.features import Shard

_ACTIONS = 4


def paint_sheets(job: Job, sources: Sources, frames: int, name: str = "lego") -> list[ActionSheet]:
    """Paints other labels into the input frames of a few records: of the same clip first, then of others.

    Args:
        job: The comparison whose records, seed and folder are used.
        sources: Has the method's model.
        frames: How many.
        name: The method.

    Returns:
        A sheet for each frame; of labels that could not be painted none.

    Raises:
        Absent: The method's model was not given.
    """
    # Stored features are of the records' own labels.
    load, settings = replace(sources, features=None).loader(name)
    pictures = Pictures(job.output / name / "actions")
    asked: list[list[Record]] = []
    for number, record in enumerate(choose_records(job.records, frames)):
        labels = [record.action, *_other_labels(record, job.records, np.random.default_rng([job.seed, number]))]
        place = [f"frame{number}", "action{}", f"frame{record.target_path.suffix}"]
        targets = ["/".join(place).format(each) for each in range(len(labels))]
        asked.append(
            [
                replace(record, action=label, action_id=f"{record.action_id} {label}",
                        target_path=record.input_path.parent / target, description="")
                for label, target in zip(labels, targets, strict=True)
            ]
        )  # fmt: skip
    painting = sources.settings
    flat = [each for row in asked for each in row]
    settings = {**settings, "labels": [each.action for each in flat]}
    with sources.precision():
        generate(
            load, flat, pictures, settings, painting.seed, painting.batch_size, Shard(),
            f"{METHODS[name].title}, other labels",
        )  # fmt: skip
    sheets = []
    for row in asked:
        found = [(each.action, path) for each in row for path in [pictures.find(each)] if path is not None]
        sheets.append(ActionSheet(row[0].input_path, found))
    return sheets


def _other_labels(record: Record, records: Sequence[Record], rng: np.random.Generator) -> list[str]:
    """Returns labels other than a record's own: those of its clip, then others in a random order.

    Of the others those come first that end with a thing in view, where the metadata says what is.
    """
    near = [each.action for each in records if each.clip_id == record.clip_id]
    others = sorted({each.action for each in records})
    rng.shuffle(others)
    visible = {fact["kind"] for fact in record.facts.get("facts", ())}
    others.sort(key=lambda label: label.split()[-1] not in visible)
    return [each for each in dict.fromkeys([*near, *others]) if each != record.action][: _ACTIONS - 1]
