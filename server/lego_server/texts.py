"""Text to token ids and back, with the two tokenizers of an engine directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lego_core.config import Fidelity
from lego_core.errors import LegoError
from lego_core.manifest import Manifest
from lego_core.prompts import build_prompt, encode_description, encode_prompt
from numpy.typing import NDArray
from tokenizers import Tokenizer

TEXT_TOKENIZER_FILE = "text_tokenizer.json"
VLLM_TOKENIZER_FILE = "vllm_tokenizer.json"


@dataclass(frozen=True)
class PromptTokens:
    """A prompt as the VLLM reads it: token ids before and after the image tokens."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class Texts:
    """Both tokenizers of a model, with the manners its manifest prescribes."""

    def __init__(self, manifest: Manifest, text_tokenizer: Tokenizer, vllm_tokenizer: Tokenizer) -> None:
        self._manifest = manifest
        self._text_tokenizer = text_tokenizer
        self._vllm_tokenizer = vllm_tokenizer
        # A tokenizer file may carry its own padding and truncation; lengths are set here, from the manifest.
        for tokenizer in (text_tokenizer, vllm_tokenizer):
            tokenizer.no_padding()
            tokenizer.no_truncation()

    @classmethod
    def load(cls, directory: Path, manifest: Manifest) -> Texts:
        """Reads the tokenizers of an engine directory.

        Raises:
            LegoError: A file is missing or is no tokenizer.
        """
        return cls(manifest, _load(directory / TEXT_TOKENIZER_FILE), _load(directory / VLLM_TOKENIZER_FILE))

    def clip_ids(self, description: str) -> NDArray[np.int64]:
        """Returns the description's (N,) ids for the CLIP text encoder.

        A longer description loses its tail, never the end token.
        """
        m = self._manifest
        special = (m.text_bos_token_id, m.text_eos_token_id, m.text_pad_token_id)
        return np.array(encode_description(self._text_tokenizer, description, m.lego.text_tokens, special), np.int64)

    def prompt(self, query: str, fidelity: Fidelity = "default") -> PromptTokens:
        """Returns the whole prompt for a wearer's query.

        Raises:
            LegoError: The query names no action.
        """
        prompt = build_prompt(self._manifest.lego, query, fidelity)
        before, after = encode_prompt(self._vllm_tokenizer, prompt, self._manifest.decoder.bos_token_id)
        return PromptTokens(tuple(before), tuple(after))

    def description_ids(self, description: str) -> list[int]:
        """Returns a given description's ids for the VLLM, no more than it would write itself before the end token."""
        ids = self._vllm_tokenizer.encode(description, add_special_tokens=False).ids
        return ids[: self._manifest.lego.max_description_tokens - 1]

    def description(self, ids: list[int]) -> str:
        """Returns the text of what the VLLM wrote, without special tokens, stripped."""
        return self._vllm_tokenizer.decode(ids, skip_special_tokens=True).strip()


def next_piece(text: str, sent: int) -> str:
    """Returns what may be shown of a description that is still being written.

    Args:
        text: The stripped description so far.
        sent: Characters of it already shown.

    Returns:
        The new characters, less an incomplete one at the end: a byte-level token may end inside a character.
    """
    return text[sent:].rstrip("\ufffd")


def _load(path: Path) -> Tokenizer:
    if not path.is_file():
        raise LegoError(f"{path.parent} lacks {path.name}: rebuild it with lego-export build")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise LegoError(f"{path} is no tokenizer ({error}): rebuild it with lego-export build") from error
