"""Walks a dataset and says what is wrong with each record, before a training run finds out (lego-reference D)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard, TypeVar, get_args

from lego_core.errors import LegoError
from lego_core.images import decode_image, open_image

from lego_training.curation import conversation_faults, read_list
from lego_training.dataset import (
    Fault,
    Split,
    facts_faults,
    index_path,
    metadata_path,
    not_numbers,
    path_faults,
    read_index,
    read_metadata,
    record_faults,
    split_folder,
    walk_index,
)
from lego_training.labels import normalise_label

# The released frames are 256 pixels high; training would have to enlarge smaller ones.
SMALLEST_SIDE = 256
TARGETS = "val_gt_for_metric"
_SPLITS: tuple[Split, ...] = get_args(Split)

Content = TypeVar("Content")
# Called with (records walked, records in all).
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Finding:
    """A fault and where it is: the file, and the record in it if it is a record's."""

    file: str
    record: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}{': ' if self.record else ''}{self.message}"


@dataclass
class Report:
    """What a walk found.

    Attributes:
        datasets: Their names.
        records: How many were walked, those of curation files too.
        findings: In file order.
        skipped: How many were passed over before the first.
        total: How many there are.
    """

    datasets: list[str]
    records: int = 0
    findings: list[Finding] = field(default_factory=list)
    skipped: int = 0
    total: int = 0

    @property
    def reached(self) -> int:
        """Up to which record the walk went, counting those passed over; less than `total` if it was stopped."""
        return self.skipped + self.records

    @property
    def counts(self) -> dict[str, int]:
        """Faults by kind, the most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def save(self, path: Path) -> None:
        """Writes all of it as JSON."""
        path.write_text(json.dumps({**asdict(self), "counts": self.counts}, indent=2) + "\n", encoding="utf-8")


def check_data(
    root: Path,
    dataset: str | None = None,
    smallest_side: int = SMALLEST_SIDE,
    described: bool = True,
    advance: Advance = lambda done, total: None,
    skip: int = 0,
) -> Report:
    """Checks every record of a dataset directory, decoding every frame.

    Ctrl-C ends the walk early: what was found so far is returned, and `Report.reached` says how far that is.

    Args:
        root: The directory.
        dataset: Only this dataset of it; None takes all.
        smallest_side: A frame with a shorter side, in pixels, is a fault.
        described: Whether a record without a description is at fault; a dataset that is yet to be curated has none.
        advance: Told how far the walk is.
        skip: Passes over so many records, those that an earlier walk has reached.

    Raises:
        LegoError: There is no dataset, or it has no more than `skip` records.
    """
    names = [dataset] if dataset else _names(root)
    if not any(index_path(root, name, split).is_file() for name in names for split in _SPLITS):
        wanted = f"dataset {dataset!r}" if dataset else "dataset"
        raise LegoError(f"{root} holds no {wanted}: there is no {dataset or 'NAME'}_train.json and no _val.json")
    report = Report(names, skipped=skip)
    walks: list[Iterator[list[Finding]]] = []
    for name in names:
        metadata = _metadata(root, name, report)
        for split in _SPLITS:
            index = index_path(root, name, split)
            if described and split == "train" and not index.is_file():  # one under preparation may have the other first
                report.findings.append(
                    Finding(str(index), "", "missing split", "is missing: it lists what to train on")
                )
            clips = _readable(index, read_index, report) if index.is_file() else None
            if clips is not None:
                records = list(walk_index(clips))
                _check_any(index, records, report)
                first = max(0, skip - report.total)
                report.total += len(records)
                walks.append(_walk_split(root, name, split, records[first:], metadata, smallest_side, described))
        curation = root / "curation_from_gpt" / f"{name}_for_tuning_forecasting.json"
        conversations = _readable(curation, read_list, report) if curation.is_file() else None
        if conversations is not None:
            _check_any(curation, conversations, report)
            frames, first = split_folder(root, name, "train"), max(0, skip - report.total)
            report.total += len(conversations)
            walks.append(_walk_curation(curation, conversations, first, frames, smallest_side))
    if skip and skip >= report.total:
        raise LegoError(f"{skip} records are to be skipped and {root} has {report.total}; skip fewer")
    try:
        for findings in chain.from_iterable(walks):
            report.findings += findings
            report.records += 1
            advance(report.reached, report.total)
    except KeyboardInterrupt:
        pass  # an hour's findings are not thrown away
    return report


def _names(root: Path) -> list[str]:
    files = [path for split in _SPLITS for path in root.glob(f"*_{split}.json")]
    return sorted({path.stem.rpartition("_")[0] for path in files})


def _readable(path: Path, read: Callable[[Path], Content], report: Report) -> Content | None:
    """Reads a whole file; why it cannot be read goes into the report."""
    try:
        return read(path)
    except LegoError as error:
        message = str(error).removeprefix(f"{path} ")
    except OSError as error:
        message = f"cannot be read ({error.strerror}); allow access to it"
    report.findings.append(Finding(str(path), "", "unreadable file", message))
    return None


def _check_any(path: Path, records: list[Any], report: Report) -> None:
    if not records:
        report.findings.append(Finding(str(path), "", "empty file", "holds no records"))


def _metadata(root: Path, name: str, report: Report) -> dict[str, Any] | None:
    path = metadata_path(root, name)
    if not path.is_file():
        report.findings.append(Finding(str(path), "", "metadata", "is missing: it gives each clip's height and width"))
        return None
    return _readable(path, lambda _: read_metadata(root, name), report)


def _walk_split(
    root: Path, name: str, split: Split, records: list[tuple[str, str, Any]], metadata: dict[str, Any] | None,
    smallest: int, described: bool,
) -> Iterator[list[Finding]]:  # fmt: skip
    """Yields what is wrong with each record in turn."""
    index, folder = index_path(root, name, split), split_folder(root, name, split)
    clips: set[str] = set()
    owners: dict[str, str] = {}
    for clip_id, action_id, values in records:
        faults = list(record_faults(values))
        if isinstance(values, dict):
            paths = {key: values[key] for key in ("image_0", "image_1") if _is_followed(values.get(key), key)}
            faults += _text_faults(values, name, described) + _order_faults(paths)
            faults += _shared_faults(paths, f"{clip_id}/{action_id}", owners)
            for key, path in paths.items():
                faults += _depth_faults(key, path) + _frame_faults(key, folder / path, smallest)
            if split == "val" and "image_1" in paths:
                target = split_folder(root, name, TARGETS) / paths["image_1"]
                faults += _frame_faults(TARGETS, target, smallest, "missing target")
        if metadata is not None:
            about = metadata.get(clip_id)
            if clip_id not in clips:
                clips.add(clip_id)
                faults += _metadata_faults(about)
            faults += facts_faults(about or {}, action_id)
        yield [Finding(str(index), f"record {clip_id}/{action_id}", fault.kind, fault.message) for fault in faults]


def _walk_curation(
    file: Path, conversations: list[Any], first: int, frames: Path, smallest: int
) -> Iterator[list[Finding]]:  # fmt: skip
    """Yields what is wrong with each conversation in turn, from number `first` on."""
    for number, conversation in enumerate(conversations[first:], first):
        faults = list(conversation_faults(conversation))
        image = conversation.get("image") if isinstance(conversation, dict) else None
        if _is_followed(image, "image"):
            faults += _depth_faults("image", image) + _frame_faults("image", frames / image, smallest)
        yield [Finding(str(file), f"record {number}", fault.kind, fault.message) for fault in faults]


def _is_followed(path: Any, key: str) -> TypeGuard[str]:
    """Whether a path stays within its folder, so that it may be opened."""
    return isinstance(path, str) and not any(path_faults(key, path))


def _text_faults(values: dict[str, Any], name: str, described: bool) -> list[Fault]:
    faults = []
    description, action = values.get("llava_forecast_finetune", ""), values.get("action")
    expected = described or "llava_forecast_finetune" in values
    if expected and isinstance(description, str) and not description.strip():
        faults.append(Fault("empty description", "has no description: llava_forecast_finetune is empty or absent"))
    if not isinstance(action, str) or not action.strip():
        return faults
    try:
        normalise_label(action, name)
    except LegoError as error:
        return [*faults, Fault("label", str(error))]
    if name.startswith("ego4d") and not action.startswith("#C C "):
        faults.append(Fault("label", f"action is {action!r}; a narration of Ego4D begins with '#C C '"))
    return faults


def _shared_faults(paths: dict[str, str], record: str, owners: dict[str, str]) -> list[Fault]:
    """Pictures are named after their target frame, and features after their input frame: each needs its own."""
    faults = []
    for key, path in paths.items():
        owner = owners.setdefault(f"{key} {path}", record)
        if owner != record:
            faults.append(Fault("shared frame", f"{key} is {path!r}, which is that of {owner} too"))
    return faults


def _order_faults(paths: dict[str, str]) -> list[Fault]:
    names = [PurePosixPath(path).name for path in paths.values()]
    if len(names) < 2 or names[0] < names[1]:
        return []
    # The input frame is known by being the first of its folder.
    return [Fault("frame order", f"the target {names[1]} does not come after the input {names[0]} by name")]


def _depth_faults(key: str, path: str) -> list[Fault]:
    if len(PurePosixPath(path).parts) == 3:
        return []
    return [Fault("path depth", f"{key} is {path!r}; it must be clip/action/frame")]


def _frame_faults(key: str, path: Path, smallest: int, absent: str = "missing frame") -> list[Fault]:
    try:
        if not path.is_file():
            return [Fault(absent, f"{key}: {path} is missing")]
        data = path.read_bytes()
        width, height = open_image(data).size
    except OSError as error:  # a name that is too long, a folder without access
        return [Fault("unreadable frame", f"{key}: {path} cannot be read: {error.strerror}")]
    except LegoError as error:
        return [Fault("unreadable frame", f"{key}: {path}: {error}")]
    try:
        decode_image(data)
    except LegoError as error:
        return [
            Fault("truncated frame" if "truncated" in str(error) else "unreadable frame", f"{key}: {path}: {error}")
        ]
    if min(width, height) < smallest:
        return [Fault("small frame", f"{key}: {path} is {width}x{height} pixels; the shorter side must be {smallest}")]
    return []


def _metadata_faults(about: Any) -> list[Fault]:
    if about is None:
        return [Fault("metadata", "its clip is not in the metadata")]
    return [
        Fault("metadata", f"its clip's {key} is {about.get(key)!r} in the metadata; it must be a number of pixels")
        for key in ("height", "width")
        if isinstance(about.get(key), bool) or not isinstance(about.get(key), int) or about[key] < 1
    ] + [
        Fault("metadata", f"its clip's {place} is {value} in the metadata, which is no number")
        for place, value in not_numbers(about) if place not in ("height", "width")
    ]  # fmt: skip
