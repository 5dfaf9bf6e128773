"""The metrics' networks in miniature with random weights, in the files and folders that the real ones come in."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    DistilBertConfig,
    DistilBertModel,
)

WORDS = [
    "a", "picture", "of", "the", "left", "right", "hand", "opens", "drawer", "open", "turn", "on", "tap", "cut",
    "tomato", "kettle", "red", "blue", "kitchen",
]  # fmt: skip
WIDTH = 64  # of everything: one head of 64, as the readers expect
BERT_WORDS = 30524  # BLIP's special tokens have the numbers that they have


def write_all(folder: Path) -> None:
    """Writes every weight set of the metrics below a folder."""
    torch.manual_seed(0)
    write_clip(folder / "clip-vit-large-patch14")
    write_egovlp(folder / "egovlp" / "pretrained" / "egovlp.pth", frames=16)
    write_egovlp(folder / "egovlp" / "pretrained" / "epic_mir_plus.pth", frames=16)
    # As in the paper's bundle, which holds a cache of the hub's client.
    inside = folder / "egovlp" / "pretrained" / "distilbert-base-uncased" / "models--distilbert" / "snapshots" / "1"
    write_bert_tokenizer(inside)
    write_bert_tokenizer(folder / "bert-base-uncased")
    write_blip(folder / "blip-image-captioning-base")
    write_blip(folder / "blip-image-captioning-large")
    write_inception(folder / "pt_inception-2015-12-05-6726825d.pth")
    write_backbones(folder)


def write_tokenizer(folder: Path, vocabulary: dict[str, int], **special: str) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    from tokenizers.processors import TemplateProcessing

    first, last = special.get("cls_token", special.get("bos_token")), special.get("sep_token", special.get("eos_token"))
    assert first and last
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_bert_tokenizer(folder: Path) -> None:
    vocabulary = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102}
    vocabulary |= {word: 1000 + number for number, word in enumerate(WORDS)}
    write_tokenizer(folder, vocabulary, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")


def write_clip(folder: Path) -> None:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {word: 3 + number for number, word in enumerate(WORDS)}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **shape, "vocab_size": len(vocabulary), "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2,
            "pad_token_id": 2,
        },
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    model = CLIPModel(config)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    write_tokenizer(
        folder, vocabulary, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )  # fmt: skip


def egovlp_tensors(frames: int) -> dict[str, torch.Tensor]:
    """Random weights under the names of a released EgoVLP checkpoint, without "module."."""
    generator = torch.Generator().manual_seed(frames)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    video = {
        "cls_token": random(1, 1, WIDTH), "pos_embed": random(1, 5, WIDTH), "temporal_embed": random(1, frames, WIDTH),
        "patch_embed.proj.weight": random(WIDTH, 3, 16, 16), "patch_embed.proj.bias": random(WIDTH),
        "norm.weight": 1 + random(WIDTH), "norm.bias": random(WIDTH),
    }  # fmt: skip
    for block in range(2):
        for norm in ("norm1", "norm2", "norm3"):
            video |= {f"blocks.{block}.{norm}.weight": 1 + random(WIDTH), f"blocks.{block}.{norm}.bias": random(WIDTH)}
        for name, rows, columns in (
            ("attn.qkv", 3 * WIDTH, WIDTH), ("attn.proj", WIDTH, WIDTH), ("timeattn.qkv", 3 * WIDTH, WIDTH),
            ("timeattn.proj", WIDTH, WIDTH), ("mlp.fc1", 4 * WIDTH, WIDTH), ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):  # fmt: skip
            video |= {
                f"blocks.{block}.{name}.weight": random(rows, columns),
                f"blocks.{block}.{name}.bias": random(rows),
            }
    torch.manual_seed(frames)
    text = DistilBertModel(distilbert_config()).state_dict()
    return {
        **{f"video_model.{name}": value for name, value in video.items()},
        **{f"text_model.{name}": value for name, value in text.items()},
        "text_model.embeddings.position_ids": torch.arange(24)[None],  # older versions of transformers stored it
        "vid_proj.0.weight": random(16, WIDTH), "vid_proj.0.bias": random(16),
        "txt_proj.1.weight": random(16, WIDTH), "txt_proj.1.bias": random(16),
    }  # fmt: skip


def distilbert_config() -> DistilBertConfig:
    return DistilBertConfig(
        vocab_size=1200, dim=WIDTH, hidden_dim=96, n_layers=1, n_heads=1, max_position_embeddings=24
    )  # fmt: skip


def write_egovlp(path: Path, frames: int) -> None:
    """Writes a checkpoint as EgoVLP's trainer does: with its configuration, an object of a class of its own."""
    module = types.ModuleType("parse_config")

    class ConfigParser:
        def __init__(self) -> None:
            self.config = {"arch": "FrozenInTime"}
            self.save_dir = Path("results")

    ConfigParser.__module__, ConfigParser.__qualname__ = "parse_config", "ConfigParser"
    module.ConfigParser = ConfigParser  # type: ignore[attr-defined]
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"module.{name}": value for name, value in egovlp_tensors(frames).items()}
    sys.modules["parse_config"] = module
    try:
        torch.save({"epoch": 1, "state_dict": state, "config": ConfigParser()}, path)
    finally:
        del sys.modules["parse_config"]


def blip_config() -> BlipConfig:
    return BlipConfig(
        text_config={
            "vocab_size": BERT_WORDS, "hidden_size": WIDTH, "encoder_hidden_size": WIDTH, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 1, "max_position_embeddings": 32,
        },
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 1,
            "image_size": 32, "patch_size": 16, "layer_norm_eps": 1e-6,
        },
    )  # fmt: skip


def new_blip() -> BlipForConditionalGeneration:
    """A BLIP whose captions are words of `WORDS`: its last bias favours them."""
    model = BlipForConditionalGeneration(blip_config())
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
        for parameter in model.text_decoder.parameters():
            parameter.mul_(6)
        bias = torch.full((BERT_WORDS,), -1e4)
        bias[[102, *range(1000, 1000 + len(WORDS))]] = 0
        model.text_decoder.cls.predictions.bias.copy_(bias)
    return model.eval()


def write_blip(folder: Path) -> None:
    new_blip().save_pretrained(folder)
    write_bert_tokenizer(folder)


def write_inception(path: Path) -> None:
    """Writes Inception v3 of random weights under the names of pytorch-fid's file."""
    import torchvision

    with torch.device("meta"):
        network = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False, weights=None)
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, torch.nn.Conv2d):  # so that signals neither fade nor grow from layer to layer
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), path)


def write_backbones(folder: Path) -> None:
    """Writes torchvision's networks of LPIPS without their classifiers."""
    import torchvision

    for name, file in (
        ("alexnet", "alexnet-owt-7be5be79.pth"), ("vgg16", "vgg16-397923af.pth"),
        ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
    ):  # fmt: skip
        with torch.device("meta"):  # the classifiers would take long to fill, and nobody reads them
            features = getattr(torchvision.models, name)(weights=None).features
        features.to_empty(device="cpu")
        for layer in features.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.reset_parameters()
        torch.save({f"features.{key}": value for key, value in features.state_dict().items()}, folder / file)


class Harmful:
    """Calls a function when it is unpickled in the usual way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call
