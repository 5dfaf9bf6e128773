"""What people chose: the findings of a study of the methods' pictures, for the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.evaluation.reproduce.comparisons import METHODS
from lego_training.study.design import read_json
from lego_training.study.report import Rate

_CURE = "give the report.json that lego-train study report writes"


@dataclass(frozen=True)
class People:
    """A study's findings.

    Attributes:
        rates: By method, of `METHODS`: the share of votes that chose its picture; none of methods without votes.
        methods: All that raters could choose of.
        raters: How many there were.
        votes: How many they cast.
        agreement: Krippendorff's alpha; None if it is not defined.
    """

    rates: Mapping[str, Rate]
    methods: frozenset[str]
    raters: int
    votes: int
    agreement: float | None


def read_people(path: Path) -> People:
    """Reads report.json of `lego-train study report`; methods go by their names here or by their titles.

    Raises:
        LegoError: It is no such file, or of descriptions, or has a method that is none here or comes twice; the message
            names the file and the field.
    """
    values: dict[str, Any] = read_json(path, _CURE)
    kind = values.get("kind")
    if kind != "images":
        told = f"of a study of {kind}" if isinstance(kind, str) else "no report of a study: it has no kind"
        raise LegoError(f"{path} is {told}; a table takes one of images: {_CURE}")
    listed = values.get("rates")
    if not isinstance(listed, list):
        raise _fault(path, "rates", listed, "a list of methods' rates")
    rates: dict[str, Rate] = {}
    for place, each in enumerate(listed):
        field = f"rates[{place}]"
        rate = _read_rate(path, field, each)
        method = _known(path, field, rate.method)
        if method in rates:
            first = rates[method].method
            raise LegoError(f"{path}: {field}.method is {rate.method!r}, which is {first!r} again: {_CURE}")
        rates[method] = rate
    agreement = values.get("krippendorff_alpha")
    if agreement is not None and not _is_number(agreement):
        raise _fault(path, "krippendorff_alpha", agreement, "a number or null")
    return People(
        {method: rate for method, rate in rates.items() if rate.votes}, frozenset(rates),
        _count(path, "raters", values.get("raters")), _count(path, "votes", values.get("votes")), agreement,
    )  # fmt: skip


def _read_rate(path: Path, field: str, values: Any) -> Rate:
    if not isinstance(values, dict) or set(values) != {each.name for each in fields(Rate)}:
        raise _fault(path, field, values, f"a mapping of {', '.join(each.name for each in fields(Rate))}")
    if not isinstance(values["method"], str):
        raise _fault(path, f"{field}.method", values["method"], "text")
    votes = _count(path, f"{field}.votes", values["votes"])
    for name in ("share", "low", "high"):
        value = values[name]
        absent = value is None and (name != "share" or not votes)  # no resamples, no interval; no votes, no share
        if not absent and not (_is_number(value) and 0 <= value <= 1):
            raise _fault(path, f"{field}.{name}", value, "a number in 0 to 1")
    return Rate.from_dict(values)


def _known(path: Path, field: str, name: str) -> str:
    """Returns the method, of `METHODS`, that a study calls so."""
    known = {word.lower(): method for method, kind in METHODS.items() for word in (method, kind.title)}
    if name.lower() not in known:
        raise LegoError(
            f"{path}: {field}.method: the study's method {name!r} is none of the comparisons'; they are "
            f"{', '.join(METHODS)}, or as the tables call them"
        )
    return known[name.lower()]


def _count(path: Path, field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _fault(path, field, value, "a whole number of 0 or more")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fault(path: Path, field: str, value: Any, wanted: str) -> LegoError:
    return LegoError(f"{path}: {field} is {value!r}; it must be {wanted}: {_CURE}")
