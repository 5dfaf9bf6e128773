"""Which of a few frames is best, and how alike two frames are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from lego_core.errors import LegoError
from PIL import Image

from lego_training.prepare.config import SimilarityConfig

if TYPE_CHECKING:
    from lego_training.prepare.clip import AestheticHead, ClipVision

# Of the pairs that are kept. CLIP's are the paper's, which does not say what it measures; the others were chosen on
# head-worn clips so that frames a twentieth of a second apart and cuts to another scene fall outside.
_BOUNDS = {"clip": (0.81, 0.97), "ssim": (0.30, 0.90), "pixels": (0.75, 0.97)}


@dataclass(frozen=True)
class JudgeSpec:
    """What frames are judged by, all settled: goes to every worker, and into settings, metadata and report.

    Attributes:
        score: "aesthetic" or "sharpness": what the best candidate has most of.
        measure: "clip", "ssim" or "pixels".
        lowest: Similarity of a pair that is kept.
        highest: Likewise.
        clip: Folder of a CLIP, if any.
        aesthetic: The aesthetic head's file, if any.
    """

    score: str
    measure: str
    lowest: float
    highest: float
    clip: Path | None = None
    aesthetic: Path | None = None

    @classmethod
    def settle(cls, similarity: SimilarityConfig, clip: Path | None, aesthetic: Path | None) -> JudgeSpec:
        """Chooses what is left open, and makes sure that it can be had.

        Raises:
            LegoError: Something it needs is missing, or the bounds leave nothing.
        """
        if aesthetic is not None and clip is None:
            raise LegoError(f"{aesthetic} scores CLIP's embeddings: give --clip too")
        measure = similarity.measure if similarity.measure != "auto" else "clip" if clip else "ssim"
        if measure == "clip" and clip is None:
            raise LegoError("similarity.measure is clip: give --clip, or choose ssim or pixels")
        lowest, highest = _BOUNDS[measure]
        lowest = lowest if similarity.lowest is None else similarity.lowest
        highest = highest if similarity.highest is None else similarity.highest
        if lowest > highest:
            raise LegoError(f"similarity.lowest {lowest:g} is above similarity.highest {highest:g}: no pair is kept")
        if clip is not None:
            from lego_training.prepare.clip import AestheticHead, ClipVision

            width = ClipVision(clip).width
            aesthetic = aesthetic and AestheticHead(aesthetic, width).path
        return cls("aesthetic" if aesthetic else "sharpness", measure, lowest, highest, clip, aesthetic)


class Judge:
    """Judges frames as a spec says."""

    def __init__(self, spec: JudgeSpec) -> None:
        self._spec = spec
        self._clip: ClipVision | None = None
        self._head: AestheticHead | None = None
        if spec.clip is not None:
            from lego_training.prepare.clip import AestheticHead, ClipVision

            self._clip = ClipVision(spec.clip)
            self._head = AestheticHead(spec.aesthetic, self._clip.width) if spec.aesthetic else None

    def scores(self, frames: Sequence[Image.Image]) -> list[float]:
        """Returns a score of each frame; higher is better."""
        if self._clip is not None and self._head is not None:
            return self._head.score(self._clip.embed(frames))
        return [sharpness(frame) for frame in frames]

    def similarity(self, first: Image.Image, second: Image.Image) -> float:
        """Returns how alike two frames of one size are; 1 is the same."""
        if self._spec.measure == "clip":
            assert self._clip is not None
            embeddings = self._clip.embed([first, second])
            return float(embeddings[0] @ embeddings[1])
        measure = structural_similarity if self._spec.measure == "ssim" else pixel_similarity
        return measure(first, second)


def sharpness(frame: Image.Image) -> float:
    """Returns the variance of the Laplacian in grey: what motion blur takes away."""
    return float(cv2.Laplacian(np.asarray(frame.convert("L")), cv2.CV_64F).var())


def structural_similarity(first: Image.Image, second: Image.Image) -> float:
    """Returns the structural similarity index (Wang et al. 2004) over all three channels."""
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (torch.from_numpy(np.array(each, np.float32) / 255).permute(2, 0, 1)[None] for each in (first, second))
    return float(structural_similarity_index_measure(a, b, data_range=1.0))  # type: ignore[arg-type]  # no map asked for


def pixel_similarity(first: Image.Image, second: Image.Image) -> float:
    """Returns 1 less the mean absolute difference of the values, in 0 to 1."""
    difference = np.asarray(first, np.float32) - np.asarray(second, np.float32)
    return 1.0 - float(np.abs(difference).mean()) / 255
