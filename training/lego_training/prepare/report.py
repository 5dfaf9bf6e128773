"""What was kept and what was not, and why: report.json, and report.html to look at."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl

from lego_training.dataset import read_frame, split_folder
from lego_training.files import write_json, write_whole
from lego_training.prepare.journal import Journal
from lego_training.prepare.pairs import ClipResult, side_by_side

# Before pyplot is imported: a training machine has no screen.
mpl.use("Agg")
import matplotlib.pyplot as plt

_KEPT_SAMPLES, _DROPPED_SAMPLES = 24, 12
_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 1250px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { padding: .15em .8em; text-align: left; border-bottom: 1px solid #ddd }
.sheet { display: flex; flex-wrap: wrap; gap: 12px }
figure { margin: 0; width: 400px } figure img { width: 100% } figcaption { font-size: 12px; overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class Report:
    """What became of a split's records.

    Attributes:
        dataset: Name of the dataset.
        split: Of the dataset.
        settings: What it was prepared with.
        results: Of all clips.
    """

    dataset: str
    split: str
    settings: dict[str, Any]
    results: Sequence[ClipResult]

    @property
    def kept(self) -> int:
        """Number of pairs."""
        return sum(len(result.records) for result in self.results)

    @property
    def skipped(self) -> dict[str, int]:
        """Number of records left out by reason, the most frequent first."""
        return dict(Counter(skip["reason"] for _, skip in self.skips()).most_common())

    def skips(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the clip id and the skip of each record that is left out."""
        yield from ((result.clip_id, skip) for result in self.results for skip in result.skips)

    def pairs(self) -> Iterator[tuple[bool, dict[str, Any]]]:
        """Yields whether it was kept, and its figures, for each pair that was judged."""
        for result in self.results:
            yield from ((True, facts) for facts in result.metadata.get("actions", {}).values())
            yield from ((False, skip["facts"]) for skip in result.skips if "similarity" in skip["facts"])


def write_report(report: Report, out: Path, journal: Journal) -> None:
    """Writes report.json and report.html, which needs no other file, into the journal's folder.

    Args:
        report: What to write.
        out: Dataset directory, for the kept frames.
        journal: Has the dropped samples.
    """
    write_json(
        journal.folder / "report.json",
        {
            "dataset": report.dataset, "split": report.split, "settings": report.settings,
            "kept": report.kept, "skipped": report.skipped,
            "boxes": sum(len(result.metadata.get("boxes", {})) for result in report.results),
            "notes": [{"clip": each.clip_id, "note": note} for each in report.results for note in each.notes],
            "skips": [{"clip": clip_id, **skip} for clip_id, skip in report.skips()],
        },
    )  # fmt: skip
    write_whole(journal.folder / "report.html", "\n".join(_html(report, out, journal)).encode())


def _html(report: Report, out: Path, journal: Journal) -> Iterator[str]:
    settings = report.settings
    title = f"{escape(report.dataset)} {escape(report.split)}: {report.kept} pairs"
    yield f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f"<h1>{title}</h1>"
    yield (
        f"<p>Of {settings['candidates']} candidates that of the highest <b>{settings['score']}</b> score is taken. "
        f"Pairs whose <b>{settings['similarity']}</b> similarity lies from {settings['lowest']:g} to "
        f"{settings['highest']:g} are kept.</p>"
    )
    yield _table([("kept", report.kept), *report.skipped.items()])
    notes = [(result.clip_id, note) for result in report.results for note in result.notes]
    yield from ([f"<h2>Notes</h2>{_table(notes)}"] if notes else [])
    yield f'<h2>Figures of the judged pairs</h2><img src="{_data("png", _histograms(report))}" alt="histograms">'
    yield f"<h2>Kept</h2>{_sheet(_kept(report, out))}"
    for reason in report.skipped:
        yield f"<h2>Left out: {escape(reason)}</h2>"
        yield _sheet(_dropped(report, reason, journal.samples))
        messages = [(f"{clip}/{skip['action_id']}", skip["message"]) for clip, skip in report.skips()
                    if skip["reason"] == reason]  # fmt: skip
        yield _table(messages[:_DROPPED_SAMPLES])
    yield f"<h2>Settings</h2>{_table(settings.items())}</html>"


def _table(rows: Any) -> str:
    cells = "".join(f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _sheet(samples: Iterator[tuple[bytes, str]]) -> str:
    figures = "".join(
        f'<figure><img src="{_data("jpeg", picture)}" alt=""><figcaption>{escape(words)}</figcaption></figure>'
        for picture, words in samples
    )
    return f'<div class="sheet">{figures}</div>'


def _kept(report: Report, out: Path) -> Iterator[tuple[bytes, str]]:
    """Pairs spread evenly over the split."""
    pairs = [
        (record, result.metadata["actions"][action_id])
        for result in report.results for action_id, record in result.records.items()
    ]  # fmt: skip
    folder = split_folder(out, report.dataset, report.split)
    for record, facts in pairs[:: max(1, -(-len(pairs) // _KEPT_SAMPLES))]:
        picture = side_by_side(*(read_frame(folder / record[key]) for key in ("image_0", "image_1")))
        yield picture, f"{record['action']} ({record['image_0']}, similarity {facts['similarity']:.3f})"


def _dropped(report: Report, reason: str, samples: Path) -> Iterator[tuple[bytes, str]]:
    shown = 0
    for clip_id, skip in report.skips():
        path = samples / clip_id / f"{skip['action_id']}.jpg"
        if skip["reason"] == reason and shown < _DROPPED_SAMPLES and "similarity" in skip["facts"] and path.is_file():
            shown += 1
            yield path.read_bytes(), f"{clip_id}/{skip['action_id']}: {skip['message']}"


def _histograms(report: Report) -> bytes:
    """Similarities, scores and times from input to target: kept pairs before dropped ones."""
    pairs = list(report.pairs())
    values = {
        f"{report.settings['similarity']} similarity": lambda facts: [facts["similarity"]],
        f"{report.settings['score']} score of chosen frames": lambda facts: [
            facts["input_score"],
            facts["target_score"],
        ],
        "seconds from input to target": lambda facts: [round(facts["target_time"] - facts["input_time"], 3)],
    }
    figure, axes = plt.subplots(1, len(values), figsize=(5 * len(values), 3.2))
    for axis, (name, read) in zip(axes, values.items(), strict=True):
        parts = [
            [value for kept, facts in pairs if kept == wanted for value in read(facts)] for wanted in (True, False)
        ]
        axis.hist(parts, bins=30, stacked=True, label=("kept", "dropped"), color=("C0", "C3"))
        axis.set(xlabel=name, ylabel="pairs" if "score" not in name else "frames")
    for bound in (report.settings["lowest"], report.settings["highest"]):
        axes[0].axvline(bound, color="black", linestyle=":", linewidth=1)
    axes[0].legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    # No date and no version in the file: the same pairs give the same bytes.
    figure.savefig(buffer, format="png", dpi=80, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
