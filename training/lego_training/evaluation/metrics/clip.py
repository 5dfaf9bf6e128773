"""CLIP: similarity of pictures, and of a picture with its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms
from transformers import AutoTokenizer, CLIPModel

from lego_training.evaluation.metrics.bench import Bench, Compute, stack_resized
from lego_training.evaluation.metrics.metric import Mode, NotDefined, cosine, mean_score
from lego_training.evaluation.metrics.samples import Fault, Sample
from lego_training.evaluation.metrics.scores import Score

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipSimilarity:
    """Cosine of the image embeddings of generated and true picture."""

    name, title, unit, scale = "clip", "CLIP", "x100", 100.0
    better: Literal["higher", "lower"] = "higher"
    notes: dict[Mode, str] = {  # noqa: RUF012  # written nowhere
        "published": "pictures squashed to a square, bicubically without antialiasing; overshoots are kept",
        "corrected": "CLIP's own preprocessing: shorter side resized with antialiasing, centre crop",
    }

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""
        network = ClipNetwork(bench)
        true, generated = (
            network.images(paths, mode)
            for paths in ([each.target for each in samples], [each.generated for each in samples])
        )
        return mean_score(samples, cosine(true, generated))


class ClipText:
    """Cosine of the image embedding of the generated picture and the text embedding of its words."""

    name, title, unit, scale = "clip_text", "CLIP (image-text)", "x100", 100.0
    better: Literal["higher", "lower"] = "higher"
    notes: dict[Mode, str] = {  # noqa: RUF012  # written nowhere
        "published": "not in the published code",
        "corrected": "of picture and words, with CLIP's own preprocessing; the paper does not say of which words",
    }

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""
        if mode == "published":
            raise NotDefined("the published code does not compute it")
        network = ClipNetwork(bench)
        words = network.texts([bench.words(each) for each in samples])
        return mean_score(samples, cosine(network.images([each.generated for each in samples], mode), words))


class ClipNetwork:
    """CLIP of the bench's weights, ViT-L/14 in the paper.

    Raises:
        Absent: The weights are not there.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._path = bench.weights.find("clip")
        self._digest = bench.weights.digest(self._path)

    def images(self, paths: Sequence[Path], mode: Mode) -> NDArray[np.float32]:
        """Returns the image embeddings, (n, D), not normalised."""
        return self._bench.features(
            f"clip image {mode} {self._digest}", [(path,) for path in paths], self._image_tower(mode)
        )

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns the text embeddings, (n, D), not normalised; texts longer than CLIP reads are cut."""
        return self._bench.features(f"clip text {self._digest}", [(text,) for text in texts], self._text_tower)

    @cached_property
    def _model(self) -> CLIPModel:
        return load_folder(CLIPModel, self._path).to(self._bench.device)

    def _image_tower(self, mode: Mode) -> Callable[[], Compute]:
        def load() -> Compute:
            model = self._model
            size = model.config.vision_config.image_size
            mean, std = (torch.tensor(each, device=model.device)[:, None, None] for each in (_MEAN, _STD))

            def compute(pictures: list[tuple[Tensor, ...]]) -> Tensor:
                only = [picture for (picture,) in pictures]
                if mode == "published":
                    pixels = stack_resized(only, (size, size), "bicubic", antialias=False)
                else:
                    pixels = torch.stack([crop_centre(each, size, InterpolationMode.BICUBIC) for each in only])
                pooled = model.vision_model((pixels - mean) / std).pooler_output
                embeddings: Tensor = model.visual_projection(pooled)
                return embeddings

            return compute

        return load

    def _text_tower(self) -> Compute:
        model, tokenizer = self._model, load_folder(AutoTokenizer, self._path)
        longest = model.config.text_config.max_position_embeddings

        def compute(texts: list[tuple[str, ...]]) -> Tensor:
            only = [text for (text,) in texts]
            tokens = tokenizer(only, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            embeddings: Tensor = model.text_projection(model.text_model(**tokens.to(model.device)).pooler_output)
            return embeddings

        return compute


def crop_centre(
    picture: Tensor, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR, antialias: bool = True
) -> Tensor:
    """Resizes the shorter side of a picture (3, H, W) and crops the middle: (3, size, size), clamped to [0, 1]."""
    resized = transforms.resize(picture, [size], interpolation, antialias=antialias)
    cropped: Tensor = transforms.center_crop(resized, [size, size]).clamp(0, 1)
    return cropped


def load_folder(kind: Any, folder: Path, **arguments: Any) -> Any:
    """Loads a transformers model or tokenizer of a folder, models in float32 and in evaluation mode.

    Raises:
        LegoError: Missing, damaged, or without some of its weights.
    """
    is_model = isinstance(kind, type) and issubclass(kind, torch.nn.Module)
    try:
        if not is_model:
            return kind.from_pretrained(folder, local_files_only=True, **arguments)
        model, found = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, dtype=torch.float32, **arguments
        )
    except Exception as error:  # transformers raises many types on damaged files
        raise LegoError(f"{folder} cannot be loaded ({str(error).splitlines()[0]}); fetch it again") from error
    if found["missing_keys"]:
        raise LegoError(f"{folder} lacks the weights {min(found['missing_keys'])}; fetch it again")
    return model.eval()
