"""The shapes a server asks each graph for, as TensorRT wants them told before it builds.

TensorRT tunes a plan for one size of every dynamic dimension and accepts others between two bounds. The bounds here
cover every limit of `Limits`, so that no query a server takes falls outside; the usual sizes are those of one
query at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from lego_core.config import whole_number_in_range
from lego_core.manifest import CACHE_GRAPH, Manifest
from lego_core.plans import Profile, Range

from lego_server.config import EngineSettings, Limits

_BRANCHES = 3  # one evaluation of dual guidance asks for up to three
_TEMPLATE_TOKENS = 128  # the prompt's own words around query and image


@dataclass(frozen=True)
class Sizes:
    """How large a server's calls may become.

    Attributes:
        batch: Queries in one engine call, `EngineSettings.max_batch`.
        query_tokens: Longest query. A token is one character at least.
        description_tokens: Longest description, the model's own or a given one.
    """

    batch: int = EngineSettings.max_batch
    query_tokens: int = Limits.max_query_characters
    description_tokens: int = Limits.max_description_characters

    def __post_init__(self) -> None:
        for name, high in (("batch", 256), ("query_tokens", 100_000), ("description_tokens", 100_000)):
            whole_number_in_range(name, getattr(self, name), 1, high)


def serving_profiles(graph: str, manifest: Manifest, sizes: Sizes) -> tuple[Profile, ...]:
    """Returns the optimisation profiles of a graph, over the dynamic dimensions that `lego-export build` names.

    The decoder gets two: reading a frame, many tokens after none, and writing, one token after many. Kernels that are
    best for one are far from it for the other. The question, some tokens after many, goes with the second.
    """
    lego = manifest.lego
    batch = Range(1, 1, sizes.batch)
    longest_prompt = lego.image_tokens + sizes.query_tokens + _TEMPLATE_TOKENS
    usual_prompt = min(lego.image_tokens + 32, longest_prompt)
    description = max(sizes.description_tokens, lego.max_description_tokens)
    most_after = max(description, sizes.query_tokens + _TEMPLATE_TOKENS)
    if graph == "decoder":
        usual_past = usual_prompt + lego.max_description_tokens // 2
        return (
            _decoding("prefill", Range(1, 1, 1), Range(1, usual_prompt, longest_prompt), Range(0, 0, 0)),
            _decoding("step", batch, Range(1, 1, most_after), Range(1, usual_past, longest_prompt + description)),
        )
    if graph == "token_embedding":
        return (Profile("tokens", {"batch": batch, "tokens": Range(1, 1, max(longest_prompt, description))}),)
    if graph in ("unet", CACHE_GRAPH):
        return (Profile("branches", {"batch": Range(1, _BRANCHES, _BRANCHES * sizes.batch)}),)
    return (Profile("queries", {"batch": batch}),)


def _decoding(name: str, batch: Range, tokens: Range, past: Range) -> Profile:
    # TensorRT sets the bounds of all inputs at once, so at each bound the mask is as long as what it masks.
    total = Range(past.min + tokens.min, past.opt + tokens.opt, past.max + tokens.max)
    return Profile(name, {"batch": batch, "tokens": tokens, "past": past, "total": total})
