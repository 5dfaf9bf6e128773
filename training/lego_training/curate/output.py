"""Writes descriptions: as a curation file, and into the dataset."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.curate.scenes import Scene
from lego_training.curation import IMAGE
from lego_training.dataset import index_path, read_index
from lego_training.files import write_whole
from lego_training.queries import QUERY_TEMPLATES


def conversation(scene: Scene, description: str, seed: int) -> dict[str, Any]:
    """Returns a record of a curation file (lego-reference D4).

    The question is one of the ten templates, drawn by seed and record: it stays the same when others are added.
    """
    template = random.Random(f"{seed} {scene.record}").choice(QUERY_TEMPLATES)
    return {
        "id": scene.record,
        "image": scene.image,
        "conversations": [
            {"from": "human", "value": f"{IMAGE}\n{template.replace('{action}', scene.label)}"},
            {"from": "gpt", "value": description},
        ],
    }


def write_curation(path: Path, described: Iterable[tuple[Scene, str]], seed: int) -> int:
    """Writes a curation file; returns how many records it has.

    Raises:
        LegoError: There is no description to write: an empty file could not be read again.
    """
    records = [conversation(scene, description, seed) for scene, description in described]
    if not records:
        raise LegoError(f"no answer was fit to be used, so {path} is not written; see why in the report beside it")
    write_whole(path, (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())
    return len(records)


def write_descriptions(root: Path, dataset: str, descriptions: Mapping[str, str]) -> int:
    """Puts descriptions into a dataset's training records that have none; returns how many.

    A description that is there is kept, since it may be a person's or the dataset's own.

    Args:
        root: The dataset directory.
        dataset: Its name.
        descriptions: By "clip_id/action_id".

    Raises:
        LegoError: The dataset's file is damaged.
    """
    index = index_path(root, dataset, "train")
    clips = read_index(index)
    written = 0
    for clip_id, actions in clips.items():
        for action_id, values in actions.items() if isinstance(actions, dict) else ():
            description = descriptions.get(f"{clip_id}/{action_id}")
            if description is not None and not values.get("llava_forecast_finetune", "").strip():
                values["llava_forecast_finetune"] = description
                written += 1
    if written:
        write_whole(index, json.dumps(clips, indent=1, ensure_ascii=False).encode())
    return written
