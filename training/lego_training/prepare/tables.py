"""Writes the JSON files of a prepared split (lego-reference D2, D3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lego_training.dataset import Split, index_path, read_index, read_metadata
from lego_training.files import write_json
from lego_training.prepare.pairs import ClipResult


def write_tables(out: Path, dataset: str, split: Split, results: Sequence[ClipResult]) -> None:
    """Writes <dataset>_<split>.json, and the clips' part of <dataset>_metadata.json, which both splits share.

    Metadata are in the order of clip ids, so that it does not matter which split came first. Records have no
    description yet, but for those that were described since an earlier run. The index goes last: a split that has one
    is whole.

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
    index = index_path(out, dataset, split)
    described = read_index(index) if index.is_file() else {}
    clips = {
        each.clip_id: _described(each.records, described.get(each.clip_id, {})) for each in results if each.records
    }
    write_json(index, clips)


def _described(records: dict[str, dict[str, Any]], old: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The records with what an earlier index says of the same frames besides, such as a description."""
    same = {key: old[key] for key, each in records.items() if each.items() <= old.get(key, {}).items()}
    return {key: same.get(key, each) for key, each in records.items()}


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The other split may have actions of the same clip."""
    both = {key: {**old.get(key, {}), **new[key]} for key in ("actions", "boxes")}
    return {**old, **new, **both}
