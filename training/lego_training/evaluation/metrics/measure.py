"""All metrics of one folder of pictures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lego_core.errors import LegoError
from rich.table import Table

from lego_training.evaluation.metrics.bench import Bench, progress
from lego_training.evaluation.metrics.blip import BlipCaption
from lego_training.evaluation.metrics.clip import ClipSimilarity, ClipText
from lego_training.evaluation.metrics.egovlp import EgoVlp
from lego_training.evaluation.metrics.fid import Fid
from lego_training.evaluation.metrics.metric import MODES, Metric, Mode, NotDefined
from lego_training.evaluation.metrics.pixels import Lpips, Psnr
from lego_training.evaluation.metrics.samples import Fault, Sample, check_samples
from lego_training.evaluation.metrics.scores import MeanScore, Score
from lego_training.evaluation.metrics.weights import Absent

_ALL: tuple[Metric, ...] = (
    EgoVlp(plus=False), EgoVlp(plus=True), ClipSimilarity(), Fid(), Psnr(), Lpips("squeeze"), Lpips("alex"),
    Lpips("vgg"), BlipCaption("base"), BlipCaption("large"), ClipText(),
)  # fmt: skip
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}


@dataclass(frozen=True)
class Result:
    """A metric in one mode.

    Attributes:
        metric: Its name.
        mode: "published" or "corrected".
        value: In the table's unit; None if there is none.
        low: Of the 95 % interval.
        high: Likewise.
        pictures: How many it is of.
        absent: Why there is no value; empty if there is one.
        faults: Pictures that it could not be computed of.
        score: What the value is of, in the metric's own unit; None if there is none.
    """

    metric: str
    mode: Mode
    value: float | None
    low: float | None
    high: float | None
    pictures: int
    absent: str
    faults: tuple[Fault, ...]
    score: Score | None = None

    @property
    def per_picture(self) -> dict[str, float]:
        """The pictures' own values, in the table's unit, by sample; empty if the metric has none."""
        if not isinstance(self.score, MeanScore):
            return {}
        return dict(zip(self.score.names, METRICS[self.metric].scale * self.score.values, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, without those of single pictures; infinite ones as text."""
        return {
            "metric": self.metric, "mode": self.mode,
            **{key: _plain(getattr(self, key)) for key in ("value", "low", "high")},
            "pictures": self.pictures, "absent": self.absent, "faults": [str(fault) for fault in self.faults],
        }  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """What came of one folder.

    Attributes:
        results: Of every metric and mode.
        faults: Records that no metric judged.
        resized: Pictures that were judged though they are of another size than their targets.
        names: Of the samples that were judged.
    """

    results: tuple[Result, ...]
    faults: tuple[Fault, ...]
    resized: tuple[Fault, ...]
    names: frozenset[str]

    @property
    def pictures(self) -> int:
        """How many were judged."""
        return len(self.names)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "pictures": self.pictures, "resized": [str(fault) for fault in self.resized],
            "skipped": [str(fault) for fault in self.faults],
            "metrics": [result.to_dict() for result in self.results],
        }  # fmt: skip

    def find(self, metric: str, mode: Mode) -> Result | None:
        """Returns one result, if it was asked for."""
        return next((each for each in self.results if (each.metric, each.mode) == (metric, mode)), None)


def choose_metrics(names: Iterable[str]) -> list[str]:
    """Returns the metrics of a list of names, each of which may be several with commas between; of none, all.

    Raises:
        LegoError: There is no metric of a name.
    """
    chosen = [name.strip() for some in names for name in some.split(",")]
    unknown = sorted(set(chosen) - set(METRICS))
    if unknown:
        raise LegoError(f"there is no metric {unknown[0]!r}; choose of {', '.join(METRICS)}")
    return [name for name in METRICS if name in chosen or not chosen]


def measure(
    samples: Sequence[Sample],
    faults: Sequence[Fault],
    names: Sequence[str],
    bench: Bench,
    modes: Sequence[Mode] = MODES,
    resamples: int = 1000,
    seed: int = 0,
) -> Figures:
    """Computes metrics of samples, and goes on where an interrupted call with the same cache stopped.

    A picture that cannot be read, or whose shape is not its target's, is left out of all of them.

    Args:
        samples: What is judged.
        faults: Of records that have no sample, for the report.
        names: Of metrics.
        bench: What they are computed with.
        modes: In which.
        resamples: Of the bootstrap; 0 computes no intervals.
        seed: Of the bootstrap.

    Raises:
        LegoError: No sample can be judged.
    """
    kept, left_out, resized = [], list(faults), []
    with progress("checking pictures", len(samples)) as advance:
        for sample, fault, other_size in check_samples(samples):
            if fault is None:
                kept.append(sample)
            else:
                left_out.append(fault)
            if other_size is not None:
                resized.append(other_size)
            advance(1)
    if not kept:
        raise LegoError(f"no picture can be judged; the first is {left_out[0]}")
    results = tuple(_result(METRICS[name], mode, kept, bench, resamples, seed) for name in names for mode in modes)
    return Figures(results, tuple(left_out), tuple(resized), frozenset(each.name for each in kept))


def _result(metric: Metric, mode: Mode, samples: Sequence[Sample], bench: Bench, resamples: int, seed: int) -> Result:
    try:
        score, faults = metric.score(samples, mode, bench)
    except (Absent, NotDefined) as reason:
        return Result(metric.name, mode, None, None, None, 0, str(reason), ())
    except LegoError as error:  # damaged weights, no words to compare with: the other metrics go on
        return Result(metric.name, mode, None, None, None, 0, f"it failed: {error}", ())
    return summarise(metric.name, mode, score, tuple(faults), resamples, seed)


def summarise(name: str, mode: Mode, score: Score, faults: tuple[Fault, ...], resamples: int, seed: int) -> Result:
    """Returns a metric's value and interval of a score, in the table's unit."""
    scale, count = METRICS[name].scale, len(score.names)
    low, high = score.interval(resamples, seed) if resamples and count > 1 else (None, None)
    return Result(
        name, mode, scale * score.value(), None if low is None else scale * low,
        None if high is None else scale * high, count, "", faults, score,
    )  # fmt: skip


def per_picture_csv(figures: Figures, names: Sequence[str]) -> str:
    """Returns the single pictures' values as CSV, a row for each of the samples' names that has any."""
    columns = [result for result in figures.results if result.per_picture]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["sample", *(f"{each.metric} {each.mode}" for each in columns)])
    own = [each.per_picture for each in columns]
    for name in names:
        values = [each.get(name) for each in own]
        if any(value is not None for value in values):
            writer.writerow([name, *("" if value is None else f"{value:.6g}" for value in values)])
    return out.getvalue()


def table(figures: Figures) -> Table:
    """Returns the figures as a table for the screen, both modes side by side."""
    modes = list(dict.fromkeys(result.mode for result in figures.results))
    shown = Table(title=f"{figures.pictures} pictures")
    shown.add_column("metric")
    for mode in modes:
        shown.add_column(f"as {mode}" if mode == "published" else mode, justify="right")
    for name in dict.fromkeys(result.metric for result in figures.results):
        metric = METRICS[name]
        heading = (
            f"{metric.title}{'' if metric.better == 'higher' else ' ↓'}{f', {metric.unit}' if metric.unit else ''}"
        )
        shown.add_row(heading, *(_cell(figures.find(name, mode)) for mode in modes))
    return shown


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.value is None:
        return "absent"
    interval = "" if result.low is None else f"  [{result.low:.2f}, {result.high:.2f}]"
    return f"{result.value:.2f}{interval}"


def absences(figures: Figures) -> Iterator[str]:
    """Yields a sentence for every reason why metrics are absent."""
    reasons: dict[str, list[str]] = {}
    for result in figures.results:
        if result.absent:
            reasons.setdefault(result.absent, []).append(f"{METRICS[result.metric].title} ({result.mode})")
    for reason, names in reasons.items():
        yield f"{', '.join(names)}: {reason}"


def _plain(value: float | None) -> float | str | None:
    return str(value) if value is not None and math.isinf(value) else value
