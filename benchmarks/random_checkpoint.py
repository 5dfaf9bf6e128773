"""A checkpoint of any architecture with random weights: it costs what a trained one costs.

python -m benchmarks.random_checkpoint lego-sd15-llava7b checkpoints/random-7b --layers 8
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import EulerAncestralDiscreteScheduler
from lego_model.checkpoint import PARTS
from lego_model.create import build_parts, lego_config, read_shape, train_tokenizer
from lego_model.skeleton import find_architecture
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

SHARD_BYTES = 2**30


def main(
    architecture: Annotated[str, typer.Argument(help="An architecture's name or file.")],
    directory: Annotated[Path, typer.Argument(help="Checkpoint directory to make.")],
    layers: Annotated[int, typer.Option(help="Of the language model; 0 takes the architecture's.")] = 0,
) -> None:
    """Write a checkpoint of random weights in half precision."""
    shape = read_shape(find_architecture(Path(architecture)))
    if layers:
        shape["vllm"]["language"]["layers"] = layers
    with torch.device("meta"):
        parts = build_parts(shape, shape["vocabulary"])
    generator = torch.Generator().manual_seed(0)
    for name in track(PARTS, "writing"):
        _write(getattr(parts, name), directory / name, generator)
    EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=shape["prediction_type"]
    ).save_pretrained(directory / "scheduler")
    tokenizer = train_tokenizer(["The person opens the drawer with the right hand."], 300)
    for part in ("tokenizer", "vllm"):
        (directory / part).mkdir(exist_ok=True)
        tokenizer.save(str(directory / part / "tokenizer.json"))
    replace(lego_config(shape), notice="Its weights are random.").save(directory)


def _write(part: nn.Module, folder: Path, generator: torch.Generator) -> None:
    """Writes a network's configuration and its weights, in shards; in memory there is one shard at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = part.config if isinstance(part, PreTrainedModel) else part
    config.save_pretrained(folder) if isinstance(part, PreTrainedModel) else config.save_config(folder)
    stem = "model" if isinstance(part, PreTrainedModel) else "diffusion_pytorch_model"
    places: dict[str, int] = {}
    shard: dict[str, Tensor] = {}
    number = 1
    for name, outline in part.state_dict().items():
        if sum(weight.nbytes for weight in shard.values()) > SHARD_BYTES:
            _write_shard(shard, folder, stem, number)
            shard, number = {}, number + 1
        shard[name] = random_weight(name, outline, generator)
        places[name] = number
    _write_shard(shard, folder, stem, number)
    if number == 1:
        (folder / _shard(stem, 1)).rename(folder / f"{stem}.safetensors")
        return
    index = {"metadata": {}, "weight_map": {name: _shard(stem, place) for name, place in places.items()}}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def random_weight(name: str, outline: Tensor, generator: torch.Generator) -> Tensor:
    """Weights that keep activations near unit variance, as trained ones do."""
    if not outline.is_floating_point():
        return torch.arange(outline.numel()).reshape(outline.shape)  # position ids
    if outline.ndim < 2:
        return torch.full(outline.shape, float(name.endswith("weight")), dtype=torch.float16)  # norms and biases
    deviation = 0.02 if "embed" in name else 1 / math.sqrt(outline[0].numel())
    return (torch.randn(outline.shape, generator=generator, device=generator.device) * deviation).half()


def _write_shard(weights: Mapping[str, Tensor], folder: Path, stem: str, number: int) -> None:
    save_file(dict(weights), folder / _shard(stem, number), metadata={"format": "pt"})


def _shard(stem: str, number: int) -> str:
    return f"{stem}-{number:05}.safetensors"


if __name__ == "__main__":
    typer.run(main)
