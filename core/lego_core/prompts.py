"""From what a wearer says to the token ids the VLLM reads."""

from __future__ import annotations

import re

from tokenizers import Tokenizer

from lego_core.config import Fidelity, LegoConfig
from lego_core.errors import LegoError, quoted

# The conversation template `llava_llama_2` of LLaVA, up to where the answer begins; the system message is a constant of
# the released models and must match (lego-reference C2). The tokenizer's BOS comes before it.
LLAVA_LLAMA_2 = (
    "[INST] <<SYS>>\n"
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.\n"
    "<</SYS>>\n\n"
    "<image>\n{query} [/INST]"
)
# The template `vicuna_v1` that LLaVA-1.5 was tuned with (`--version v1` in its authors' scripts). Their `llava_v1` says
# "human" for "user" and is not what the weights have read.
VICUNA_V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: <image>\n{query} ASSISTANT:"
)
# The one query template of the original code (lego-reference C3), and so the default of `LegoConfig`.
LEGO_QUERY = LegoConfig.query_template

# The ways people open such a question. What follows is the action.
_QUESTION_OPENINGS = re.compile(
    r"^(?:(?:hey|hi|ok|okay|please|so|now|um|uh)[,\s]+)*"
    r"(?:(?:can|could|would) you (?:please )?)?"
    r"(?:(?:show|tell|teach|explain|help)(?: to)?(?: me| us)?(?:,)?\s+)?"
    r"(?:(?:what(?:'s| is) the (?:right |proper |best |correct )?way to|"
    r"how (?:do|does|can|should|would|could|must) (?:i|you|we|one|somebody|someone|the person)(?: properly)?|"
    r"how to(?: properly)?|i (?:want|need|would like) to|i'd like to|what do i do to|where do i)\s+)?",
    re.IGNORECASE,
)
_DETERMINERS = re.compile(r"\b(?:the|this|that|these|those|my|a|an|some)\s+", re.IGNORECASE)


def action_from_query(query: str, fidelity: Fidelity = "default") -> str:
    """Returns the action a query asks about: "How do I open the left drawer?" gives "open left drawer".

    Most training labels carry no articles, so they are dropped here too. A query that is not a question comes back
    as it is, tidied.

    Args:
        query: What the wearer says.
        fidelity: "original" keeps the articles: the original puts a label into its question as it is, and the labels
            of Ego4D have them.

    Raises:
        LegoError: Nothing is left to look for.
    """
    # Phones write typographic apostrophes.
    text = " ".join(query.replace("’", "'").split()).strip(" ?!.,;:\"'")
    # The space lets an opening, or an article, be recognised where nothing follows it.
    action = _QUESTION_OPENINGS.sub("", f"{text} ", count=1)
    bare = _DETERMINERS.sub("", action).strip()
    action = action.strip() if fidelity == "original" else bare
    if not bare:
        raise LegoError(f"the query {quoted(query)} names no action; ask for example 'how do I open the drawer?'")
    return action[0].lower() + action[1:]


def build_prompt(config: LegoConfig, query: str, fidelity: Fidelity = "default") -> str:
    """Returns the full prompt for a wearer's query, with `<image>` where the image tokens go, and nowhere else.

    Raises:
        LegoError: The query names no action.
    """
    return action_prompt(config, action_from_query(_without_brackets(query), fidelity))


def action_prompt(config: LegoConfig, action: str) -> str:
    """Returns the full prompt for an action label, which goes into the model's question as it is."""
    question = config.query_template.replace("{action}", _without_brackets(action))
    return config.prompt_template.replace("{query}", question)


def _without_brackets(text: str) -> str:
    """Takes from a text what could pass for a marker or a special token of the model's."""
    return re.sub("[<>]", " ", text)


def encode_prompt(tokenizer: Tokenizer, prompt: str, bos_token_id: int) -> tuple[list[int], list[int]]:
    """Returns the token ids before and after the image tokens.

    The two sides are encoded apart, as the original LLaVA does, so no token can span the image.
    """
    before, after = prompt.split("<image>")
    ids_before = tokenizer.encode(before, add_special_tokens=False).ids if before else []
    ids_after = tokenizer.encode(after, add_special_tokens=False).ids
    return [bos_token_id, *ids_before], ids_after


def encode_description(tokenizer: Tokenizer, text: str, length: int, special: tuple[int, int, int]) -> list[int]:
    """Returns a description as CLIP reads it: beginning, tokens, end, padded to `length` ids.

    A longer description loses its tail, never the end token.

    Args:
        tokenizer: CLIP's.
        text: The description; "" for the null condition.
        length: N.
        special: (beginning, end, padding) ids.
    """
    beginning, end, padding = special
    ids = [beginning, *tokenizer.encode(text, add_special_tokens=False).ids[: length - 2], end]
    return ids + [padding] * (length - len(ids))
