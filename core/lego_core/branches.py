"""The branches of dual classifier-free guidance: the ways in which the U-Net is asked, and what each answer weighs.

The U-Net can be asked three ways: with text and image, with the image only, and with neither. Guidance mixes the three
predictions (lego-reference B):

    prediction = null + image_scale * (image_only - null) + text_scale * (conditional - image_only)

A fourth branch is the distilled student of the U-Net, asked with text and image, which stands for all three.

`plan_evaluations` says what is asked at each step. Two options make some steps cheaper: outside the guidance interval
(Kynkäänniemi et al. 2024) the conditional branch alone is asked; with feature caching (DeepCache, Ma et al. 2024) the
U-Net's deep layers are evaluated at some steps only, and what they gave is used again at those between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lego_core.config import guided_steps

Features = Literal["dropped", "kept", "reused"]
Branch = Literal["conditional", "image_only", "null", "student"]
# Of the whole U-Net's arithmetic, what its shallow layers alone need: 24 % in lego-nano, 18 % in the released size.
SHALLOW_SHARE = 0.2
# A distilled student is asked once: guidance is in its weights.
STUDENT_BRANCH: dict[Branch, float] = {"student": 1.0}


def branch_weights(text_scale: float, image_scale: float) -> dict[Branch, float]:
    """Returns the weight of each branch in the guided prediction; the weights sum to 1.

    A branch of weight 0 is left out, because asking the U-Net for it would change nothing: scales of 1 and 1
    need the conditional branch alone, a third of the work.
    """
    weights: dict[Branch, float] = {
        "conditional": text_scale,
        "image_only": image_scale - text_scale,
        "null": 1.0 - image_scale,
    }
    return {branch: weight for branch, weight in weights.items() if weight != 0.0}


@dataclass(frozen=True)
class Evaluation:
    """What one denoising step asks of the U-Net.

    Attributes:
        weights: Of the branches that are asked, in order.
        features: What becomes of the deep layers' features: "dropped" after a plain evaluation, "kept" for the steps
            that follow, or "reused" from the last step that kept them, with the deep layers left out.
    """

    weights: dict[Branch, float]
    features: Features = "dropped"


def plan_evaluations(
    steps: int, text_scale: float, image_scale: float, guidance_interval: tuple[float, float] = (0.0, 1.0),
    cache_interval: int = 1,
) -> list[Evaluation]:  # fmt: skip
    """Returns what each step of a guided sampler asks of the U-Net.

    Features are of the branches they were computed for, so where the branches change they are computed anew.

    Args:
        steps: Denoising steps.
        text_scale: Guidance scale of the text-side conditions.
        image_scale: Guidance scale of the input frame.
        guidance_interval: As `lego_core.config.GuidanceDefaults` has it.
        cache_interval: See above.

    Raises:
        LegoError: No step lies within the guidance interval.
    """
    guided = guided_steps(steps, guidance_interval)
    guidance, alone = branch_weights(text_scale, image_scale), branch_weights(1.0, 1.0)
    weights = [guidance if step in guided else alone for step in range(steps)]
    starts = [0]  # the steps that evaluate the deep layers
    for step in range(1, steps):
        if step - starts[-1] == cache_interval or weights[step].keys() != weights[step - 1].keys():
            starts.append(step)
    spans = [end - start for start, end in pairwise([*starts, steps])]
    features: list[Features] = []
    for span in spans:
        features.append("kept" if span > 1 else "dropped")
        features += ["reused"] * (span - 1)
    return [Evaluation(*each) for each in zip(weights, features, strict=True)]


def cost(evaluations: Iterable[Evaluation]) -> float:
    """Returns what evaluations cost, about, in evaluations of one row by the whole U-Net."""
    return sum(len(each.weights) * (SHALLOW_SHARE if each.features == "reused" else 1.0) for each in evaluations)
