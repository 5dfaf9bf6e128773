"""What is judged: generated pictures, each beside its input frame, its target and its words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from lego_core.errors import LegoError
from torch import Tensor

from lego_training.dataset import Record, read_frame, split_folder

# A picture is taken to be of its target's frame if their aspect ratios differ by no more: the original's own rounding
# makes 455 of 456 columns.
_ASPECT_TOLERANCE = 0.02


Element = TypeVar("Element")


@dataclass(frozen=True)
class Sample:
    """One generated picture and what it is compared with.

    Attributes:
        name: clip/action, as in the dataset.
        generated: The picture.
        target: The true frame of the action.
        input: The frame before it.
        action: The label.
        description: The enriched description; empty if the dataset has none.
    """

    name: str
    generated: Path
    target: Path
    input: Path
    action: str
    description: str


@dataclass(frozen=True)
class Fault:
    """Why a record is not judged.

    Attributes:
        file: What it concerns.
        reason: In a few words.
    """

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def find_samples(
    records: Iterable[Record], root: Path, dataset: str, split: str, generated: Path
) -> tuple[list[Sample], list[Fault]]:
    """Pairs records with pictures that lie at clip/action/frame below a folder, as the original writes them.

    Targets are those of val_gt_for_metric where the dataset has that folder. A picture may have any of the endings that
    are read; of several the target's own ending is taken.

    Returns:
        What can be judged, in the records' order, and a fault for every file that others lack.

    Raises:
        LegoError: The folder is not there, or none of its pictures belongs to the dataset.
    """
    if not generated.is_dir():
        raise LegoError(f"{generated} is no folder; give the one whose pictures lie at clip/action/frame below it")
    truth = split_folder(root, dataset, f"{split}_gt_for_metric")
    samples, faults = [], []
    for record in records:
        place = Path(*record.target_path.parts[-3:])
        target = truth / place if truth.is_dir() else record.target_path
        picture = find_picture(generated / place)
        missing = [
            Fault(str(path), reason)
            for path, reason in (
                (picture or generated / place, "the generated picture is missing"),
                (target, "the ground truth is missing"), (record.input_path, "the input frame is missing"),
            )
            if not path.is_file()
        ]  # fmt: skip
        faults += missing
        if not missing:
            assert picture is not None
            name = f"{record.clip_id}/{record.action_id}"
            samples.append(Sample(name, picture, target, record.input_path, record.action, record.description))
    if not samples:
        first = f": {faults[0]}" if faults else ""
        inner = generated / "images"
        hint = f"; lego-train reproduce paints into {inner}, give that" if inner.is_dir() else ""
        raise LegoError(f"{generated} has no picture of a record of {dataset}_{split}{first}{hint}")
    return samples, faults


def find_picture(path: Path) -> Path | None:
    """Returns a picture's file, whichever of the endings that are read it has."""
    candidates = (path.with_suffix(suffix) for suffix in (path.suffix, ".jpg", ".jpeg", ".png", ".webp"))
    return next((each for each in candidates if each.is_file()), None)


def check_samples(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Fault | None, Fault | None]]:
    """Decodes every sample's three pictures once.

    Yields:
        The sample; what keeps it from being judged, if anything; and that its size is not its target's, if it is not.
    """
    with ThreadPoolExecutor(8) as pool:
        for some in in_batches(samples, 64):
            yield from pool.map(_check, some)


def _check(sample: Sample) -> tuple[Sample, Fault | None, Fault | None]:
    sizes = []
    for path in (sample.generated, sample.target, sample.input):
        try:
            sizes.append(read_frame(path).size)
        except LegoError as error:
            return sample, Fault(str(path), f"it cannot be read ({error.__cause__})"), None
    (width, height), (true_width, true_height), _ = sizes
    told = f"it is {width}x{height} and its target {true_width}x{true_height}"
    if abs(width / height / (true_width / true_height) - 1) > _ASPECT_TOLERANCE:
        return sample, Fault(str(sample.generated), f"{told}: the shapes disagree"), None
    return sample, None, Fault(str(sample.generated), told) if sizes[0] != sizes[1] else None


def in_batches(elements: Sequence[Element], size: int) -> Iterator[Sequence[Element]]:
    """Yields elements in order, `size` at a time; fewer at the end."""
    return (elements[first : first + size] for first in range(0, len(elements), size))


def read_picture(path: Path) -> Tensor:
    """Returns one picture as a tensor, (3, H, W) float32 in [0, 1].

    Raises:
        LegoError: It cannot be read; the message names it.
    """
    values = np.array(read_frame(path))
    return torch.from_numpy(values).permute(2, 0, 1).float() / 255
