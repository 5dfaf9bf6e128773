"""What a study found: win rates with intervals, and how far raters agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from lego_training.study.design import NO, YES, Study
from lego_training.study.votes import Vote

# Before pyplot is imported: who evaluates may have no screen.
mpl.use("Agg")
import matplotlib.pyplot as plt

_HASTY_SECONDS = 1.0  # a median below this is no looking
_LEVEL = 0.95

# The paper's Table 3 and section 5.3, in per cent.
PAPER = {
    "images": "the paper: LEGO ahead of the best baseline by 44.00 points on Ego4D, by 38.34 on Epic-Kitchens",
    "descriptions": "the paper: aligned after tuning 87 % on Ego4D and 84 % on Epic-Kitchens, before 27 % and 30 %",
}


@dataclass(frozen=True)
class Rate:
    """A method's share of votes, with a bootstrap interval over items; all in 0 to 1, NaN where there is none.

    Attributes:
        method: Its name.
        share: Of votes: chosen as the best ("images"), or yes ("descriptions").
        low: Lower end of the 95 % interval.
        high: Upper end.
        votes: On which it rests.
    """

    method: str
    share: float
    low: float
    high: float
    votes: int

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values, null for NaN."""
        return {name: None if value != value else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Rate:
        """Reads what `to_dict` returned."""
        known: dict[str, Any] = {name: float("nan") if value is None else value for name, value in values.items()}
        return cls(**known)


@dataclass(frozen=True)
class Findings:
    """What came out.

    Attributes:
        rates: Of each method, the best first.
        agreement: Krippendorff's alpha of the raters; NaN where nobody judged what another did.
        raters: How many there were.
        votes: How many they cast.
        complete: Share of items with as many raters as wanted.
        hasty: Raters who hardly looked.
    """

    rates: tuple[Rate, ...]
    agreement: float
    raters: int
    votes: int
    complete: float
    hasty: tuple[str, ...]


def find(study: Study, key: dict[str, str], votes: Iterable[Vote], resamples: int = 10_000, seed: int = 0) -> Findings:
    """Counts votes.

    Args:
        study: What was asked.
        key: Which method made what.
        votes: Of any raters.
        resamples: Of the bootstrap. Items are drawn, not votes: raters who judge one item are not independent.
        seed: Of the bootstrap.
    """
    votes = list(votes)
    of_item: dict[str, list[Vote]] = defaultdict(list)
    of_rater: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        of_item[vote.item].append(vote)
        of_rater[vote.rater].append(vote.seconds)
    methods = sorted(set(key.values()))
    judged = [item for item in study.items if of_item[item.id]]
    wins, chances = (np.zeros((len(judged), len(methods))) for _ in range(2))
    for row, item in enumerate(judged):
        for vote in of_item[item.id]:
            if study.kind == "images":
                wins[row, methods.index(key[vote.choice])] += 1
                chances[row] += 1
            else:
                column = methods.index(key[item.id])
                wins[row, column] += vote.choice == YES
                chances[row, column] += 1
    rates = [
        Rate(method, *_share(wins[:, column], chances[:, column], resamples, seed), int(chances[:, column].sum()))
        for column, method in enumerate(methods)
    ]
    # Of pictures, raters agree on the method: choices of different items have nothing else in common.
    values = {picture: methods.index(method) for picture, method in key.items()} | {NO: 0, YES: 1}
    units = [[values[vote.choice] for vote in of_item[item.id]] for item in judged]
    return Findings(
        rates=tuple(sorted(rates, key=lambda rate: -np.nan_to_num(rate.share))),
        agreement=krippendorff_alpha(units),
        raters=len(of_rater),
        votes=len(votes),
        complete=float(np.mean([len(of_item[item.id]) >= study.raters for item in study.items])),
        hasty=tuple(sorted(rater for rater, times in of_rater.items() if median(times) < _HASTY_SECONDS)),
    )


def krippendorff_alpha(units: Sequence[Sequence[int]]) -> float:
    """Returns Krippendorff's alpha for nominal values: 1 is full agreement, 0 what chance gives.

    Any number of raters, who need not all have judged everything (Krippendorff, Content Analysis, chapter 12).

    Args:
        units: Of each thing judged, the values it was given; those with fewer than two do not count.
    """
    pairable = [list(values) for values in units if len(values) > 1]
    counts = Counter(value for values in pairable for value in values)
    total = sum(counts.values())
    expected = 1 - sum(count * (count - 1) for count in counts.values()) / (total * (total - 1)) if total > 1 else 0.0
    if not pairable or expected == 0:
        return float("nan")  # nothing to compare, or nobody ever chose otherwise
    # Of a unit with m values, each ordered pair of them weighs 1 / (m - 1).
    agreeing = sum(
        sum(count * (count - 1) for count in Counter(values).values()) / (len(values) - 1) for values in pairable
    )
    return 1 - (1 - agreeing / total) / expected


def _share(
    wins: NDArray[np.float64], chances: NDArray[np.float64], resamples: int, seed: int
) -> tuple[float, float, float]:
    if not chances.sum():
        return float("nan"), float("nan"), float("nan")
    share = float(wins.sum() / chances.sum())
    if not resamples:
        return share, float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, len(wins), (resamples, len(wins)))
    totals = chances[drawn].sum(axis=1)
    shares = wins[drawn].sum(axis=1)[totals > 0] / totals[totals > 0]
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return share, float(low), float(high)


def to_dict(study: Study, findings: Findings) -> dict[str, Any]:
    """Returns the findings as JSON values."""
    return {
        "study": study.name,
        "kind": study.kind,
        "items": len(study.items),
        "raters": findings.raters,
        "votes": findings.votes,
        "items_with_all_raters": findings.complete,
        "krippendorff_alpha": None if np.isnan(findings.agreement) else findings.agreement,
        "hasty_raters": list(findings.hasty),
        "rates": [rate.to_dict() for rate in findings.rates],
    }


def markdown(study: Study, findings: Findings) -> str:
    """Returns the findings as a page."""
    what = "chosen as the best" if study.kind == "images" else "judged aligned"
    lines = [
        f"# {study.name}",
        "",
        f"{study.question} {len(study.items)} items, {findings.raters} raters, {findings.votes} votes; "
        f"{findings.complete:.0%} of the items have the {study.raters} raters they should.",
        "",
        f"| method | {what} | 95 % interval | votes |",
        "| --- | --- | --- | --- |",
        *(f"| {r.method} | {_percent(r.share)} | {_span(r)} | {r.votes} |" for r in findings.rates),
        "",
        f"Krippendorff's alpha of the raters: {_alpha(findings)}. Intervals are a bootstrap over items.",
        "",
        PAPER[study.kind][0].upper() + PAPER[study.kind][1:] + ".",
    ]
    if findings.hasty:
        lines += ["", f"Took less than {_HASTY_SECONDS:g} s over most items: {', '.join(findings.hasty)}."]
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return "no vote" if np.isnan(share) else f"{share:.1%}"


def _span(rate: Rate) -> str:
    return "" if np.isnan(rate.low) else f"{rate.low:.1%} to {rate.high:.1%}"


def _alpha(findings: Findings) -> str:
    if np.isnan(findings.agreement):
        return "not defined, as no two judged the same item or all chose alike"
    return f"{findings.agreement:.2f}"


def plot(study: Study, findings: Findings, path: Path) -> None:
    """Draws the rates with their intervals."""
    figure, axes = plt.subplots(figsize=(6, 0.6 * len(findings.rates) + 1.2), layout="constrained")
    rates = findings.rates[::-1]
    shares = np.nan_to_num([rate.share for rate in rates])
    spread = np.nan_to_num([shares - [rate.low for rate in rates], [rate.high for rate in rates] - shares])
    axes.barh([rate.method for rate in rates], 100 * shares, xerr=100 * np.clip(spread, 0, None), capsize=3)
    axes.set_xlim(0, 100)
    axes.set_xlabel("best of all, % of votes" if study.kind == "images" else "aligned, % of votes")
    figure.savefig(path, dpi=120)
    plt.close(figure)
