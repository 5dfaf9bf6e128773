"""Writes an evaluation's figures and a checkpoint's training record into the model card; nothing is typed by hand.

python tools/model_card.py
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_model.checkpoint import fingerprint

# Keys of `lego-train evaluate toy`, in the order of the table's columns.
_COLUMNS = {
    "scenes": ("scenes", "{:d}"),
    "description_slots": ("description slots", "{:.2f}"),
    "hand": ("hand", "{:.2f}"),
    "side": ("side", "{:.2f}"),
    "action_success": ("action success", "{:.2f}"),
    "outside_psnr_db": ("outside PSNR, dB", "{:.1f}"),
    "inside_target_psnr_db": ("inside PSNR, dB", "{:.1f}"),
}


def main() -> int:
    """Runs the command line; returns 0, or 2 for what the user can put right."""
    parser = argparse.ArgumentParser(description="Put a model's figures into its card.")
    parser.add_argument("--card", type=Path, default=Path("docs/lego-nano.md"))
    parser.add_argument("--figures", type=Path, default=Path("docs/lego-nano.json"), help="of lego-train evaluate toy")
    parser.add_argument(
        "--student", type=Path, default=Path("docs/lego-nano-student.json"),
        help="of lego-train evaluate toy --sampler distilled; only for a model that has a student",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, default=Path("models/lego-nano"))
    options = parser.parse_args()
    try:
        if not options.figures.is_file():
            raise LegoError(f"there is no {options.figures}; write it with lego-train evaluate toy --json")
        config = LegoConfig.load(options.checkpoint)
        version = f"{config.name}-{fingerprint(options.checkpoint)[:12]}"
        figures = read_figures(options.figures, version, options.checkpoint)
        card = options.card.read_text(encoding="utf-8")
        card = replace_block(card, "results", results_table(figures))
        if config.student is not None:
            student = read_figures(options.student, version, options.checkpoint)
            card = replace_block(card, "student", student_table(figures, student))
        card = replace_block(card, "stages", stages_table(config.provenance))
    except (KeyError, TypeError) as error:
        print(f"error: {options.figures} or the checkpoint's record is of another kind: {error!r}", file=sys.stderr)
        return 2
    except (LegoError, OSError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.card.write_text(card, encoding="utf-8")
    print(options.card)
    return 0


def read_figures(path: Path, version: str, checkpoint: Path) -> dict[str, Any]:
    """Reads an evaluation's figures.

    Raises:
        LegoError: There are none, or they are of other weights than `version`.
    """
    if not path.is_file():
        raise LegoError(f"there is no {path}; write it with lego-train evaluate toy --json")
    figures: dict[str, Any] = json.loads(path.read_text())
    if figures["model_version"] != version:
        raise LegoError(f"{path} is of {figures['model_version']}, but {checkpoint} holds {version}; evaluate it again")
    return figures


def student_table(teacher: dict[str, Any], student: dict[str, Any]) -> str:
    """Returns a row for each of the two, and how much dearer than the student the paper's sampling is."""
    rows = [
        ["sampling", "scenes", "U-Net evaluations", "action success", "outside PSNR, dB", "inside PSNR, dB"],
        ["---", *["---:"] * 5],
    ]
    for name, figures in (("guided", teacher), ("student", student)):
        rows.append([
            f"{name}: {figures['sampler']}, {figures['steps']} steps", str(figures["scenes"]),
            str(figures["unet_evaluations_per_frame"]), f"{figures['action_success']:.3f}",
            f"{figures['outside_psnr_db']:.1f}", f"{figures['inside_target_psnr_db']:.1f}",
        ])  # fmt: skip
    fewer = 300 / student["unet_evaluations_per_frame"]
    text = f"Dual guidance in 100 steps, as in the paper, takes 300 evaluations: {fewer:.0f} times the student's."
    return "\n".join([*map(_row, rows), "", text])


def results_table(figures: dict[str, Any]) -> str:
    """Returns one row per action and one for all, then what the VLLM could do before it was tuned."""
    rows = [["action", *(title for title, _ in _COLUMNS.values())], ["---", *["---:"] * len(_COLUMNS)]]
    for name, values in [*figures["per_action"].items(), ("**all**", figures)]:
        rows.append([name, *(shape.format(values[key]) for key, (_, shape) in _COLUMNS.items())])
    lines = [_row(row) for row in rows]
    untuned = figures["description_slots_untuned"]
    if untuned is not None:
        source = figures["description_slots_untuned_source"]
        lines += ["", f"Description slots before instruction tuning: {untuned:.2f} ({source})."]
    lines += ["", f"U-Net evaluations per guidance frame: {figures['unet_evaluations_per_frame']}."]
    return "\n".join(lines)


def stages_table(provenance: dict[str, Any]) -> str:
    """Returns one row per training stage that `lego.json` records."""
    stages = provenance.get("stages", {})
    if not stages:
        raise LegoError("lego.json records no training stage; train the model with lego-train")
    rows = [["stage", "steps", "batch", "samples", "commit", "finished"], ["---", "---:", "---:", "---:", "---", "---"]]
    for name, made in stages.items():
        config = made["config"]
        numbers = [str(config.get(key, "")) for key in ("steps", "batch_size")]
        rows.append([name, *numbers, str(made["samples"]), made["git_commit"][:10], made["finished"]])
    return "\n".join(_row(row) for row in rows)


def replace_block(card: str, name: str, text: str) -> str:
    """Replaces what stands between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        LegoError: The card has no such place.
    """
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if begin not in card or end not in card:
        raise LegoError(f"the card lacks the lines {begin.strip()} and {end}; put them where the table belongs")
    before, rest = card.split(begin, 1)
    return before + begin + text + "\n" + end + rest.split(end, 1)[1]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
