"""What docs/evaluation.md says of the comparison on the toy kitchen is what its kept reports say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from lego_training.evaluation.reproduce.comparisons import COMPARISONS, METHODS
from lego_training.evaluation.reproduce.report import _TRUTH

DOCS = Path(__file__).parents[2] / "docs"
KEPT = DOCS / "results" / "comparison"
# Rows of the page's table, in its order.
SETTINGS = {"proxedit": ", 12 steps", "instruct_pix2pix": " (label)"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def figures(folder: Path = KEPT) -> dict[tuple[str, str], dict[str, str]]:
    """Each method's figures by metric: the renderer's, and the corrected mode of the paper's."""
    rows = rows_of(folder / "figures.csv")
    return {(row["method"], row["metric"]): row for row in rows if row["mode"] in ("renderer", "corrected")}


def interval(row: dict[str, str], form: str = "") -> str:
    """Such as "0.944 [0.920, 0.961]"."""
    value, low, high = (format(float(row[key]), f"{form}.3f") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def cells(line: str) -> list[str]:
    return [each.strip() for each in line.strip().strip("|").split("|")]


def page() -> str:
    return (DOCS / "evaluation.md").read_text()


def test_the_pages_table_is_the_reports() -> None:
    found = figures()
    _, _, table = page().partition("| method | action success |")
    lines = [cells(line) for line in table.partition("\n\n")[0].splitlines()[2:]]

    assert [line[0] for line in lines] == [
        METHODS[name].title + SETTINGS.get(name, "") for name in COMPARISONS["all"].methods
    ]
    for name, line in zip(COMPARISONS["all"].methods, lines, strict=True):
        decibels = (found[name, metric]["value"] for metric in ("inside_target_psnr_db", "outside_psnr_db", "psnr"))
        lead = found.get((name, "lego_lead"))
        assert line[1:] == [
            interval(found[name, "action_success"]), *(f"{float(value):.1f}" for value in decibels),
            "" if lead is None else interval(lead, "+"),
        ], name  # fmt: skip
        assert int(found[name, "action_success"]["pictures"]) == int(found[name, "psnr"]["pictures"]) == 500


def test_the_kept_report_shows_the_kept_figures() -> None:
    found, text = figures(), (KEPT / "report.md").read_text()
    _, _, told = text.partition("## What the renderer says\n\n")
    lines = {line[0]: line[1:] for line in map(cells, told.partition("\n\n")[0].splitlines()[2:])}

    for name in COMPARISONS["all"].methods:
        for metric, cell in zip(_TRUTH, lines[METHODS[name].title], strict=False):
            row = found.get((name, metric))
            if row is None or not row["value"]:
                assert cell == ""
            elif "psnr" not in metric:
                assert cell == interval(row)
            else:
                assert cell.startswith(f"{float(row['value']):.1f} [")


def test_the_order_and_what_cannot_be_told_apart_are_as_they_came_out() -> None:
    found = figures()
    alike = {"instruct_pix2pix", "lego", *(f"description{each}" for each in ("", "_image", "_text"))}
    pairs = {(row["first"], row["second"]): row for row in rows_of(KEPT / "pairs.csv")}
    success = {name: float(found[name, "action_success"]["value"]) for name in COMPARISONS["all"].methods}

    assert len(pairs) == 45 and "Of all 45 pairs of methods" in page()
    differ = [pair for pair, row in pairs.items() if set(pair) <= alike and float(row["p_holm"]) < 0.05]
    assert differ == [("description_image", "description_text")]
    row = pairs[differ[0]]
    told = f"0.952 to 0.932\n(p = {float(row['p']):.3f}, corrected {float(row['p_holm']):.2f})"
    assert told in page()
    assert (success["description_text"], success["description_image"]) == (0.952, 0.932)
    others = sorted(set(success) - alike - {"target"}, key=success.__getitem__)
    assert others == ["no_edit", "proxedit", "sdedit", "lego_untuned"]
    assert success["lego_untuned"] < min(success[name] for name in alike)
    assert "**The order is not the paper's.**" in page()
    whole = {name: float(found[name, "psnr"]["value"]) for name in success}
    assert whole["proxedit"] > whole["sdedit"], "as on Ego4D, which the page says"


def test_what_it_says_of_fewer_steps_is_in_their_report() -> None:
    fewer = figures(KEPT / "after_120_steps")
    told = re.sub(r"\s+", " ", page())
    for start, name, metric, form in (
        ("InstructPix2Pix ", "instruct_pix2pix", "action_success", ""), ("LEGO ", "lego", "action_success", ""),
        ("lead ", "instruct_pix2pix", "lego_lead", "+"), ("untuned ", "lego_untuned", "action_success", ""),
    ):  # fmt: skip
        assert start + interval(fewer[name, metric], form) in told
    assert f"({float(fewer['lego_untuned', 'action_success']['value']):.3f}, then 0.676)" in told


@pytest.mark.parametrize("file", sorted(re.findall(r"results/comparison/[\w./]+", page())))
def test_what_it_links_to_is_kept(file: str) -> None:
    assert (DOCS / file).exists()
