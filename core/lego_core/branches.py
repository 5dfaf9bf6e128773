"""The branches of dual classifier-free guidance: the ways in which the U-Net is asked, and what each answer weighs.

The U-Net can be asked three ways: with text and image, with the image only, and with neither. Guidance mixes the three
predictions (lego-reference B):

    prediction = null + image_scale * (image_only - null) + text_scale * (conditional - image_only)

A fourth branch is the distilled student of the U-Net, asked with text and image, which stands for all three.
"""

from __future__ import annotations

from typing import Literal

Branch = Literal["conditional", "image_only", "null", "student"]
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
