"""The VLLM at work: from a frame and a query to the description and the embeddings the U-Net is conditioned on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from lego_core.config import Fidelity
from lego_core.prompts import build_prompt, encode_prompt
from torch import Tensor
from transformers import DynamicCache

from lego_model.checkpoint import LegoCheckpoint

# From the logits (words,) of the next token to its id.
Choice = Callable[[Tensor], int]


@dataclass(frozen=True)
class Description:
    """What the VLLM says and feels about one query.

    Attributes:
        text: One sentence.
        image_embeddings: The projector's output, (M, D).
        text_states: The last layer's states, one per token including the end token, (T, D) (lego-reference C7).
    """

    text: str
    image_embeddings: Tensor
    text_states: Tensor


@torch.inference_mode()
def embed_image(checkpoint: LegoCheckpoint, vision_pixels: Tensor) -> Tensor:
    """Returns the projector's output (B, M, D) for prepared pictures (B, 3, V, V)."""
    return torch.stack(list(checkpoint.vllm.model.get_image_features(pixel_values=vision_pixels).pooler_output))


def describe(
    checkpoint: LegoCheckpoint, image_embeddings: Tensor, query: str, fidelity: Fidelity = "default"
) -> Description:
    """Writes the description greedily.

    Args:
        checkpoint: The model.
        image_embeddings: Of the frame asked about, (M, D).
        query: What the wearer asked.
        fidelity: How the query is understood; see `lego_core.prompts.action_from_query`.

    Raises:
        LegoError: The query names no action.
    """
    prompt = build_prompt(checkpoint.config, query, fidelity)
    return write(checkpoint, image_embeddings, prompt, most_likely, checkpoint.config.max_description_tokens)


@torch.inference_mode()
def write(
    checkpoint: LegoCheckpoint, image_embeddings: Tensor, prompt: str, choose: Choice, max_tokens: int
) -> Description:
    """Writes what follows a whole prompt, token by token, until the end token or `max_tokens`."""
    ids, states = [], []
    end = checkpoint.vllm.config.text_config.eos_token_id
    for token, state in _tokens(
        checkpoint, prompt_embeddings(checkpoint, image_embeddings, prompt), choose, max_tokens
    ):
        states.append(state)
        if token == end:
            break
        ids.append(token)
    text = checkpoint.vllm_tokenizer.decode(ids, skip_special_tokens=True).strip()
    return Description(text, image_embeddings, torch.stack(states))


@torch.inference_mode()
def states_of(
    checkpoint: LegoCheckpoint, image_embeddings: Tensor, query: str, description: str, fidelity: Fidelity = "default"
) -> Description:
    """Reads a given description through the VLLM (teacher forcing) and returns its states as if it had written it."""
    prompt = prompt_embeddings(checkpoint, image_embeddings, build_prompt(checkpoint.config, query, fidelity))
    ids = checkpoint.vllm_tokenizer.encode(description, add_special_tokens=False).ids
    ids = ids[: checkpoint.config.max_description_tokens - 1]
    answer = checkpoint.vllm.get_input_embeddings()(torch.tensor([ids], dtype=torch.long, device=prompt.device))
    hidden = checkpoint.vllm.model.language_model(inputs_embeds=torch.cat([prompt, answer], dim=1)).last_hidden_state[0]
    return Description(description, image_embeddings, hidden[prompt.shape[1] - 1 :])


def prompt_embeddings(checkpoint: LegoCheckpoint, image_embeddings: Tensor, prompt: str) -> Tensor:
    """Returns a whole prompt as the language model reads it, image tokens in place, (1, T, D)."""
    bos = checkpoint.vllm.config.text_config.bos_token_id
    before, after = encode_prompt(checkpoint.vllm_tokenizer, prompt, bos)
    embed = checkpoint.vllm.get_input_embeddings()
    # The type is stated for the side that may be empty.
    ids_before, ids_after = (
        torch.tensor(ids, dtype=torch.long, device=image_embeddings.device) for ids in (before, after)
    )
    return torch.cat([embed(ids_before), image_embeddings, embed(ids_after)])[None]


def most_likely(logits: Tensor) -> int:
    """Chooses the next token greedily."""
    return int(logits.argmax())


def sampled(seed: int, temperature: float = 0.2, top_k: int = 50) -> Choice:
    """Returns a choice that samples as the original does when it makes its features (lego-reference C6).

    Args:
        seed: Of the choices of one description, whatever else is written before or beside it.
        temperature: Divides the logits.
        top_k: Only so many of the likeliest tokens are drawn from.
    """
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> int:
        likeliest, tokens = (logits.float().cpu() / temperature).topk(min(top_k, len(logits)))
        return int(tokens[torch.multinomial(likeliest.softmax(-1), 1, generator=generator)])

    return choose


def _tokens(
    checkpoint: LegoCheckpoint, prompt: Tensor, choose: Choice, max_tokens: int
) -> Iterator[tuple[int, Tensor]]:
    """Yields (next token, the state (D,) that predicted it)."""
    vllm = checkpoint.vllm
    cache = DynamicCache()
    inputs = prompt
    for _ in range(max_tokens):
        output = vllm.model.language_model(inputs_embeds=inputs, cache=cache, use_cache=True)
        state = output.last_hidden_state[0, -1]
        token = choose(vllm.lm_head(state))
        yield token, state
        inputs = vllm.get_input_embeddings()(torch.tensor([[token]], device=prompt.device))
