"""A comparison as report.html, report.md, figures.csv and figures.json, with plots and grids of pictures."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import isnan
from pathlib import Path
from typing import Any

from rich.table import Table

from lego_training.dataset import Record
from lego_training.evaluation.metrics.measure import METRICS, Result, per_picture_csv
from lego_training.evaluation.metrics.metric import MODES, Mode
from lego_training.evaluation.metrics.samples import find_picture
from lego_training.evaluation.metrics.scores import holm
from lego_training.evaluation.reproduce.comparisons import COMPARISONS, METHODS, paper_value
from lego_training.evaluation.reproduce.grids import grid, save_grid
from lego_training.evaluation.reproduce.plots import plot_bins, plot_methods, plot_truth
from lego_training.evaluation.reproduce.run import MethodFigures, Reproduction
from lego_training.evaluation.reproduce.truth import Lead
from lego_training.files import write_json, write_whole
from lego_training.study.report import Rate

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1400px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .15em .6em; border-bottom: 1px solid #ddd }
th { text-align: left; font-weight: 600 } td { text-align: right; font-variant-numeric: tabular-nums }
td:first-child { text-align: left } small { color: #777; display: block } img { max-width: 100% }
"""
_TRUTH = {
    "action_success": "action success", "right_rate": "nearest to the target", "nothing_rate": "nothing done",
    "wrong_hand_rate": "wrong hand", "wrong_object_rate": "wrong object (of scenes with another)",
    "description_slots": "description slots",
    "inside_target_psnr_db": "PSNR inside the change, dB", "outside_psnr_db": "PSNR outside it, dB",
}  # fmt: skip
_LEAD = "LEGO's lead in success, by scene"
_PEOPLE = "chosen by people, %"
_MODE_TITLES: dict[Mode, str] = {"published": "as published", "corrected": "corrected"}
_NAMED_FAULTS = 50


@dataclass(frozen=True)
class ActionSheet:
    """Several actions painted into one frame, as figure 7 of the paper.

    Attributes:
        frame: The input frame.
        pictures: Label and picture of each action.
    """

    frame: Path
    pictures: Sequence[tuple[str, Path]]


def write_report(found: Reproduction, output: Path, examples: int, sheets: Sequence[ActionSheet] = ()) -> None:
    """Writes everything.

    Args:
        found: What came of a comparison.
        output: Folder.
        examples: Rows of the grid of pictures.
        sheets: Frames with several actions.
    """
    write_json(output / "figures.json", to_json(found))
    write_whole(output / "figures.csv", to_csv(found).encode())
    if found.leads:
        write_whole(output / "pairs.csv", pairs_csv(found).encode())
    for method in found.methods:
        if method.figures is not None:
            names = [f"{each.clip_id}/{each.action_id}" for each in found.records]
            write_whole(output / f"pictures-{method.name}.csv", per_picture_csv(method.figures, names).encode())
    pictures = dict(_draw(found, output, examples, sheets))
    write_whole(output / "report.md", to_markdown(found, pictures).encode())
    write_whole(output / "report.html", to_html(found, pictures, output).encode())


def _draw(found: Reproduction, output: Path, examples: int, sheets: Sequence[ActionSheet]) -> Iterator[tuple[str, str]]:
    """Draws plots and grids; yields a title and a file's name for each."""
    if plot_methods(found, output / "plots" / "metrics.png"):
        yield "All metrics, with 95 % intervals", "plots/metrics.png"
    if any(each.truth is not None for each in found.methods):
        plot_truth(found, _TRUTH, output / "plots" / "truth.png")
        yield "What the renderer says, with 95 % intervals", "plots/truth.png"
    if any(each.bins for each in found.methods):
        plot_bins(found, output / "plots" / "bins.png")
        yield "By the time from input to target frame", "plots/bins.png"
    shown = [
        each for each in found.methods
        if each.images is not None and each.figures is not None and each.name not in ("no_edit", "target")
    ]  # fmt: skip
    # Of those whose frames can be read.
    records = [each for each in found.records if any(_judged(method, each) for method in shown)]
    records = records[:: max(1, len(records) // examples)][:examples] if examples else []
    if records and shown:
        rows, captions = [], []
        for record in records:
            place = Path(*record.target_path.parts[-3:])
            painted = [
                find_picture(each.images / place) if each.images is not None and _judged(each, record) else None
                for each in shown
            ]
            rows.append([record.input_path, *painted, record.target_path if record.target_path.is_file() else None])
            captions.append([record.action, *[""] * (len(painted) + 1)])
        titles = ["input frame", *(METHODS[each.name].title for each in shown), "target frame"]
        save_grid(output / "grids" / "examples.jpg", grid(rows, titles, captions))
        yield "Examples", "grids/examples.jpg"
    if sheets:
        rows = [[sheet.frame, *(path for _, path in sheet.pictures)] for sheet in sheets]
        captions = [["input frame", *(label for label, _ in sheet.pictures)] for sheet in sheets]
        save_grid(output / "grids" / "actions.jpg", grid(rows, [], captions))
        yield "Several actions in one frame", "grids/actions.jpg"


def _judged(method: MethodFigures, record: Record) -> bool:
    return method.figures is not None and f"{record.clip_id}/{record.action_id}" in method.figures.names


def to_json(found: Reproduction) -> dict[str, Any]:
    """Returns all figures as plain JSON values."""
    return {
        "table": found.table, "dataset": found.dataset, "split": found.split, "records": len(found.records),
        "settings": dict(found.settings), "without_time": list(found.untimed),
        "people": None if found.people is None else {
            "raters": found.people.raters, "votes": found.people.votes, "agreement": found.people.agreement,
        },
        "methods": {
            each.name: {
                "absent": each.absent, "unpainted": [str(fault) for fault in each.unpainted],
                **({} if each.figures is None else each.figures.to_dict()),
                "paper": {name: paper_value(found.dataset, each.name, name) for name in found.metrics},
                "bins": [
                    {"shortest": span.shortest, "longest": span.longest, "records": len(span.names),
                     "metrics": [result.to_dict() for result in results]}
                    for span, results in each.bins
                ],
                "truth": None if each.truth is None else {
                    **each.truth.figures,
                    "intervals": {name: list(ends) for name, ends in each.truth.intervals.items()},
                },
                "people": _plain_rate(_rate(found, each.name)),
                "lego_lead": _plain_lead(found.lead(each.name)),
            }
            for each in found.methods
        },
    }  # fmt: skip


def to_csv(found: Reproduction) -> str:
    """Returns all figures as CSV, a row for each method, metric, mode (the "renderer" is one) and bin."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["table", "dataset", "method", "bin", "metric", "mode", "value", "low", "high", "pictures", "paper", "absent"]
    )
    for method in found.methods:
        rate = _rate(found, method.name)
        if rate is not None:
            ends = ("" if isnan(each) else f"{100 * each:.6g}" for each in (rate.share, rate.low, rate.high))
            paper = _paper_people(found, method.name)
            writer.writerow(
                [
                    found.table,
                    found.dataset,
                    method.name,
                    "",
                    "people",
                    "",
                    *ends,
                    "",
                    "" if paper is None else paper,
                    "",
                ]
            )
        for name in _TRUTH if method.truth is not None else ():
            assert method.truth is not None
            told = [method.truth.figures.get(name), *method.truth.intervals.get(name, ())]
            cells = [*("" if each is None else f"{each:.6g}" for each in told), "", ""][:3]
            writer.writerow(
                [found.table, found.dataset, method.name, "", name, "renderer", *cells,
                 method.truth.figures["scenes_with_another" if name == "wrong_object_rate" else "scenes"], "", ""]
            )  # fmt: skip
        lead = found.lead(method.name)
        if lead is not None:
            numbers = (f"{value:.6g}" for value in (lead.value, lead.low, lead.high))
            writer.writerow(
                [found.table, found.dataset, method.name, "", "lego_lead", "renderer", *numbers, lead.scenes, "", ""]
            )
        groups: list[tuple[str, Sequence[Result]]] = []
        if method.figures is not None:
            groups = [("", method.figures.results), *((span.title, results) for span, results in method.bins)]
        for span, results in groups:
            for each in results:
                paper = paper_value(found.dataset, method.name, each.metric) if not span else None
                numbers = ("" if value is None else f"{value:.6g}" for value in (each.value, each.low, each.high))
                writer.writerow(
                    [found.table, found.dataset, method.name, span, each.metric, each.mode, *numbers, each.pictures,
                     "" if paper is None else paper, each.absent]
                )  # fmt: skip
    return out.getvalue()


def pairs_csv(found: Reproduction) -> str:
    """Returns every pair of methods' difference in action success as CSV, those that differ most surely first.

    `p` is McNemar's exact test's, `p_holm` what Holm makes of it as one of so many.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["first", "second", "lead", "low", "high", "scenes", "first_only", "second_only", "p", "p_holm"])
    adjusted = dict(zip(found.leads, holm([lead.p for lead in found.leads.values()]), strict=True))
    for (first, second), lead in sorted(found.leads.items(), key=lambda each: each[1].p):
        numbers = (f"{value:.6g}" for value in (lead.value, lead.low, lead.high))
        writer.writerow(
            [first, second, *numbers, lead.scenes, lead.first_only, lead.second_only,
             *(f"{value:.3g}" for value in (lead.p, adjusted[first, second]))]
        )  # fmt: skip
    return out.getvalue()


# The paper's number, and what came of both modes.
Cell = tuple[float | None, Result | None, Result | None]


def rows(found: Reproduction) -> Iterator[tuple[str, str, list[Cell]]]:
    """Yields each row of the table: its method, its title, and each metric's paper's number and both modes' results."""
    for method in found.methods:
        cells = []
        for name in found.metrics:
            both = [None if method.figures is None else method.figures.find(name, mode) for mode in MODES]
            cells.append((paper_value(found.dataset, method.name, name), both[0], both[1]))
        yield method.name, METHODS[method.name].title, cells


def _difference(found: Reproduction) -> list[tuple[float | None, float | None, float | None]] | None:
    """The last method's lead over the first's, in each metric: the paper's, as published and corrected."""
    if not COMPARISONS[found.table].difference:
        return None
    cells = [each for _, _, each in rows(found)]
    differences = []
    for (paper, *first), (upper, *last) in zip(cells[0], cells[-1], strict=True):
        published, corrected = (_minus(_of(b), _of(a)) for a, b in zip(first, last, strict=True))
        differences.append((_minus(upper, paper), published, corrected))
    return differences


def _of(result: Result | float | None) -> float | None:
    return result.value if isinstance(result, Result) else result


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def to_markdown(found: Reproduction, pictures: dict[str, str]) -> str:
    """Returns the report in Markdown."""
    lines = [f"# {COMPARISONS[found.table].title}", "", _introduction(found), ""]
    lines += ["Each cell: as published / corrected (paper).", ""]
    headings = [*(_heading(name) for name in found.metrics), *([] if found.people is None else [_PEOPLE])]
    lines.append(f"| method | {' | '.join(headings)} |")
    lines.append(f"| --- |{' ---: |' * len(headings)}")
    for method, title, cells in rows(found):
        shown = []
        for paper, published, corrected in cells:
            reported = "" if paper is None else f" ({paper:.2f})"
            shown.append(f"{_value(published)} / {_value(corrected)}{reported}")
        if found.people is not None:
            shown.append(_people(found, method))
        lines.append(f"| {title} | {' | '.join(shown)} |")
    difference = _difference(found)
    if difference is not None:
        shown = [
            f"{_number(published)} / {_number(corrected)}{'' if paper is None else f' ({paper:.2f})'}"
            for paper, published, corrected in difference
        ]
        lines.append(f"| difference | {' | '.join(shown)} |")
    truths = [each for each in found.methods if each.truth is not None]
    if truths:
        headings = _truth_headings(found)
        lines += ["", "## What the renderer says", "", f"| method | {' | '.join(headings)} |"]
        lines.append(f"| --- |{' ---: |' * len(headings)}")
        for each in truths:
            assert each.truth is not None
            shown = [_share(each.truth.figures.get(key), each.truth.intervals.get(key)) for key in _TRUTH]
            shown += [_lead(found, each.name)] if found.has_leads else []
            lines.append(f"| {METHODS[each.name].title} | {' | '.join(shown)} |")
        lines += ["", " ".join(_about_truth(found))]
    for title, file in pictures.items():
        lines += ["", f"## {title}", "", f"![{title}]({file})"]
    for heading, sentences in _remarks(found):
        lines += ["", f"## {heading}", "", *(f"- {sentence}" for sentence in sentences)]
    return "\n".join(lines) + "\n"


def to_html(found: Reproduction, pictures: dict[str, str], output: Path) -> str:
    """Returns the report as a page."""
    title = COMPARISONS[found.table].title
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>", f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1><p>{escape(_introduction(found))}</p>", "<table><tr><th rowspan=2>method",
        *(f"<th colspan=3>{escape(_heading(name))}" for name in found.metrics),
        "" if found.people is None else f"<th rowspan=2>{escape(_PEOPLE)}", "<tr>",
        *("<th>paper<th>as published<th>corrected" for _ in found.metrics),
    ]  # fmt: skip
    for method, name, cells in rows(found):
        parts.append(f"<tr><td>{escape(name)}")
        for paper, published, corrected in cells:
            parts.append(f"<td>{'' if paper is None else f'{paper:.2f}'}")
            parts += [f"<td>{_html_value(each)}" for each in (published, corrected)]
        if found.people is not None:
            parts.append(f"<td>{escape(_people(found, method))}")
    difference = _difference(found)
    if difference is not None:
        parts.append("<tr><td>difference")
        parts += [f"<td>{'' if each is None else f'{each:.2f}'}" for three in difference for each in three]
    parts.append("</table>")
    truths = [each for each in found.methods if each.truth is not None]
    if truths:
        parts.append("<h2>What the renderer says</h2><table><tr><th>method")
        parts += [f"<th>{escape(heading)}" for heading in _truth_headings(found)]
        parts.append("<th>what went wrong")
        for each in truths:
            assert each.truth is not None
            parts.append(f"<tr><td>{escape(METHODS[each.name].title)}")
            parts += [f"<td>{_share(each.truth.figures.get(key), each.truth.intervals.get(key))}" for key in _TRUTH]
            parts += [f"<td>{_lead(found, each.name)}"] if found.has_leads else []
            page = os.path.relpath(each.truth.failures / "index.html", output)
            parts.append(f"<td><a href='{escape(page)}'>pictures</a>")
        parts.append(f"</table><p>{escape(' '.join(_about_truth(found)))}</p>")
    for heading, file in pictures.items():
        parts.append(f"<h2>{escape(heading)}</h2><img src='{escape(file)}' alt='{escape(heading)}'>")
    for heading, sentences in _remarks(found):
        items = "".join(f"<li>{escape(sentence)}" for sentence in sentences)
        parts.append(f"<h2>{escape(heading)}</h2><ul>{items}</ul>")
    return "\n".join(parts) + "\n"


def _introduction(found: Reproduction) -> str:
    told = f"{found.dataset}, split {found.split}, {len(found.records)} records. "
    told += "Intervals are 95 %, by bootstrap over pictures"
    judged = any(each.truth is not None for each in found.methods)
    told += ", of shares of scenes Wilson's, of a lead by bootstrap over scenes. " if judged else ". "
    if found.people is not None:
        told += f"People: {found.people.raters} raters, {found.people.votes} votes. "
    if any(paper_value(found.dataset, each.name, name) for each in found.methods for name in found.metrics):
        return told + "The paper's numbers are of its whole test set."
    return told + "The paper has no numbers for this dataset."


def _truth_headings(found: Reproduction) -> list[str]:
    return [*_TRUTH.values(), *([_LEAD] if found.has_leads else [])]


def _about_truth(found: Reproduction) -> Iterator[str]:
    """Yields what the renderer's columns are of."""
    counts = {
        (each.truth.figures["scenes"], each.truth.figures["scenes_with_another"])
        for each in found.methods if each.truth is not None
    }  # fmt: skip
    scenes, others = (" or ".join(map(str, sorted(set(each)))) for each in zip(*counts, strict=True))
    yield f"Of {scenes} scenes; {others} have another object that could be acted on by mistake."
    yield "The columns in dB measure different things. PSNR inside the change is to the renderer's own target frame and"
    yield "of the mean error; PSNR outside it is to the renderer's own input frame, whose noise is another."
    if "psnr" in found.metrics:
        yield "PSNR in the table above is of the whole picture, to the dataset's file of the target frame."
    yield "The dataset's files are JPEG: this bounds what the input and the target frame themselves reach."
    if found.leads:
        yield f"All {len(found.leads)} pairs of methods are in pairs.csv, with p values as they are and after Holm."


def _remarks(found: Reproduction) -> Iterator[tuple[str, list[str]]]:
    """Yields headings with sentences: what the modes are, what is absent, what was left out."""
    notes = [
        f"{METRICS[name].title}, {_MODE_TITLES[mode]}: {METRICS[name].notes[mode]}"
        for name in found.metrics for mode in MODES
    ]  # fmt: skip
    yield "How the metrics are computed", notes
    absent = [f"{METHODS[each.name].title}: {each.absent}" for each in found.methods if each.absent]
    reasons: dict[str, list[str]] = {}
    for each in found.methods:
        for result in () if each.figures is None else each.figures.results:
            if result.absent:
                named = f"{METRICS[result.metric].title}, {_MODE_TITLES[result.mode]}"
                reasons.setdefault(result.absent, []).append(named)
    absent += [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items()]
    if absent:
        yield "What is absent, and why", absent
    if found.people is not None:
        others = found.people.methods - set(COMPARISONS[found.table].methods)
        if others:
            chosen = ", ".join(METHODS[name].title for name in METHODS if name in others)
            yield "What else people could choose", [f"{chosen}: in the study, and no row of this table"]
    for heading, faults in (("What was left out", left_out(found)), ("What was resized and judged", resized(found))):
        shown = faults[:_NAMED_FAULTS]
        if len(faults) > len(shown):
            shown.append(f"and {len(faults) - len(shown)} more; all are in figures.json")
        if shown:
            yield heading, shown


def left_out(found: Reproduction) -> list[str]:
    """Returns a sentence for every record or picture that was left out of anything."""
    faults = [sentence for each in found.methods for sentence in _faults(each)]
    return faults + [f"{name}: in no bin, as the time between its frames is not known" for name in found.untimed]


def resized(found: Reproduction) -> list[str]:
    """Returns a sentence for every picture that was judged though it has another size than its target."""
    return [
        f"{METHODS[method.name].title}: {fault}"
        for method in found.methods if method.figures is not None for fault in method.figures.resized
    ]  # fmt: skip


def _faults(method: MethodFigures) -> Iterator[str]:
    title = METHODS[method.name].title
    for fault in method.unpainted:
        yield f"{title}: {fault}"
    if method.figures is not None:
        for fault in method.figures.faults:
            yield f"{title}: {fault}"
        for result in method.figures.results:
            for fault in result.faults:
                yield f"{title}, {METRICS[result.metric].title}, {_MODE_TITLES[result.mode]}: {fault}"


def _heading(name: str) -> str:
    metric = METRICS[name]
    arrow = "" if metric.better == "higher" else " ↓"
    return f"{metric.title}{arrow}{f', {metric.unit}' if metric.unit else ''}"


def _value(result: Result | None) -> str:
    return "absent" if result is None or result.value is None else _number(result.value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _html_value(result: Result | None) -> str:
    interval = "" if result is None or result.low is None else f"<small>{result.low:.2f} to {result.high:.2f}</small>"
    return f"{_value(result)}{interval}"


def _share(value: Any, interval: tuple[float, float] | None) -> str:
    """A share in 0 to 1, or decibels, with its interval."""
    if value is None:
        return ""
    places = 1 if abs(value) > 1 else 3
    ends = "" if interval is None else f" [{interval[0]:.{places}f}, {interval[1]:.{places}f}]"
    return f"{value:.{places}f}{ends}"


def _lead(found: Reproduction, method: str) -> str:
    lead = found.lead(method)
    return "" if lead is None else f"{lead.value:+.3f} [{lead.low:+.3f}, {lead.high:+.3f}]"


def _plain_lead(lead: Lead | None) -> list[float] | None:
    return None if lead is None else [lead.value, lead.low, lead.high]


def _rate(found: Reproduction, method: str) -> Rate | None:
    return None if found.people is None else found.people.rates.get(method)


def _plain_rate(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else rate.to_dict()


def _paper_people(found: Reproduction, method: str) -> float | None:
    """The paper's win rate, which is of a choice of table 3's methods; of another choice it would be another."""
    same = found.people is not None and found.people.methods == set(COMPARISONS["table3"].methods)
    return paper_value(found.dataset, method, "people") if same and found.table == "table3" else None


def _people(found: Reproduction, method: str) -> str:
    """How many chose a method's picture, in per cent of the votes, with the interval and the paper's number."""
    rate, paper = _rate(found, method), _paper_people(found, method)
    told = "" if rate is None else f"{100 * rate.share:.1f}"
    if rate is not None and not isnan(rate.low):
        told += f" [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
    return told + ("" if paper is None else f" ({paper:.2f})")


def screen_table(found: Reproduction) -> Table:
    """Returns the figures as a table for the screen: as published, corrected, and the paper's."""
    shown = Table(title=f"{COMPARISONS[found.table].title}, {found.dataset}: as published / corrected (paper)")
    shown.add_column("method")
    for name in found.metrics:
        shown.add_column(_heading(name), justify="right")
    if found.people is not None:
        shown.add_column(_PEOPLE, justify="right")
    for method, title, cells in rows(found):
        shown.add_row(
            title,
            *(
                f"{_value(published)} / {_value(corrected)}{'' if paper is None else f' ({paper:.2f})'}"
                for paper, published, corrected in cells
            ),
            *([] if found.people is None else [_people(found, method)]),
        )
    return shown
