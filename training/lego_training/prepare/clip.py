"""CLIP's image embeddings, and the aesthetic predictors that are trained on them (lego-reference D5, D6)."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lego_core.errors import LegoError
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection


class ClipVision:
    """The vision tower of a CLIP in the transformers layout, with the preprocessing in its folder.

    Args:
        folder: Such as a copy of openai/clip-vit-large-patch14; safetensors only.

    Raises:
        LegoError: It holds no such model.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            model = CLIPVisionModelWithProjection.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            told = str(error).splitlines()[0]
            raise LegoError(
                f"{folder} holds no CLIP ({told}); give a folder with config.json, preprocessor_config.json and "
                "model.safetensors"
            ) from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.float().eval().to(self._device)
        self.width = int(model.config.projection_dim)

    @torch.inference_mode()
    def embed(self, frames: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Returns the embeddings (frames, width) of unit length."""
        pixels = self._processor(images=list(frames), return_tensors="pt")["pixel_values"].to(self._device)
        embeddings = self._model(pixels).image_embeds
        unit: NDArray[np.float32] = torch.nn.functional.normalize(embeddings, dim=-1).cpu().numpy()
        return unit


class AestheticHead:
    """A predictor of how good a picture looks, about 1 to 10, from its CLIP embedding.

    Two kinds of files are read: the improved aesthetic predictor's (layers.0 to layers.7, five linear layers without
    activations between them; its dropout is for training) and LAION's (one linear layer).

    Args:
        path: The file, or a folder of which the one file is taken that fits.
        width: Of the embeddings.

    Raises:
        LegoError: It is no such file, or for embeddings of another width.
    """

    def __init__(self, path: Path, width: int) -> None:
        heads = {}
        for file in sorted(path.glob("*.pth")) if path.is_dir() else [path]:
            layers = _read_layers(file)
            if layers and layers[0][0].shape[1] == width:
                heads[file] = layers
            elif not path.is_dir():
                fitting = f"is for embeddings of width {layers[0][0].shape[1]}" if layers else "is no aesthetic head"
                raise LegoError(f"{path} {fitting}; this CLIP's are of width {width}: give the head made for it")
        if len(heads) != 1:
            found = f"{' and '.join(file.name for file in heads)} fit" if heads else "no file fits"
            raise LegoError(f"of {path} {found} embeddings of width {width}; name the head's file")
        ((self.path, self._layers),) = heads.items()

    def score(self, embeddings: NDArray[np.float32]) -> list[float]:
        """Returns the scores of embeddings (frames, width) of unit length."""
        values = embeddings
        for weight, bias in self._layers:
            values = values @ weight.T + bias
        return [float(value) for value in values[:, 0]]


def _read_layers(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Returns the weights and biases of the linear layers in order; none if the file is something else."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise LegoError(f"{path} cannot be read as weights ({str(error).splitlines()[0]}); fetch it again") from error
    if not isinstance(state, dict):
        return []
    named = {key: value.float().numpy() for key, value in state.items() if isinstance(value, torch.Tensor)}
    prefixes = [f"layers.{number}." for number in (0, 2, 4, 6, 7)] if "layers.0.weight" in named else [""]
    expected = {f"{prefix}{part}" for prefix in prefixes for part in ("weight", "bias")}
    if set(named) != expected:
        return []
    layers = [(named[f"{prefix}weight"], named[f"{prefix}bias"]) for prefix in prefixes]
    widths = [weight.shape[0] for weight, _ in layers]
    chained = all(weight.ndim == 2 for weight, _ in layers) and [w.shape[1] for w, _ in layers[1:]] == widths[:-1]
    return layers if chained and widths[-1] == 1 else []
