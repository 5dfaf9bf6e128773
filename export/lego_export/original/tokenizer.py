"""Other libraries' tokenizer files as one tokenizer.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lego_core.errors import LegoError
from lego_model.checkpoint import load_tokenizer
from tokenizers import Tokenizer
from transformers import CLIPTokenizer, LlamaTokenizer


def clip_tokenizer(folder: Path) -> Tokenizer:
    """Reads CLIP's tokenizer: tokenizer.json, or vocab.json and merges.txt.

    Raises:
        LegoError: It is not there, or damaged.
    """
    return _read(folder, CLIPTokenizer, ("vocab.json", "merges.txt"))


def llama_tokenizer(folder: Path) -> Tokenizer:
    """Reads LLaMA's tokenizer: tokenizer.json, or SentencePiece's tokenizer.model.

    Raises:
        LegoError: It is not there, or damaged.
    """
    return _read(folder, LlamaTokenizer, ("tokenizer.model",))


def _read(folder: Path, kind: Any, files: tuple[str, ...]) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return load_tokenizer(folder)
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise LegoError(f"{folder} has neither tokenizer.json nor {' and '.join(files)}; download them too")
    try:
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
        return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    except Exception as error:  # transformers raises many types
        raise LegoError(f"the tokenizer of {folder} cannot be read ({error}); restore it") from error
