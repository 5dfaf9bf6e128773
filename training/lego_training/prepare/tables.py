"""Writes the JSON files of a prepared split (lego-reference D2, D3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lego_training.dataset import Split, index_path, read_metadata
from lego_training.files import write_json
from lego_training.prepare.pairs import ClipResult


def write_tables(out: Path, dataset: str, split: Split, results: Sequence[ClipResult]) -> None:
    """Writes <dataset>_<split>.json, and the clips' part of <dataset>_metadata.json, which both splits share.

    Metadata are in the order of clip ids, so that it does not matter which split came first. Records have no
    description yet. The index goes last: a split that has one is whole.

    Args:
        out: Dataset directory.
        dataset: Name of the dataset.
        split: Of the dataset.
        results: In the order in which the index lists clips.
    """
    metadata = read_metadata(out, dataset) or {}
    for result in results:
        if result.records:
            metadata[result.clip_id] = _merged(metadata.get(result.clip_id, {}), result.metadata)
    write_json(out / f"{dataset}_metadata.json", dict(sorted(metadata.items())))
    write_json(index_path(out, dataset, split), {each.clip_id: each.records for each in results if each.records})


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The other split may have actions of the same clip."""
    both = {key: {**old.get(key, {}), **new[key]} for key in ("actions", "boxes")}
    return {**old, **new, **both}
