"""EgoVLP and EgoVLP+: similarity of generated and true picture to a network that knows egocentric actions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import functional as transforms
from transformers import AutoTokenizer

from lego_training.evaluation.metrics.bench import Bench, Compute, Item
from lego_training.evaluation.metrics.clip import crop_centre, load_folder
from lego_training.evaluation.metrics.frozen_in_time import FrozenInTime
from lego_training.evaluation.metrics.metric import Mode, cosine, mean_score
from lego_training.evaluation.metrics.samples import Fault, Sample
from lego_training.evaluation.metrics.scores import Score

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BORDER = 256 / 224  # the official transform crops 256 of 256 before it resizes to 224

_CORRECTED = "EgoVLP's own preprocessing with antialiasing"


class EgoVlp:
    """Cosine of the video embeddings of two stills, the generated and the true picture.

    Args:
        plus: EgoVLP+: the first half of each video is the input frame.
    """

    unit, scale = "x100", 100.0
    better: Literal["higher", "lower"] = "higher"

    def __init__(self, plus: bool) -> None:
        self._plus = plus
        self.name, self.title = ("egovlp_plus", "EgoVLP+") if plus else ("egovlp", "EgoVLP")
        published = "resized to the crop at once, without antialiasing"
        if plus:
            published += "; the input frame is the first file by name of its folder"
        self.notes: dict[Mode, str] = {
            "published": published,
            "corrected": f"{_CORRECTED}; the input frame is the record's" if plus else _CORRECTED,
        }

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""
        network = EgoVlpNetwork(bench)
        if not self._plus:
            true = network.stills([(each.target,) for each in samples], mode)
            generated = network.stills([(each.generated,) for each in samples], mode)
            return mean_score(samples, cosine(true, generated))
        kept, inputs, faults = _with_inputs(samples, mode)
        true = network.stills([(each, kept[i].target) for i, each in enumerate(inputs)], mode)
        generated = network.stills([(each, kept[i].generated) for i, each in enumerate(inputs)], mode)
        score, more = mean_score(kept, cosine(true, generated))
        return score, faults + more


def _with_inputs(samples: Sequence[Sample], mode: Mode) -> tuple[list[Sample], list[Path], list[Fault]]:
    """Returns the samples that have an input frame, those frames, and the others' faults."""
    if mode == "corrected":
        return list(samples), [each.input for each in samples], []
    kept, inputs, faults = [], [], []
    for sample in samples:
        first = min(path for path in sample.input.parent.iterdir() if path.is_file())
        if first.name == sample.target.name:
            reason = "the target is the first by name, so that the published EgoVLP+ finds no input frame"
            faults.append(Fault(str(first), reason))
        else:
            kept.append(sample)
            inputs.append(first)
    if not kept:
        raise LegoError(f"no sample has an input frame as the published EgoVLP+ finds it; the first is {faults[0]}")
    return kept, inputs, faults


class EgoVlpNetwork:
    """EgoVLP with the weights of the bench's dataset: 16 frames for EPIC-KITCHENS, else 4.

    Raises:
        Absent: The weights are not there.
    """

    def __init__(self, bench: Bench) -> None:
        epic = bench.dataset.startswith("epic")
        self._bench, self._frames = bench, 16 if epic else 4
        self._path = bench.weights.find("egovlp-epickitchen" if epic else "egovlp-ego4d")
        self._digest = bench.weights.digest(self._path)

    def stills(self, items: Sequence[Item], mode: Mode) -> NDArray[np.float32]:
        """Returns the embeddings of videos in which each picture of an item stands for an equal share, (n, D)."""

        def load() -> Compute:
            model, size = self._model, self._model.picture_size
            mean, std = (torch.tensor(each, device=self._bench.device)[:, None, None] for each in (_MEAN, _STD))

            def prepare(picture: Tensor) -> Tensor:
                if mode == "published":
                    picture = crop_centre(picture, size, antialias=False)
                else:
                    border = crop_centre(picture, round(size * _BORDER))
                    picture = transforms.resize(border, [size, size], antialias=True)
                return (picture - mean) / std

            def compute(pictures: list[tuple[Tensor, ...]]) -> Tensor:
                videos = []
                for item in pictures:
                    if mode == "published" and len(item) == 2 and item[0].shape != item[1].shape:
                        item = item[0], transforms.resize(item[1], list(item[0].shape[1:]), antialias=False)
                    share = self._frames // len(item)
                    videos.append(torch.cat([prepare(each).expand(share, -1, -1, -1) for each in item]))
                return model.videos(torch.stack(videos))

            return compute

        parts = "plus " if len(items[0]) == 2 else ""
        return self._bench.features(f"egovlp {parts}{self._frames} {mode} {self._digest}", items, load)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns the text embeddings, (n, D), of DistilBERT as EgoVLP tuned it.

        Raises:
            Absent: There is no tokenizer.
        """
        folder = self._bench.weights.find("distilbert")

        def load() -> Compute:
            tokenizer = load_folder(AutoTokenizer, folder)
            longest = self._model.text_model.config.max_position_embeddings

            def compute(rows: list[tuple[str, ...]]) -> Tensor:
                only = [text for (text,) in rows]
                tokens = tokenizer(only, padding=True, truncation=True, max_length=longest, return_tensors="pt")
                device = self._bench.device
                return self._model.texts(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))

            return compute

        kind = f"egovlp-text {self._digest} {self._bench.weights.digest(folder)}"
        return self._bench.features(kind, [(text,) for text in texts], load)

    @cached_property
    def _model(self) -> FrozenInTime:
        return FrozenInTime.load(self._path, self._frames).to(self._bench.device)
