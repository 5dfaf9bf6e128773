"""What people chose: the findings of a study of the methods' pictures, for the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.evaluation.reproduce.comparisons import METHODS
from lego_training.study.design import read_json
from lego_training.study.report import Rate


@dataclass(frozen=True)
class People:
    """A study's findings.

    Attributes:
        rates: By method, of `METHODS`: the share of votes that chose its picture.
        raters: How many there were.
        votes: How many they cast.
        agreement: Krippendorff's alpha; None if it is not defined.
    """

    rates: Mapping[str, Rate]
    raters: int
    votes: int
    agreement: float | None


def read_people(path: Path) -> People:
    """Reads report.json of `lego-train study report`; methods go by their names here or by their titles.

    Raises:
        LegoError: It is no such file, or of descriptions, or has a method that is none here.
    """
    known = {word.lower(): name for name, kind in METHODS.items() for word in (name, kind.title)}
    cure = "give the report.json that lego-train study report writes"
    values: dict[str, Any] = read_json(path, cure)
    try:
        if values["kind"] != "images":
            raise LegoError(f"{path} is of a study of {values['kind']}; a table takes one of images")
        found = [Rate.from_dict(each) for each in values["rates"]]
        people = {
            "raters": int(values["raters"]), "votes": int(values["votes"]), "agreement": values["krippendorff_alpha"],
        }  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise LegoError(f"{path} is no report of a study ({type(error).__name__}: {error}); {cure}") from error
    unknown = [each.method for each in found if each.method.lower() not in known]
    if unknown:
        raise LegoError(
            f"{path}: the study's method {unknown[0]!r} is none of the comparisons'; they are "
            f"{', '.join(METHODS)}, or as the tables call them"
        )
    return People({known[each.method.lower()]: each for each in found if each.votes}, **people)
