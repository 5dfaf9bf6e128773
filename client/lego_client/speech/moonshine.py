"""Moonshine, a small recogniser of English for short commands (Jeffries et al. 2024, arXiv 2410.15608), on onnxruntime.

Its model is three files in one directory, as published: `encoder_model`, `decoder_model_merged` (.ort or .onnx) and
`tokenizer.bin` or `tokenizer.json`. The encoder reads raw samples; the decoder writes words, one token at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from lego_core.errors import LegoError
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lego_client.speech.audio import RATE

_BEGIN, _END = 1, 2
# Speech has at most so many tokens a second; a decoder that goes on has got into a loop (the paper, section 3.2).
_TOKENS_A_SECOND = 6.5
_LEAST_SAMPLES = RATE // 4  # the encoder's convolutions need about 0.1 s; shorter sounds are no words
_FILES = ("encoder_model", "decoder_model_merged")


class Moonshine:
    """Writes down what is said in a piece of audio.

    Args:
        directory: Where the model's three files are.
        threads: Threads of one inference; 0 lets the runtime choose.

    Raises:
        LegoError: A file is missing or is not what its name says.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._encoder, self._decoder = (_session(directory, name, options) for name in _FILES)
        self._vocabulary = _vocabulary(directory)
        self._encoder_inputs = {entry.name for entry in self._encoder.get_inputs()}
        self._decoder_inputs = {entry.name: entry for entry in self._decoder.get_inputs()}
        self._pasts = [name for name in self._decoder_inputs if name.startswith("past_key_values")]
        self._outputs = [entry.name for entry in self._decoder.get_outputs()]
        self.transcribe(np.zeros(RATE, np.float32))  # the first call pays for the runtime's memory

    def transcribe(self, samples: NDArray[np.float32]) -> tuple[str, float]:
        """Returns the words and how sure the model is of them.

        Args:
            samples: (N,) float32 in [-1, 1] at 16 kHz; at most about half a minute, what the model was trained on.

        Returns:
            The text as the model writes it, with capitals and punctuation, and the geometric mean of its tokens'
            probabilities, in [0, 1]. Empty and 0 where nothing was said.
        """
        if len(samples) < _LEAST_SAMPLES:
            samples = np.pad(samples, (0, _LEAST_SAMPLES - len(samples)))
        audio = samples[None].astype(np.float32)
        given = {"input_values": audio, "attention_mask": np.ones(audio.shape, np.int64)}
        states = self._encoder.run(None, {name: given[name] for name in self._encoder_inputs})[0]
        tokens, logs = self._decode(states, max(4, int(len(samples) / RATE * _TOKENS_A_SECOND)))
        text = self._vocabulary.decode(tokens)
        return text, float(np.exp(np.mean(logs))) if text else 0.0

    def _decode(self, states: NDArray[np.float32], most: int) -> tuple[list[int], list[float]]:
        """Returns the likeliest tokens one after the other, and the logarithm of each one's probability."""
        pasts = {name: self._nothing(name) for name in self._pasts}
        tokens, logs, token = [], [], _BEGIN
        for step in range(most):
            given = {
                "input_ids": np.array([[token]], np.int64), "encoder_hidden_states": states,
                "encoder_attention_mask": np.ones(states.shape[:2], np.int64),
                "use_cache_branch": np.array([step > 0]), **pasts,
            }  # fmt: skip
            values = self._decoder.run(None, {name: given[name] for name in self._decoder_inputs})
            results = dict(zip(self._outputs, values, strict=True))
            logits = results["logits"][0, -1].astype(np.float64)
            token = int(logits.argmax())
            logs.append(float(-np.log(np.exp(logits - logits[token]).sum())))
            if token == _END:
                break
            tokens.append(token)
            for name in self._pasts:
                # After the first step the graph returns no keys of the encoder's states again: they do not change.
                if step == 0 or ".decoder." in name:
                    pasts[name] = results[name.replace("past_key_values", "present")]
        return tokens, logs

    def _nothing(self, name: str) -> NDArray[np.float32]:
        _, heads, _, width = self._decoder_inputs[name].shape
        return np.zeros((1, heads, 0, width), np.float32)


class _PieceTable:
    """`tokenizer.bin`: every token's bytes, each after its length; a length over 127 takes two bytes."""

    def __init__(self, data: bytes) -> None:
        self._pieces: list[bytes] = []
        at = 0
        while at < len(data):
            size = data[at]
            at += 1
            if size >= 128:
                size = data[at] * 128 + size - 128
                at += 1
            self._pieces.append(data[at : at + size])
            at += size

    def decode(self, tokens: list[int]) -> str:
        pieces = (self._pieces[token] for token in tokens)
        joined = b"".join(piece for piece in pieces if not (piece.startswith(b"<") and piece.endswith(b">")))
        return joined.decode("utf-8", "replace").replace("▁", " ").strip()


class _JsonTokenizer:
    """`tokenizer.json`, as on the Hugging Face hub."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens)).strip()


def _vocabulary(directory: Path) -> _PieceTable | _JsonTokenizer:
    if (path := directory / "tokenizer.bin").is_file():
        return _PieceTable(path.read_bytes())
    if (path := directory / "tokenizer.json").is_file():
        return _JsonTokenizer(path)
    raise LegoError(f"{directory} has no tokenizer.bin or tokenizer.json; give the directory of a Moonshine model")


def _session(directory: Path, name: str, options: ort.SessionOptions) -> ort.InferenceSession:
    for suffix in (".ort", ".onnx"):
        if (path := directory / (name + suffix)).is_file():
            return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    raise LegoError(f"{directory} has no {name}.onnx or .ort; give the directory of a Moonshine model")
