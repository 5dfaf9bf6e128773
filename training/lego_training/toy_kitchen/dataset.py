"""Writes toy-kitchen pairs in the layout of the released LEGO dataset, under the dataset name "toykitchen"."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import Any, Final

import cv2
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lego_training.files import write_whole
from lego_training.toy_kitchen.canvas import Picture
from lego_training.toy_kitchen.pair import FRAME_SIZE, KitchenPair, make_pair
from lego_training.toy_kitchen.scene import Split

NAME: Final = "toykitchen"
QUERY: Final = "How does the person properly {} that is displayed in the video frame?"
FRAMES_PER_SECOND: Final = 30
_INPUT_NAME, _TARGET_NAME = "frame_0000000000.jpg", "frame_0000000025.jpg"
_JPEG_QUALITY = 95
_JOURNAL = f"{NAME}_journal.jsonl"


@dataclass(frozen=True)
class DatasetSummary:
    """What `write_dataset` did: pairs in the dataset, and how many of them it had to render."""

    root: Path
    train: int
    val: int
    rendered: int


def write_dataset(root: Path | str, train: int, val: int, seed: int = 0, workers: int = 1) -> DatasetSummary:
    """Writes or completes a dataset; the same arguments always give the same files.

    Pairs go through the actions in turn, so the dataset is balanced over them. Pairs that an earlier, interrupted
    call has written are kept. The JSON files appear, whole, at the end.

    Args:
        root: Dataset directory, made if absent.
        train: Number of training pairs.
        val: Number of validation pairs.
        seed: Seed of the first pair of each split; the others follow on.
        workers: Rendering processes.

    Raises:
        ValueError: If a count is negative or there is no worker.
        OSError: If the directory cannot be written.
    """
    if min(train, val, seed) < 0 or workers < 1:
        raise ValueError(
            f"train={train}, val={val}, seed={seed}, workers={workers}: use 0 or more pairs and seed, 1 or more workers"
        )
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[Path, int, Split]] = [(root, seed + index, "train") for index in range(train)]
    jobs += [(root, seed + index, "val") for index in range(val)]
    entries = _read_journal(root)
    missing = [job for job in jobs if not _is_written(root, entries.get(_clip_id(job[1], job[2])), job[2])]
    with open(root / _JOURNAL, "a", encoding="utf-8") as journal:
        for entry in _with_progress(_render_all(missing, workers), len(missing)):
            entries[entry["clip"]] = entry
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
    wanted = [entries[_clip_id(number, split)] for _, number, split in jobs]
    _write_tables(root, wanted)
    return DatasetSummary(root, train, val, len(missing))


def _clip_id(seed: int, split: Split) -> str:
    return f"{split}_{seed:07d}"


def _action_id(label: str) -> str:
    return label.replace(" ", "_")


def _read_journal(root: Path) -> dict[str, dict[str, Any]]:
    path = root / _JOURNAL
    entries: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that an interruption cut short; its pair is rendered again
            entries[entry["clip"]] = entry
    return entries


def _is_written(root: Path, entry: dict[str, Any] | None, split: Split) -> bool:
    if entry is None:
        return False
    record, folder = entry["record"], root / "EgoGen" / NAME
    paths = [folder / split / record["image_0"], folder / split / record["image_1"]]
    if split == "val":
        paths.append(folder / "val_gt_for_metric" / record["image_1"])
    return all(path.exists() for path in paths)


def _render_all(jobs: list[tuple[Path, int, Split]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1 or len(jobs) < 2:
        yield from map(_write_pair, jobs)
        return
    # Ctrl-C is the parent's to handle: workers finish what they have in hand, without a traceback each.
    with ProcessPoolExecutor(workers, initializer=signal, initargs=(SIGINT, SIG_IGN)) as pool:
        yield from pool.map(_write_pair, jobs, chunksize=8)


def _with_progress(entries: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    columns = (TextColumn("rendering pairs"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=total == 0) as progress:
        yield from progress.track(entries, total=total)


def _write_pair(job: tuple[Path, int, Split]) -> dict[str, Any]:
    """Renders and writes one pair; returns its journal entry."""
    root, seed, split = job
    cv2.setNumThreads(1)
    pair = make_pair(seed, split)
    clip, action = _clip_id(seed, split), _action_id(pair.action)
    image_0, image_1 = f"{clip}/{action}/{_INPUT_NAME}", f"{clip}/{action}/{_TARGET_NAME}"
    folder = root / "EgoGen" / NAME
    _write_jpeg(folder / split / image_0, pair.input_frame)
    _write_jpeg(folder / split / image_1, pair.target_frame)
    if split == "val":
        _write_jpeg(folder / "val_gt_for_metric" / image_1, pair.target_frame)
    record = {
        "image_0": image_0,
        "image_1": image_1,
        "action": pair.action,
        "llava_forecast_finetune": pair.description,
    }
    return {"clip": clip, "action": action, "split": split, "record": record, "metadata": _metadata(pair)}


def _metadata(pair: KitchenPair) -> dict[str, Any]:
    rows, columns = np.nonzero(pair.changed)
    changed = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return {
        "seed": pair.seed,
        "boxes": {name: [round(edge, 4) for edge in box] for name, box in pair.boxes.items()},
        "slots": asdict(pair.slots),
        "facts": [asdict(fact) for fact in pair.facts],
        "changed_box": [round(float(edge) / FRAME_SIZE, 4) for edge in changed],
        "caption": pair.caption,
    }


def _write_jpeg(path: Path, picture: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    )
    if not done:
        raise OSError(f"cannot encode {path} as JPEG; this OpenCV was built without JPEG support")
    write_whole(path, encoded.tobytes())


def _write_tables(root: Path, entries: list[dict[str, Any]]) -> None:
    tables: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
    metadata: dict[str, Any] = {}
    curation: list[dict[str, Any]] = []
    for entry in entries:
        clip, action, record = entry["clip"], entry["action"], entry["record"]
        tables[entry["split"]].setdefault(clip, {})[action] = record
        about = {"height": FRAME_SIZE, "width": FRAME_SIZE, "fps": FRAMES_PER_SECOND, "actions": {}}
        metadata.setdefault(clip, about)["actions"][action] = entry["metadata"]
        if entry["split"] == "train":
            curation.append(
                {
                    "id": f"{clip}/{action}",
                    "image": record["image_0"],
                    "conversations": [
                        {"from": "human", "value": "<image>\n" + QUERY.format(record["action"])},
                        {"from": "gpt", "value": record["llava_forecast_finetune"]},
                    ],
                }
            )
    (root / "curation_from_gpt").mkdir(exist_ok=True)
    files: dict[str, Any] = {
        f"{NAME}_train.json": tables["train"],
        f"{NAME}_val.json": tables["val"],
        f"{NAME}_metadata.json": metadata,
        f"curation_from_gpt/{NAME}_for_tuning_forecasting.json": curation,
    }
    for name, content in files.items():
        write_whole(root / name, json.dumps(content, indent=1).encode())
