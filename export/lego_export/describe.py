"""What a model costs: parameters, memory, and arithmetic per guidance frame, worked out without its weights.

Everything is computed on the meta device, where tensors have shapes and no memory, so a 13-billion-parameter model is
described on a laptop in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_model.create import Parts
from lego_model.skeleton import Skeleton
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

# Guidance evaluates the U-Net with all conditions, with the frame alone, and with none.
BRANCHES = 3
BYTES_PER_WEIGHT = {"fp32": 4, "fp16": 2, "int8": 1}
# Keys of a released file beside the networks' (lego-reference A2): the diffusion schedule's buffers of 1,000 float32,
# the averaged U-Net's decay and count, and CLIP's 77 int64 position ids.
_SCHEDULE_BUFFERS, _SCHEDULE_STEPS, _AVERAGE_SCALARS, _POSITION_BYTES = 12, 1000, 2, 8
# Text is longer than it is token-wise: English takes about four characters a token.
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Part:
    """One network.

    Attributes:
        name: As in a checkpoint directory; the VLLM's three networks apart.
        tensors: Number of weight tensors.
        parameters: Number of weights.
        memory: Bytes of the weights alone, by precision.
    """

    name: str
    tensors: int
    parameters: int
    memory: dict[str, int]


@dataclass(frozen=True)
class Work:
    """One part of making a guidance frame; a multiply-add counts as two floating-point operations.

    Attributes:
        name: What is done.
        calls: How often per guidance frame.
        flops: Operations of all calls together.
    """

    name: str
    calls: int
    flops: int


@dataclass(frozen=True)
class OriginalFile:
    """The file that the original code would save of this diffusion model: float32, with an averaged U-Net."""

    tensors: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """What a model is and costs.

    Attributes:
        model: Its name.
        parts: Every network.
        work: What one guidance frame takes at the model's own sampling defaults.
        prompt_tokens: Tokens the VLLM reads: the image's and about as many as the prompt's words take.
        description_tokens: Tokens it writes, at most.
        original_file: See there.
    """

    model: str
    parts: list[Part]
    work: list[Work]
    prompt_tokens: int
    description_tokens: int
    original_file: OriginalFile

    @property
    def total(self) -> Part:
        """All networks together."""
        memory = {name: sum(part.memory[name] for part in self.parts) for name in BYTES_PER_WEIGHT}
        tensors, parameters = (sum(getattr(part, name) for part in self.parts) for name in ("tensors", "parameters"))
        return Part("total", tensors, parameters, memory)

    @property
    def flops(self) -> int:
        """Operations per guidance frame."""
        return sum(each.flops for each in self.work)

    def save(self, path: Path) -> None:
        """Writes all of it as JSON."""
        values = {**asdict(self), "total": asdict(self.total), "flops": self.flops}
        path.write_text(json.dumps(values, indent=2) + "\n")


def describe_model(skeleton: Skeleton) -> Cost:
    """Works out a model's cost on the meta device.

    Raises:
        LegoError: Its sizes do not fit each other.
    """
    config, parts = skeleton.config, skeleton.parts
    networks = {
        "unet": parts.unet,
        "vae": parts.vae,
        "text_encoder": parts.text_encoder,
        "conditioner": parts.conditioner,
        "vllm vision tower": parts.vllm.model.vision_tower,
        "vllm projector": parts.vllm.model.multi_modal_projector,
        "vllm language model": nn.ModuleList([parts.vllm.model.language_model, parts.vllm.lm_head]),
    }
    prompt = config.prompt_template.replace("{query}", config.query_template).replace("<image>", "")
    prompt_tokens = config.image_tokens + ceil(len(prompt) / _CHARACTERS_PER_TOKEN)
    try:
        with torch.device("meta"), torch.no_grad():
            work = list(_work(config, parts, prompt_tokens))
    except Exception as error:  # torch and the libraries raise many types on sizes that do not fit each other
        why = str(error) or type(error).__name__
        raise LegoError(f"{config.name} cannot run, its sizes do not fit each other ({why}); correct them") from error
    return Cost(
        model=config.name,
        parts=[_part(name, network) for name, network in networks.items()],
        work=work,
        prompt_tokens=prompt_tokens,
        description_tokens=config.max_description_tokens,
        original_file=_original_file(parts),
    )


def _part(name: str, network: nn.Module) -> Part:
    count = sum(parameter.numel() for parameter in network.parameters())
    memory = {precision: size * count for precision, size in BYTES_PER_WEIGHT.items()}
    return Part(name, len(list(network.parameters())), count, memory)


def _work(config: LegoConfig, parts: Parts, prompt_tokens: int) -> Iterator[Work]:
    """Yields what is done for one frame, in order, each with its operations."""
    side = config.resolution // 2 ** (len(parts.vae.config.block_out_channels) - 1)
    channels = parts.vae.config.latent_channels
    pixels = torch.empty(1, 3, config.resolution, config.resolution)
    latent = torch.empty(1, channels, side, side)
    vision = torch.empty(1, 3, config.vision.size, config.vision.size)
    width = parts.conditioner.config.vllm_width
    ids = torch.empty(1, config.text_tokens, dtype=torch.long)
    hidden = torch.empty(1, config.text_tokens, parts.conditioner.config.context_width)
    image, states = torch.empty(1, config.image_tokens, width), torch.empty(1, config.text_tokens, width)
    context = torch.empty(1, 2 * config.text_tokens + config.image_tokens, hidden.shape[-1])
    noisy, timestep = torch.empty(1, 2 * channels, side, side), torch.empty(1)
    evaluations = BRANCHES * config.guidance.steps
    tokens = config.max_description_tokens
    yield Work("encode the frame (VAE)", 1, _flops(lambda: parts.vae.encode(pixels)))
    yield Work("see the frame (VLLM)", 1, _flops(lambda: parts.vllm.model.get_image_features(pixel_values=vision)))
    yield Work("read the prompt (VLLM)", 1, _decoder_flops(parts, 0, prompt_tokens))
    # Attention's share grows by the same amount with each token, so the mean of first and last is the mean of all.
    first, last = (_decoder_flops(parts, past, 1) for past in (prompt_tokens, prompt_tokens + max(0, tokens - 2)))
    yield Work("write the description (VLLM)", tokens - 1, (tokens - 1) * (first + last) // 2)
    yield Work("encode the description (CLIP)", 1, _flops(lambda: parts.text_encoder(ids)))
    yield Work("build the context (σ, μ, π)", 1, _flops(lambda: parts.conditioner(hidden, image, states)))
    yield Work("denoise (U-Net)", evaluations, evaluations * _flops(lambda: parts.unet(noisy, timestep, context)))
    yield Work("decode the picture (VAE)", 1, _flops(lambda: parts.vae.decode(latent)))


def _decoder_flops(parts: Parts, past: int, tokens: int) -> int:
    """Operations of the language model over `tokens` more tokens after `past`, with the next token's logits."""
    language = parts.vllm.config.text_config
    cache = DynamicCache()
    shape = (1, language.num_key_value_heads, past, language.hidden_size // language.num_attention_heads)
    for layer in range(language.num_hidden_layers if past else 0):
        cache.update(torch.empty(shape), torch.empty(shape), layer)
    words = torch.empty(1, tokens, language.hidden_size)

    def run() -> Tensor:
        output = parts.vllm.model.language_model(inputs_embeds=words, cache=cache, use_cache=True)
        return parts.vllm.lm_head(output.last_hidden_state[:, -1:])

    return _flops(run)


def _flops(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _original_file(parts: Parts) -> OriginalFile:
    unet, vae, text, conditioner = (
        _part(name, getattr(parts, name)) for name in ("unet", "vae", "text_encoder", "conditioner")
    )
    once = [vae, text, conditioner]
    scalars = _SCHEDULE_BUFFERS * _SCHEDULE_STEPS + _AVERAGE_SCALARS
    weights = 2 * unet.parameters + sum(part.parameters for part in once)
    positions = parts.text_encoder.config.max_position_embeddings
    return OriginalFile(
        tensors=2 * unet.tensors + sum(part.tensors for part in once) + _SCHEDULE_BUFFERS + _AVERAGE_SCALARS + 1,
        bytes=4 * (weights + scalars) + _POSITION_BYTES * positions,
    )
