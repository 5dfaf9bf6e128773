"""The VLLM's features on disk, in the layout of the released ones (lego-reference A6, C7).

Beside each other lie vllm_image_feature/<split>/<clip_id>/<action_id>/<frame>.npy, (M, D) float16, and the same under
vllm_text_feature/, (T, D) float16: one row per token of the description, the end token included. Both are named after
the input frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_training.dataset import Record

IMAGE_FOLDER, TEXT_FOLDER = "vllm_image_feature", "vllm_text_feature"


@dataclass(frozen=True)
class FeatureStore:
    """The features of one split of a dataset.

    Attributes:
        images: Folder of the image features.
        texts: Folder of the text features.
    """

    images: Path
    texts: Path

    @classmethod
    def at(cls, root: Path, split: str) -> Self:
        """Returns the place under `root` where the features of a split are written."""
        return cls(root / IMAGE_FOLDER / split, root / TEXT_FOLDER / split)

    @classmethod
    def find(cls, root: Path, split: str) -> Self:
        """Returns the features of a split under `root`, with or without a folder for the VLLM, as released, in between.

        Raises:
            LegoError: There are none, or those of several VLLMs.
        """
        folders = []
        for kind in (IMAGE_FOLDER, TEXT_FOLDER):
            found = [path for path in (root / kind / split, *sorted(root.glob(f"{kind}/*/{split}"))) if path.is_dir()]
            if not found:
                raise LegoError(
                    f"{root} has no {kind}/{split}; write it with lego-train features, or unpack the released one there"
                )
            if len(found) > 1:
                raise LegoError(f"{root} has {found[0]} and {found[1]}; leave the one that belongs to the checkpoint")
            folders.append(found[0])
        return cls(*folders)

    def paths(self, record: Record) -> tuple[Path, Path]:
        """The image and the text features' files of a record."""
        # The original replaces "jpg" wherever it stands in the path, which breaks on other suffixes and some folders.
        name = Path(*record.input_path.parts[-3:]).with_suffix(".npy")
        return self.images / name, self.texts / name

    def has(self, record: Record) -> bool:
        """Whether both files of a record are there."""
        return all(path.is_file() for path in self.paths(record))

    def check(self, records: Sequence[Record]) -> None:
        """Checks that no record lacks its features.

        Raises:
            LegoError: Some do; the message names the first and says how many.
        """
        lacking = [record for record in records if not self.has(record)]
        if lacking:
            raise LegoError(
                f"{len(lacking)} of {len(records)} records lack their features, the first is "
                f"{lacking[0].clip_id}/{lacking[0].action_id}: write them with lego-train features"
            )

    def write(self, record: Record, image_embeddings: NDArray[Any], text_states: NDArray[Any]) -> None:
        """Writes a record's pair of files, as float16. Interrupted at any point, the two never are of different runs.

        Args:
            record: Named by its input frame.
            image_embeddings: (M, D).
            text_states: (T, D).
        """
        paths = self.paths(record)
        partials = [path.with_name(f".{path.name}.partial") for path in paths]
        for partial, array in zip(partials, (image_embeddings, text_states), strict=True):
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, array.astype(np.float16))
        for path in paths:
            path.unlink(missing_ok=True)
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)

    def image_rows(self, records: Sequence[Record], image_tokens: int, width: int) -> FeatureRows:
        """The records' image features as if in memory: (2n, M, D)."""
        paths = [self.paths(record)[0] for record in records]
        return FeatureRows(paths, lambda path: read_image_features(path, image_tokens, width))

    def text_rows(self, records: Sequence[Record], text_tokens: int, width: int) -> FeatureRows:
        """The records' text features as if in memory: (2n, N, D)."""
        paths = [self.paths(record)[1] for record in records]
        return FeatureRows(paths, lambda path: read_text_features(path, text_tokens, width))


class FeatureRows:
    """Features that are read when a batch needs them: at full size they are far larger than memory.

    Reads as an array of two samples a record, the pair and its mirror image. The features of both are those of the pair
    as it is, which is what the original trains on (trap 10 of lego-reference I).
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], NDArray[np.float32]]) -> None:
        self._paths = paths
        self._read = read

    def __len__(self) -> int:
        return 2 * len(self._paths)

    def __getitem__(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        return np.stack([self._read(self._paths[row // 2]) for row in rows])


def read_image_features(path: Path, image_tokens: int, width: int) -> NDArray[np.float32]:
    """Returns image features (M, D).

    Raises:
        LegoError: The file is missing, damaged or of another shape.
    """
    features = _read(path)
    if features.shape != (image_tokens, width):
        raise LegoError(f"{path} holds {features.shape}; this model's image features are {(image_tokens, width)}")
    return features.astype(np.float32)


def read_text_features(path: Path, text_tokens: int, width: int) -> NDArray[np.float32]:
    """Returns text features (N, D): the first N rows, or zero rows up to N (lego-reference A6).

    Raises:
        LegoError: The file is missing, damaged or of another shape.
    """
    features = _read(path)
    if features.ndim == 3:  # several layers' states: the last one's count
        features = features[:, -1]
    if features.ndim == 1:  # a single token, from which the original's files have lost the first axis
        features = features[None]
    if features.ndim != 2 or features.shape[1] != width:
        raise LegoError(f"{path} holds {features.shape}; this model's text features are (tokens, {width})")
    padded = np.zeros((text_tokens, width), np.float32)
    padded[: len(features)] = features[:text_tokens]
    return padded


def _read(path: Path) -> NDArray[Any]:
    try:
        features: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise LegoError(f"the features {path} cannot be read ({error}); write them again") from error
    if features.dtype not in (np.float16, np.float32):
        raise LegoError(f"{path} holds {features.dtype}; features are float16")
    return features
