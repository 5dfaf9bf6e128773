"""Paints and measures one comparison, and writes what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from lego_core.errors import LegoError

from lego_training.dataset import Record, read_metadata
from lego_training.evaluation.methods.generate import Gallery, generate
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.measure import Figures, Result, measure, summarise
from lego_training.evaluation.metrics.metric import MODES, Mode
from lego_training.evaluation.metrics.samples import Fault, find_samples
from lego_training.evaluation.metrics.weights import Absent
from lego_training.evaluation.reproduce.bins import Bin, divide
from lego_training.evaluation.reproduce.comparisons import COMPARISONS, METHODS
from lego_training.evaluation.reproduce.methods import Sources
from lego_training.evaluation.reproduce.people import People
from lego_training.evaluation.reproduce.truth import Lead, Truth, judge_pictures
from lego_training.stages.features import Shard

_LEGO = "lego"


@dataclass(frozen=True)
class MethodFigures:
    """What came of one method.

    Attributes:
        name: Of `METHODS`.
        absent: Why there is nothing; empty if there is something.
        images: Folder of its pictures, if there are any.
        figures: Its metrics, if there are any.
        unpainted: Records that it could not paint.
        bins: Its metrics by time bin, if the comparison has bins.
        truth: What the renderer says, on the toy kitchen.
    """

    name: str
    absent: str = ""
    images: Path | None = None
    figures: Figures | None = None
    unpainted: tuple[Fault, ...] = ()
    bins: tuple[tuple[Bin, tuple[Result, ...]], ...] = ()
    truth: Truth | None = None


@dataclass(frozen=True)
class Reproduction:
    """What came of a comparison.

    Attributes:
        table: Its name, of `COMPARISONS`.
        dataset: Name of the dataset.
        split: Of the dataset.
        records: What was compared.
        metrics: Its columns.
        methods: Its rows.
        untimed: Records that are in no bin as their time is not known.
        settings: For the report.
        people: What people chose, if a study was given.
        leads: On the toy kitchen, the lead in action success of every pair of methods by their names; LEGO is the first
            of its pairs, see `Truth.lead`.
    """

    table: str
    dataset: str
    split: str
    records: Sequence[Record]
    metrics: Sequence[str]
    methods: Sequence[MethodFigures]
    untimed: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    people: People | None = None
    leads: Mapping[tuple[str, str], Lead] = field(default_factory=dict)

    def lead(self, method: str) -> Lead | None:
        """LEGO's lead over a method."""
        return self.leads.get((_LEGO, method))

    @property
    def has_leads(self) -> bool:
        """Whether LEGO has a lead over any."""
        return any(first == _LEGO for first, _ in self.leads)


@dataclass(frozen=True)
class Job:
    """One comparison to be made.

    Attributes:
        table: Of `COMPARISONS`.
        data: Dataset directory.
        dataset: Its name.
        split: Of it.
        records: Of the split, labels normalised.
        output: Where pictures go, each method's in a folder of its own, and the reports.
        metrics: Which; of the table's or others.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        people: What people chose, for the report.
    """

    table: str
    data: Path
    dataset: str
    split: str
    records: Sequence[Record]
    output: Path
    metrics: Sequence[str]
    resamples: int = 1000
    seed: int = 0
    people: People | None = None


def paint(job: Job, sources: Sources, shard: Shard) -> tuple[dict[str, MethodFigures], int]:
    """Paints a shard of every method's pictures.

    Returns:
        Each method with its pictures or the reason why there are none, and how many pictures are still to do, by
        whichever worker.
    """
    found, left = {}, 0
    for name in COMPARISONS[job.table].methods:
        if name in sources.pictures:
            found[name] = MethodFigures(name, images=sources.pictures[name])
            continue
        try:
            load, settings = sources.loader(name)
        except Absent as reason:
            found[name] = MethodFigures(name, absent=str(reason))
            continue
        gallery = Gallery(job.output / name)
        settings |= {"dataset": job.dataset, "split": job.split}
        painting = sources.settings
        with sources.precision():
            faults = generate(
                load, job.records, gallery, settings, painting.seed, painting.batch_size, shard, METHODS[name].title
            )
        left += len(gallery.missing(job.records)) - len(faults)
        found[name] = MethodFigures(name, images=gallery.images, unpainted=tuple(faults))
    if all(each.absent for each in found.values()):
        name, first = next(iter(found.items()))
        raise LegoError(f"no method of {job.table} has pictures; of {name}, {first.absent}")
    return found, left


def judge(job: Job, painted: Mapping[str, MethodFigures], bench: Bench, settings: Mapping[str, Any]) -> Reproduction:
    """Measures every method that has pictures.

    Raises:
        LegoError: The comparison has bins and the records cannot be divided.
    """
    bins: list[Bin] = []
    untimed: list[str] = []
    if COMPARISONS[job.table].bins:
        metadata = read_metadata(job.data, job.dataset) or {}
        rates = {clip: float(about["fps"]) for clip, about in metadata.items() if _is_rate(about.get("fps"))}
        bins, untimed = divide(job.records, rates)
    methods = [_judge_method(job, each, bench, bins) for each in painted.values()]
    leads = dict(_leads(job, methods))
    return Reproduction(
        job.table, job.dataset, job.split, job.records, job.metrics, methods, untimed, settings, job.people, leads
    )  # fmt: skip


def _leads(job: Job, methods: Sequence[MethodFigures]) -> Iterator[tuple[tuple[str, str], Lead]]:
    truths = [(each.name, each.truth) for each in methods if each.truth is not None]
    truths.sort(key=lambda each: each[0] != _LEGO)
    for (first, one), (second, other) in combinations(truths, 2):
        lead = one.lead(other, job.resamples, job.seed)
        if lead is not None:
            yield (first, second), lead


def _judge_method(job: Job, method: MethodFigures, bench: Bench, bins: Sequence[Bin]) -> MethodFigures:
    if method.absent:
        return method
    assert method.images is not None
    try:
        samples, faults = find_samples(job.records, job.data, job.dataset, job.split, method.images)
        figures = measure(samples, faults, job.metrics, bench, MODES, job.resamples, job.seed)
    except LegoError as error:  # none of its pictures can be judged: the other methods go on
        return MethodFigures(method.name, absent=str(error), images=method.images, unpainted=method.unpainted)
    by_bin = tuple((each, _of_bin(figures, each, job)) for each in bins)
    truth = None
    if job.dataset == "toykitchen":
        describes = METHODS[method.name].conditioning not in (None, "label")
        words = Gallery(method.images.parent).descriptions() if describes else {}
        judged = [each for each in samples if each.name in figures.names]
        truth = judge_pictures(judged, job.records, words, job.output / method.name, job.resamples, job.seed)
    return MethodFigures(method.name, "", method.images, figures, method.unpainted, by_bin, truth)


def _of_bin(figures: Figures, each: Bin, job: Job) -> tuple[Result, ...]:
    """The metrics of one bin's pictures; absent where there are none."""
    results = []
    for whole in figures.results:
        if whole.score is None:
            results.append(whole)
            continue
        rows = np.array([place for place, name in enumerate(whole.score.names) if name in each.names], np.int64)
        results.append(_of_rows(whole, rows, job.resamples, job.seed))
    return tuple(results)


def _of_rows(whole: Result, rows: np.ndarray, resamples: int, seed: int) -> Result:
    assert whole.score is not None
    mode: Mode = whole.mode
    if not len(rows):
        return Result(whole.metric, mode, None, None, None, 0, "there is no picture", ())
    try:
        return summarise(whole.metric, mode, whole.score.take(rows), (), resamples, seed)
    except LegoError as error:
        return Result(whole.metric, mode, None, None, None, len(rows), str(error), ())


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
