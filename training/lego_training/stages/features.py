"""Has the VLLM describe a whole dataset and keeps what it says and its features (lego-reference C6, C7)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from lego_core.config import LegoConfig, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.images import frame_to_vision_pixels
from lego_core.prompts import action_prompt
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.describe import embed_image, most_likely, sampled, write
from rich.progress import track

from lego_training.dataset import Record, check_distinct, read_frame
from lego_training.features import FeatureStore
from lego_training.files import append_line, read_lines
from lego_training.labels import LABEL_MODES, LabelMode, normalise_label
from lego_training.processes import this_process

# Of a record: clip id and action id.
RecordId = tuple[str, str]


@dataclass(frozen=True)
class FeatureConfig:
    """How descriptions are written. The same values give the same features, however the work is divided.

    Attributes:
        seed: With the record's ids it seeds the sampling of each description.
        greedy: Takes the likeliest token always, as the server does, instead of sampling at temperature 0.2.
        max_tokens: A description stops here if the model has not ended it.
        labels: How labels are normalised; see `lego_training.labels.normalise_label`.
    """

    seed: int = 42
    greedy: bool = False
    max_tokens: int = 1024
    labels: LabelMode = "corrected"

    def __post_init__(self) -> None:
        whole_number_in_range("seed", self.seed, 0, 2**63 - 1)
        whole_number_in_range("max_tokens", self.max_tokens, 1, 4096)
        if self.labels not in LABEL_MODES:
            raise LegoError(f"labels is {self.labels!r}; choose one of {', '.join(LABEL_MODES)}")


@dataclass(frozen=True)
class Shard:
    """The part of the work that one of several workers does: `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads a shard such as "2/8".

        Raises:
            LegoError: Not of that form, or no such shard.
        """
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise LegoError(f"the shard is {text!r}; give its number and how many there are, such as 2/8")
        return cls(int(number), int(count))

    def of(self, records: Sequence[Record]) -> list[Record]:
        """The records of this shard, neighbours in file order."""
        bounds = [part * len(records) // self.count for part in (self.number - 1, self.number)]
        return list(records[slice(*bounds)])


@torch.inference_mode()
def extract_features(
    directory: Path, records: Sequence[Record], dataset: str, split: str, output: Path, config: FeatureConfig,
    shard: Shard,
) -> int:  # fmt: skip
    """Describes the records of a shard and writes image features, text features and descriptions.

    What is there already is kept. A record counts as done when its description is in a journal and both files are
    there; else all three are made again. Once every record of the split is done, whichever shards did them,
    `<dataset>_<split>_descriptions.json` is written in the layout of the original's.

    Args:
        directory: The checkpoint.
        records: All of the split, with raw labels.
        dataset: Its name.
        split: Its split.
        output: Where everything is written.
        config: How.
        shard: Which of the records.

    Returns:
        How many records of the split are still to do.

    Raises:
        LegoError: A label names no action, two records share an input frame, a frame cannot be read, or `output` holds
            features of another checkpoint or configuration.
    """
    store, name = FeatureStore.at(output, split), f"{dataset}_{split}"
    labels = {_id(record): normalise_label(record.action, dataset, config.labels) for record in records}
    check_distinct(records, lambda record: store.paths(record)[0], "features are named after their input frame")
    _check_settings(output / f"{name}_features.json", directory, config)
    described = _read_journals(output, name)
    todo = [each for each in shard.of(records) if _id(each) not in described or not store.has(each)]
    if todo:
        checkpoint = LegoCheckpoint.load(directory)
        device = this_process().device
        # The original describes in half precision, which a CPU emulates slowly.
        checkpoint.vllm.to(device, torch.float16 if device.type == "cuda" else torch.float32)
        journal = output / f"{name}_descriptions.{shard.number}-of-{shard.count}.jsonl"
        for record in track(todo, "describing"):
            description = _describe(checkpoint, record, labels[_id(record)], store, config)
            described[_id(record)] = description
            append_line(journal, {"clip_id": record.clip_id, "action_id": record.action_id, "description": description})
    left = sum(_id(record) not in described or not store.has(record) for record in records)
    if not left:
        _write_descriptions(output / f"{name}_descriptions.json", records, labels, described)
    return left


def read_descriptions(path: Path) -> dict[RecordId, str]:
    """Returns the descriptions of a finished split.

    Raises:
        LegoError: The file is not of the layout that `extract_features` writes.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {
            (clip_id, action_id): str(each["description"])
            for clip_id, actions in values.items()
            for action_id, each in actions.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LegoError(f"{path} holds no descriptions ({error!r}); write it again with lego-train features") from error


def _describe(
    checkpoint: LegoCheckpoint, record: Record, action: str, store: FeatureStore, config: FeatureConfig
) -> str:
    """Describes one record and writes its features."""
    vllm, lego = checkpoint.vllm, checkpoint.config
    pixels = torch.from_numpy(frame_to_vision_pixels(read_frame(record.input_path), lego.vision))
    image = embed_image(checkpoint, pixels[None].to(vllm.device, vllm.dtype))[0]
    choose = most_likely if config.greedy else sampled(_seed(config.seed, record))
    words = write(checkpoint, image, action_prompt(lego, action), choose, config.max_tokens)
    store.write(record, image.cpu().numpy(), words.text_states.cpu().numpy())
    return words.text


def _id(record: Record) -> RecordId:
    return record.clip_id, record.action_id


def _seed(seed: int, record: Record) -> int:
    """A seed of the record's own, so that neither shards nor interruptions change what is drawn."""
    digest = hashlib.sha256(f"{seed}/{record.clip_id}/{record.action_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _check_settings(path: Path, directory: Path, config: FeatureConfig) -> None:
    """Writes down what the features of a folder are made with; later calls must agree."""
    lego = LegoConfig.load(directory)
    settings = {
        "vllm": fingerprint(directory, parts=("vllm",)), "prompt_template": lego.prompt_template,
        "query_template": lego.query_template, **asdict(config),
    }  # fmt: skip
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Shards may start together: each writes the same, under a name of its own first.
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(settings, indent=2) + "\n")
        partial.replace(path)
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LegoError(f"{path} is not valid JSON ({error}); choose another folder for the features") from error
    for key, value in settings.items():
        if saved.get(key) != value:
            raise LegoError(
                f"the features in {path.parent} were made with {key} {saved.get(key)!r}, not {value!r}: "
                "choose another folder"
            )


def _read_journals(output: Path, name: str) -> dict[RecordId, str]:
    described = {}
    for path in sorted(output.glob(f"{name}_descriptions.*-of-*.jsonl")):
        for entry in read_lines(path):
            described[entry["clip_id"], entry["action_id"]] = entry["description"]
    return described


def _write_descriptions(
    path: Path, records: Sequence[Record], labels: dict[RecordId, str], described: dict[RecordId, str]
) -> None:
    """Merges all shards' descriptions, in the dataset's order."""
    merged: dict[str, dict[str, dict[str, str]]] = {}
    for record in records:
        merged.setdefault(record.clip_id, {})[record.action_id] = {
            "original action": record.action,
            "action": labels[_id(record)],
            "description": described[_id(record)],
        }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
