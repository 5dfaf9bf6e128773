"""BLIP-B and BLIP-L: the generated picture is captioned, and the caption compared with the description."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lego_core.errors import LegoError
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms
from transformers import AutoTokenizer, BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

from lego_training.dataset import read_frame
from lego_training.evaluation.metrics.bench import Bench, progress
from lego_training.evaluation.metrics.clip import ClipNetwork, load_folder
from lego_training.evaluation.metrics.egovlp import EgoVlpNetwork
from lego_training.evaluation.metrics.metric import Mode, cosine, mean_score
from lego_training.evaluation.metrics.samples import Fault, Sample, in_batches
from lego_training.evaluation.metrics.scores import Score
from lego_training.evaluation.metrics.tensors import load_into, read_tensors

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_PROMPT = "a picture of"
_BATCH = 30  # the original's: its captions depend on it
_SEED = 42
_DROPOUT = 0.1  # of the original's BERT, and of the last block of the large vision transformer


class BlipCaption:
    """Cosine of the text embeddings of the picture's caption and of its words.

    Args:
        size: "base" or "large".
    """

    unit, scale = "x100", 100.0
    better: Literal["higher", "lower"] = "higher"
    notes: dict[Mode, str] = {  # noqa: RUF012  # written nowhere
        "published": "captions by a network in training mode, where dropout makes them vary, compared by EgoVLP's text "
        "encoder; dropout is seeded for each batch of 30, as the original's own random numbers cannot be had again",
        "corrected": "captions by a network in evaluation mode, compared by CLIP's text encoder, as the paper says",
    }

    def __init__(self, size: Literal["base", "large"]) -> None:
        self._size: Literal["base", "large"] = size
        self.name, self.title = f"blip_{size}", f"BLIP-{size[0].upper()}"

    def score(self, samples: Sequence[Sample], mode: Mode, bench: Bench) -> tuple[Score, list[Fault]]:
        """See `Metric`."""
        encoder = EgoVlpNetwork(bench) if mode == "published" else ClipNetwork(bench)
        words = encoder.texts([bench.words(each) for each in samples])
        captions = write_captions([each.generated for each in samples], self._size, mode, bench)
        return mean_score(samples, cosine(words, encoder.texts(captions)))


def write_captions(paths: Sequence[Path], size: Literal["base", "large"], mode: Mode, bench: Bench) -> list[str]:
    """Returns a caption of each picture, as the original writes them: three beams, at most 20 tokens.

    Published captions keep the space after the prompt, which the original cuts off one letter too early.

    Raises:
        Absent: The weights are not there.
    """
    path = bench.weights.find(f"blip-{size}")
    tokenizer_folder = path if path.is_dir() else bench.weights.find("bert")
    kind = f"blip-{size} {mode} {bench.weights.digest(path)} {bench.weights.digest(tokenizer_folder)}"
    batches = [list(some) for some in in_batches(paths, _BATCH if mode == "published" else bench.batch_size)]
    keys = []
    for number, batch in enumerate(batches):
        # With dropout, a caption is one of its batch's as a whole.
        company = (str(number), *batch) if mode == "published" else ()
        keys.append([bench.cache.key(kind, path, *company) for path in batch])
    found = bench.cache.texts([key for batch in keys for key in batch])
    missing = [number for number, batch in enumerate(keys) if any(key not in found for key in batch)]
    if missing:
        captioner = Captioner.load(path, tokenizer_folder, size, bench.device)
        with progress(f"blip-{size}", sum(len(batches[number]) for number in missing)) as advance:
            for number in missing:
                written = captioner.write(batches[number], _SEED + number if mode == "published" else None)
                fresh = dict(zip(keys[number], written, strict=True))
                bench.cache.put(fresh)
                found |= fresh
                advance(len(fresh))
    return [found[key] for batch in keys for key in batch]


@dataclass
class Captioner:
    """A BLIP that writes captions.

    Attributes:
        model: The network.
        tokenizer: BERT's.
        drop_path: Of the last vision block in training mode; rises from 0 in the first.
    """

    model: BlipForConditionalGeneration
    tokenizer: Any
    drop_path: float

    @classmethod
    def load(
        cls, path: Path, tokenizer_folder: Path, size: Literal["base", "large"], device: torch.device
    ) -> Captioner:
        """Loads BLIP from a folder of the hub, or from Salesforce's own file.

        Raises:
            LegoError: It is neither.
        """
        model = load_folder(BlipForConditionalGeneration, path) if path.is_dir() else load_salesforce(path)
        # transformers' configuration has no dropout; the original's BERT has. It acts in training mode only.
        for module in model.text_decoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = _DROPOUT
        tokenizer = load_folder(AutoTokenizer, tokenizer_folder)
        return cls(model.to(device), tokenizer, _DROPOUT if size == "large" else 0.0)

    @torch.inference_mode()
    def write(self, paths: Sequence[Path], dropout_seed: int | None) -> list[str]:
        """Returns captions of pictures.

        Args:
            paths: Of one batch.
            dropout_seed: Writes in training mode, dropout seeded with this; None writes in evaluation mode and returns
                captions without surrounding spaces.
        """
        model, device = self.model, self.model.device
        size = model.config.vision_config.image_size
        squares = [read_frame(path).resize((size, size), Image.Resampling.BICUBIC) for path in paths]
        pixels = torch.stack([transforms.normalize(transforms.to_tensor(each), _MEAN, _STD) for each in squares])
        prompt = self.tokenizer([_PROMPT] * len(paths), return_tensors="pt").input_ids.to(device)
        options = {"num_beams": 3, "max_length": 20, "min_length": 5, "do_sample": False}
        if dropout_seed is None:
            tokens = model.generate(pixels.to(device), prompt, **options)
        else:
            torch.manual_seed(dropout_seed)
            with _training_mode(model, self.drop_path):
                tokens = model.generate(pixels.to(device), prompt, **options)
        # Behind the token that begins every caption, which not every tokenizer knows.
        captions = [
            text[len(_PROMPT) :] for text in self.tokenizer.batch_decode(tokens[:, 1:], skip_special_tokens=True)
        ]
        return captions if dropout_seed is not None else [caption.strip() for caption in captions]


@contextmanager
def _training_mode(model: BlipForConditionalGeneration, drop_path: float) -> Iterator[None]:
    """Dropout in the text decoder and, as transformers' vision transformer has none, stochastic depth by hooks."""
    layers = model.vision_model.encoder.layers
    rates = torch.linspace(0, drop_path, len(layers)).tolist()
    hooks = [
        part.register_forward_hook(_dropping(rate))
        for layer, rate in zip(layers, rates, strict=True)
        for part in (layer.self_attn, layer.mlp)
        if rate
    ]
    model.train()
    try:
        yield
    finally:
        model.eval()
        for hook in hooks:
            hook.remove()


def _dropping(rate: float) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that leaves a residual branch out for some samples of a batch, and scales it up for the others."""

    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        branch: Tensor = output[0] if isinstance(output, tuple) else output
        kept = (torch.rand(len(branch), 1, 1, device=branch.device) >= rate) / (1 - rate)
        return (branch * kept, *output[1:]) if isinstance(output, tuple) else branch * kept

    return hook


# Salesforce's names, as patterns, and transformers'.
_NAMES = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.", "vision_model.encoder.layers."),
    (r"(layers\.\d+)\.attn\.proj\.", r"\1.self_attn.projection."),
    (r"(layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"(layers\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
)


def load_salesforce(path: Path) -> BlipForConditionalGeneration:
    """Reads a captioning model as Salesforce published it, such as model_base_caption_capfilt_large.pth, of any size.

    Raises:
        LegoError: The file holds something else.
    """
    tensors = {}
    for name, value in read_tensors(path).items():
        for pattern, ours in _NAMES:
            name = re.sub(pattern, ours, name)
        tensors[name] = value
    shape = {
        key: tuple(tensors[name].shape) if name in tensors else ()
        for key, name in (
            ("patch", "vision_model.embeddings.patch_embedding.weight"),
            ("places", "vision_model.embeddings.position_embedding"),
            ("fc1", "vision_model.encoder.layers.0.mlp.fc1.weight"),
            ("words", "text_decoder.bert.embeddings.word_embeddings.weight"),
            ("positions", "text_decoder.bert.embeddings.position_embeddings.weight"),
            ("intermediate", "text_decoder.bert.encoder.layer.0.intermediate.dense.weight"),
        )
    }
    if not all(shape.values()):
        raise LegoError(f"{path} is no captioning model of BLIP; fetch it again")
    side = int((shape["places"][1] - 1) ** 0.5)
    vision = BlipVisionConfig(
        hidden_size=shape["patch"][0], patch_size=shape["patch"][2], image_size=side * shape["patch"][2],
        intermediate_size=shape["fc1"][0], num_attention_heads=shape["patch"][0] // 64,
        num_hidden_layers=_count(tensors, "vision_model.encoder.layers."), layer_norm_eps=1e-6,
    )  # fmt: skip
    text = BlipTextConfig(
        vocab_size=shape["words"][0], hidden_size=shape["words"][1], encoder_hidden_size=shape["patch"][0],
        intermediate_size=shape["intermediate"][0], num_attention_heads=shape["words"][1] // 64,
        num_hidden_layers=_count(tensors, "text_decoder.bert.encoder.layer."),
        max_position_embeddings=shape["positions"][0],
    )  # fmt: skip
    model = BlipForConditionalGeneration(BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
    load_into(model, tensors, path)
    return model.eval()


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)})
