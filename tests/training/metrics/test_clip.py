"""CLIP's similarities against transformers' own CLIP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lego_training.evaluation.metrics.bench import Bench
from lego_training.evaluation.metrics.clip import ClipNetwork, ClipSimilarity, ClipText
from lego_training.evaluation.metrics.metric import NotDefined
from lego_training.evaluation.metrics.samples import Sample
from lego_training.evaluation.metrics.scores import MeanScore
from PIL import Image
from transformers import CLIPImageProcessor, CLIPModel

from tests.training.metrics.conftest import picture


@pytest.fixture(scope="module")
def model(weights: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(weights / "clip-vit-large-patch14").eval()


def image_embedding(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(pixel_values=pixels, input_ids=torch.tensor([[1, 2]])).image_embeds[0]


def test_published_pictures_are_squashed_without_antialiasing(
    samples: list[Sample], bench: Bench, model: CLIPModel
) -> None:
    def embedding(path: Path) -> torch.Tensor:
        x = torch.from_numpy(picture(path)).float().permute(2, 0, 1)[None]
        x = torch.nn.functional.interpolate(x, size=32, mode="bicubic", align_corners=False)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
        return image_embedding(model, (x - mean) / std)

    expected = [float(embedding(each.target) @ embedding(each.generated)) for each in samples]

    score, _ = ClipSimilarity().score(samples, "published", bench)

    assert isinstance(score, MeanScore)
    assert score.values == pytest.approx(expected, abs=1e-5)


def test_corrected_pictures_are_prepared_as_clips_own_processor_does(
    samples: list[Sample], bench: Bench, model: CLIPModel, weights: Path
) -> None:
    processor = CLIPImageProcessor.from_pretrained(weights / "clip-vit-large-patch14")

    def embedding(path: Path) -> torch.Tensor:
        return image_embedding(model, processor(images=Image.open(path), return_tensors="pt")["pixel_values"])

    expected = [float(embedding(each.target) @ embedding(each.generated)) for each in samples]

    score, _ = ClipSimilarity().score(samples, "corrected", bench)

    assert isinstance(score, MeanScore)
    assert score.values == pytest.approx(expected, abs=2e-3)  # it rounds to whole values between its steps


def test_equal_pictures_are_wholly_alike(samples: list[Sample], bench: Bench) -> None:
    network = ClipNetwork(bench)
    (first, again) = network.images([samples[0].target, samples[0].target], "corrected")

    assert np.array_equal(first, again)


def test_a_picture_and_its_words_are_compared(samples: list[Sample], bench: Bench, model: CLIPModel) -> None:
    ids = torch.tensor([[1, 6, 8, 9, 10, 11, 2]])  # <s> the right hand opens drawer </s>
    with torch.inference_mode():
        words = model(input_ids=ids, pixel_values=torch.zeros(1, 3, 32, 32)).text_embeds[0].numpy()
    pictures = ClipNetwork(bench).images([each.generated for each in samples], "corrected")
    expected = pictures @ words / np.linalg.norm(pictures, axis=1)

    score, _ = ClipText().score(samples, "corrected", bench)

    assert isinstance(score, MeanScore)
    assert score.values == pytest.approx(expected, abs=1e-5)


def test_the_published_code_has_no_image_text_score(samples: list[Sample], bench: Bench) -> None:
    with pytest.raises(NotDefined, match="does not compute it"):
        ClipText().score(samples, "published", bench)


def test_words_longer_than_clip_reads_are_cut_behind_their_end_token(bench: Bench) -> None:
    long, longer = ClipNetwork(bench).texts(["drawer " * 30, "drawer " * 40])

    assert np.array_equal(long, longer) and np.isfinite(long).all()
