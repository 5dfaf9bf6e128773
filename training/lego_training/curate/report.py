"""A curation in figures: JSON to compute with, and one HTML page to read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from lego_training.curate.cost import Price, Usage
from lego_training.curate.run import Outcome
from lego_training.dataset import Fault
from lego_training.files import write_whole

_SAMPLES = 24
_BIN = 5  # words

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; margin-bottom: 2rem; }}
td, th {{ text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }}
.bar {{ background: #4878a8; height: .8rem; display: inline-block; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def report(
    outcomes: Sequence[Outcome], left_out: Sequence[tuple[str, Fault]], price: Price | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Returns the figures of a curation.

    Tokens and money are those of every answer that these records took, an earlier run's too.

    Args:
        outcomes: Of all records that were to be curated.
        left_out: Records that could not be, and why.
        price: For the money; None if it is not known.
        settings: What the curation was made with.
    """
    usage = Usage.of(reply for outcome in outcomes for reply in outcome.replies)
    accepted = [outcome for outcome in outcomes if outcome.status == "accepted"]
    words = Counter(len(outcome.text.split()) // _BIN * _BIN for outcome in accepted)
    return {
        **settings,
        "records": len(outcomes),
        **{
            status: sum(each.status == status for each in outcomes) for status in ("accepted", "rejected", "unanswered")
        },
        "accepted_at_once": sum(len(outcome.replies) == 1 for outcome in accepted),
        "left_out": len(left_out),
        "rejected_by_reason": _by_kind(
            fault for each in outcomes if each.status == "rejected" for fault in each.faults
        ),
        "left_out_by_reason": _by_kind(fault for _, fault in left_out),
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "requests_without_token_count": usage.uncounted,
        "usd": None if price is None else round(price.of(usage.prompt_tokens, usage.completion_tokens), 4),
        "words": {f"{start}-{start + _BIN - 1}": words[start] for start in sorted(words)},
        "samples": [_row(outcome) for outcome in _spread(accepted, _SAMPLES)],
        "not_accepted": [_row(outcome) for outcome in outcomes if outcome.status != "accepted"],
        "not_curated": [{"record": record, "reason": str(fault)} for record, fault in left_out],
    }


def write_report(figures: dict[str, Any], path: Path) -> None:
    """Writes the figures as JSON, and as a page beside it that needs nothing else."""
    write_whole(path, (json.dumps(figures, indent=2, ensure_ascii=False) + "\n").encode())
    write_whole(path.with_suffix(".html"), page(figures).encode())


def page(figures: dict[str, Any]) -> str:
    """Returns the HTML page of a report; whatever a model wrote is escaped."""
    plain = [(name, value) for name, value in figures.items() if not isinstance(value, (dict, list))]
    rows = [(name.replace("_", " "), "not given" if value is None else value) for name, value in plain]
    body = [_table(("", ""), rows)]
    for name in ("rejected_by_reason", "left_out_by_reason", "words"):
        body.append(_section(name, _bars(figures[name])))
    for name in ("samples", "not_accepted", "not_curated"):
        heads = tuple(figures[name][0]) if figures[name] else ()
        body.append(_section(name, _table(heads, [tuple(row.values()) for row in figures[name]])))
    return _PAGE.format(title=escape(f"Curation of {figures['dataset']}"), body="\n".join(body))


def _row(outcome: Outcome) -> dict[str, Any]:
    row = {"record": outcome.scene.record, "label": outcome.scene.label, "text": outcome.text}
    if outcome.status != "accepted":
        row |= {"status": outcome.status, "reason": "; ".join(map(str, outcome.faults))}
    return row


def _by_kind(faults: Any) -> dict[str, int]:
    return dict(Counter(fault.kind for fault in faults).most_common())


def _spread(outcomes: list[Outcome], count: int) -> list[Outcome]:
    """So many outcomes, evenly from first to last."""
    if len(outcomes) <= count:
        return outcomes
    return [outcomes[number * len(outcomes) // count] for number in range(count)]


def _section(name: str, content: str) -> str:
    return f"<h2>{escape(name.replace('_', ' ').capitalize())}</h2>\n{content}"


def _table(heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{escape(str(each))}</th>" for each in heads)
    lines = ("".join(f"<td>{escape(str(each))}</td>" for each in row) for row in rows)
    return "\n".join(["<table>", f"<tr>{head}</tr>", *(f"<tr>{line}</tr>" for line in lines), "</table>"])


def _bars(counts: dict[str, int]) -> str:
    if not counts:
        return "<p>none</p>"
    most = max(counts.values())
    lines = (
        f"<tr><td>{escape(name)}</td><td>{count}</td>"
        f'<td style="width:20rem"><span class="bar" style="width:{100 * count / most:.0f}%"></span></td></tr>'
        for name, count in counts.items()
    )
    return "\n".join(["<table>", *lines, "</table>"])
