"""What a curation will cost, before a request is made, and what it has cost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lego_training.curate.endpoint import Reply

# A sentence of 40 words, generously.
_ANSWER_TOKENS = 60
_MESSAGE_TOKENS = 4  # what chat templates add to a message


@dataclass(frozen=True)
class Price:
    """In US dollars for a million tokens."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Returns US dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class Usage:
    """Tokens of some requests.

    Attributes:
        requests: How many.
        prompt_tokens: Sent.
        completion_tokens: Answered.
        uncounted: Requests whose tokens the endpoint does not tell; they are not in the counts.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int = 0

    @staticmethod
    def of(replies: Iterable[Reply]) -> Usage:
        """Adds up what an endpoint counted."""
        known = unknown = prompt = completion = 0
        for reply in replies:
            if reply.prompt_tokens is None or reply.completion_tokens is None:
                unknown += 1
                continue
            known, prompt, completion = known + 1, prompt + reply.prompt_tokens, completion + reply.completion_tokens
        return Usage(known + unknown, prompt, completion, unknown)


def estimate(bodies: Iterable[dict[str, Any]]) -> Usage:
    """Returns what requests will use, each answered once with one sentence.

    Tokens are counted without the model's tokenizer: a word of up to 8 letters, three digits or a sign is one. Of our
    own prompts that is 7 % fewer than OpenAI's cl100k_base and o200k_base count; other models' tokenizers differ more.
    """
    requests = prompt = 0
    for body in bodies:
        requests += 1
        prompt += sum(_MESSAGE_TOKENS + count_tokens(message["content"]) for message in body["messages"])
    return Usage(requests, prompt, requests * _ANSWER_TOKENS)


def count_tokens(text: str) -> int:
    """Returns about how many tokens a text has; see `estimate`."""
    return len(re.findall(r"[^\W\d_]{1,8}|\d{1,3}|[^\w\s]|_", text))
