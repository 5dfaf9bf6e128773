"""Narrations become commands."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_training.dataset import Record
from lego_training.labels import normalise_label, normalise_records

EPIC = Path(__file__).parents[3] / "shared/fixtures/annotations/epic/EPIC_100_validation_random300.csv"


@pytest.mark.parametrize("mode", ["corrected", "original"])
@pytest.mark.parametrize(
    ("label", "action"),
    [
        ("#C C picks up the knife", "pick up the knife"),
        ("#C C Picks the Bowl from Table 2", "pick the Bowl from Table 2"),
        ("#C C mixes the dough", "mix the dough"),
        ("#C C dries the plate", "dry the plate"),
        ("#C C puts", "put"),
        ("#C C is cutting wood", "be cutting wood"),
        ("#C C held the rope", "hold the rope"),
        ("#C C saw the plank", "saw the plank"),  # a base form itself, before it is the past of "see"
        ("#C C ground the coffee", "grind the coffee"),
        ("#C C xyzzies the door", "xyzzies the door"),
    ],
)
def test_a_narration_becomes_a_command_whose_other_words_are_untouched(label: str, action: str, mode: str) -> None:
    assert normalise_label(label, "ego4d", mode) == action  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "corrected", "original"),
    [
        ("picks up the knife", "pick up the knife", "s up the knife"),
        ("# c c picks up the knife", "pick up the knife", "c picks up the knife"),
        ("#C  C  picks up", "pick up", "pick up"),
        ("#O man walks", "#O man walks", "n walks"),
        ("#C C #unsure", "#unsure", "#unsure"),
        ("#C Camera falls", "#C Camera falls", "mera falls"),
    ],
)
def test_only_the_corrected_mode_spares_labels_of_another_form(label: str, corrected: str, original: str) -> None:
    assert normalise_label(label, "ego4d") == corrected
    assert normalise_label(label, "ego4d", "original") == original


@pytest.mark.parametrize("mode", ["corrected", "original"])
def test_a_label_of_nothing_is_refused_and_its_record_named(mode: str) -> None:
    record = Record("clip", "7", Path("a.jpg"), Path("b.jpg"), "#C C ", "")

    with pytest.raises(LegoError, match=r"record clip/7 \(a\.jpg\): the label '#C C ' names no action"):
        normalise_records([record], "ego4d", mode)  # type: ignore[arg-type]


@pytest.mark.skipif(not EPIC.is_file(), reason="the shared fixtures (real annotations) are not beside this checkout")
def test_real_labels_of_epic_kitchens_stay_as_they_are() -> None:
    with EPIC.open() as file:
        labels = [row["narration"] for row in csv.DictReader(file)]

    assert len(labels) == 300
    assert [normalise_label(label, "epickitchen") for label in labels] == labels
