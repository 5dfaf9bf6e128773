"""Divides records by the time from input to target frame, as the paper's figure 10 does."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from lego_core.errors import LegoError

from lego_training.dataset import Record

BINS = 4


@dataclass(frozen=True)
class Bin:
    """Records whose frames are about as far apart.

    Attributes:
        shortest: Time of its first record, in seconds.
        longest: Of its last.
        names: clip/action of its records.
    """

    shortest: float
    longest: float
    names: frozenset[str]

    @property
    def title(self) -> str:
        """Its times, such as "0.50 to 0.75 s"."""
        return f"{self.shortest:.2f} to {self.longest:.2f} s"


def divide(records: Sequence[Record], rates: Mapping[str, float]) -> tuple[list[Bin], list[str]]:
    """Returns four bins with about as many records each, and the names of records whose time is not known.

    Records of equal times stay together, so that a bin may be larger, or missing.

    Args:
        records: All that are compared.
        rates: Frames per second of clips, where they are known.

    Raises:
        LegoError: No time is known, or all are equal.
    """
    times = {f"{each.clip_id}/{each.action_id}": seconds_apart(each, rates.get(each.clip_id)) for each in records}
    known = {name: time for name, time in times.items() if time is not None}
    unknown = [name for name, time in times.items() if time is None]
    if not known:
        raise LegoError(
            "of no record is known how much time lies between its frames: the metadata has neither input_time and "
            "target_time nor a clip's fps with numbered frames"
        )
    values = np.array(list(known.values()))
    if values.min() == values.max():
        raise LegoError(f"all records have {values[0]:g} s between their frames; there is nothing to divide")
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
    places = np.searchsorted(edges, values, side="left")
    bins = []
    for place in range(BINS):
        chosen = [name for name, at in zip(known, places, strict=True) if at == place]
        if chosen:
            own = [known[name] for name in chosen]
            bins.append(Bin(min(own), max(own), frozenset(chosen)))
    return bins, unknown


def seconds_apart(record: Record, rate: float | None) -> float | None:
    """Returns the time from a record's input to its target frame, in seconds; None if it is not known.

    Of metadata with both times it is their difference, which NaN makes unknown. Else it is that of the frames' numbers
    over the clip's rate.
    """
    first, last = (record.facts.get(key) for key in ("input_time", "target_time"))
    if isinstance(first, int | float) and isinstance(last, int | float):
        apart = float(last) - float(first)
        return apart if math.isfinite(apart) else None
    numbers = [re.search(r"(\d+)$", path.stem) for path in (record.input_path, record.target_path)]
    if rate and all(numbers):
        before, after = (int(number.group(1)) for number in numbers if number)
        return (after - before) / rate
    return None
