"""Moonshine, a recogniser of English made for short commands (Jeffries et al. 2024, arXiv 2410.15608), on onnxruntime.

A model is three files in one directory, as published: `encoder_model`, `decoder_model_merged` (.ort or .onnx) and
`tokenizer.bin` or `tokenizer.json`. The encoder reads raw samples; the decoder writes words, one token at a time.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lego_core.errors import LegoError
from lego_core.speech.audio import RATE, Samples
from lego_core.speech.recognise import Transcript
from lego_core.speech.widen import widened

_BEGIN, _END = 1, 2
# English has at most so many tokens a second; a decoder that writes more has got into a loop (section 3.2).
_TOKENS_A_SECOND = 6.5
_FEWEST_TOKENS = 4
_LEAST_SAMPLES = RATE // 4  # the convolutions need about 0.1 s; anything that short is no word
_HELPFUL_THREADS = 2
_FILES = ("encoder_model", "decoder_model_merged")


class Moonshine:
    """The model.

    Args:
        directory: Where its three files are.
        threads: Threads of one inference; 0 for two.

    Raises:
        LegoError: A file is missing or is not what its name says.
    """

    def __init__(self, directory: Path, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or _HELPFUL_THREADS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the wearer's other programs
        options.log_severity_level = 3
        self._vocabulary = _vocabulary(directory)
        self._encoder, self._decoder = (_session(directory, name, options) for name in _FILES)
        self._encoder_inputs = {entry.name for entry in self._encoder.get_inputs()}
        self._decoder_inputs = {entry.name: entry for entry in self._decoder.get_inputs()}
        self._pasts = [name for name in self._decoder_inputs if name.startswith("past_key_values")]
        self._outputs = [entry.name for entry in self._decoder.get_outputs()]
        try:  # the first call is slow, and shows whether the files fit together
            self.transcribe(np.zeros(RATE, np.float32))
        except Exception as error:  # onnxruntime's errors have no base class of their own
            raise LegoError(f"{directory} holds no Moonshine model that fits together ({error})") from error
        _give_memory_back()

    def transcribe(self, samples: Samples, stop: Callable[[], bool] = lambda: False) -> Transcript | None:
        """Returns what is said in a piece of sound.

        Args:
            samples: (N,) float32 in [-1, 1] at 16 kHz, at most half a minute, which is what it was trained on.
            stop: Asked before each token; None is returned once it says True.

        Returns:
            The text with capitals and punctuation, and the geometric mean of its tokens' probabilities.
        """
        audio = np.pad(samples, (0, max(0, _LEAST_SAMPLES - len(samples))))[None]
        given = {"input_values": audio, "attention_mask": np.ones(audio.shape, np.int64)}
        states = self._encoder.run(None, {name: given[name] for name in self._encoder_inputs})[0]
        tokens: list[int] = []
        logarithms: list[float] = []
        pasts = {name: self._nothing(name) for name in self._pasts}
        token = _BEGIN
        for step in range(max(_FEWEST_TOKENS, int(len(samples) / RATE * _TOKENS_A_SECOND))):
            if stop():
                return None
            given = {
                "input_ids": np.array([[token]], np.int64), "encoder_hidden_states": states,
                "encoder_attention_mask": np.ones(states.shape[:2], np.int64),
                "use_cache_branch": np.array([step > 0]), **pasts,
            }  # fmt: skip
            values = self._decoder.run(None, {name: given[name] for name in self._decoder_inputs})
            results = dict(zip(self._outputs, values, strict=True))
            logits = results["logits"][0, -1]
            token = int(logits.argmax())
            logarithms.append(-float(np.log(np.exp(logits - logits[token]).sum())))
            if token == _END:
                break
            tokens.append(token)
            for name in self._pasts:
                # The encoder's keys and values do not change; after the first step the graph returns empty ones.
                if step == 0 or ".decoder." in name:
                    pasts[name] = results[name.replace("past_key_values", "present")]
        text = self._vocabulary(tokens)
        return Transcript(text, float(np.exp(np.mean(logarithms))) if text else 0.0)

    def _nothing(self, name: str) -> NDArray[np.float32]:
        _, heads, _, width = self._decoder_inputs[name].shape
        return np.zeros((1, heads, 0, width), np.float32)


class MoonshineRecogniser:
    """A `Recogniser`. Moonshine has no memory from one piece to the next: each hypothesis reads all that was said.

    Args:
        name: What to call it.
        model: The model.
    """

    exact = True

    def __init__(self, name: str, model: Moonshine) -> None:
        self.name = name
        self._model = model
        self._heard: list[Samples] = []

    def start(self) -> None:
        """A new utterance begins."""
        self._heard = []

    def feed(self, samples: Samples) -> None:
        """Takes the next (N,) samples."""
        self._heard.append(samples)

    def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
        """Returns what was said so far, or None once `stop` says True."""
        heard = np.concatenate(self._heard) if self._heard else np.zeros(0, np.float32)
        return self._model.transcribe(heard, stop)

    def finish(self) -> Transcript:
        """Returns what was said."""
        transcript = self.hypothesis(lambda: False)
        assert transcript is not None  # nothing stopped it
        return transcript

    def drop(self) -> None:
        """Forgets what was heard."""
        self._heard = []

    def close(self) -> None:
        """Forgets what was heard."""
        self.drop()


def _give_memory_back() -> None:
    """Reading a model leaves more freed memory behind than it needs, which the C library of Linux would keep."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def _session(directory: Path, name: str, options: ort.SessionOptions) -> ort.InferenceSession:
    path = next((path for suffix in (".ort", ".onnx") if (path := directory / (name + suffix)).is_file()), None)
    if path is None:
        raise LegoError(f"{directory} has no {name}.onnx or {name}.ort; give the directory of a Moonshine model")
    try:
        source = widened(path) if path.suffix == ".ort" else str(path)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except LegoError:
        raise
    except Exception as error:  # onnxruntime's errors have no base class of their own
        raise LegoError(f"{path} is no model that onnxruntime reads ({error}); get the file again") from error


def _vocabulary(directory: Path) -> Callable[[list[int]], str]:
    """Returns what makes text of tokens."""
    if (path := directory / "tokenizer.json").is_file():
        try:
            from tokenizers import Tokenizer  # which the models that packages carry do without
        except ModuleNotFoundError as error:
            raise LegoError(f"{path} is read by the package tokenizers: pip install tokenizers") from error
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise LegoError(f"{path} is no tokenizer ({error}); get the file again") from error
        return lambda tokens: str(tokenizer.decode(tokens)).strip()
    if (path := directory / "tokenizer.bin").is_file():
        pieces = _pieces(path.read_bytes())
        return lambda tokens: _join(pieces, tokens)
    raise LegoError(f"{directory} has no tokenizer.bin or tokenizer.json; give the directory of a Moonshine model")


def _pieces(data: bytes) -> list[bytes]:
    """Reads `tokenizer.bin`: each token's bytes after their number, which takes a second byte from 128 on."""
    pieces, at = [], 0
    while at < len(data):
        size, at = data[at], at + 1
        if size >= 128 and at < len(data):
            size, at = size - 128 + 128 * data[at], at + 1
        pieces.append(data[at : at + size])
        at += size
    return pieces


def _join(pieces: list[bytes], tokens: list[int]) -> str:
    known = (pieces[token] for token in tokens if token < len(pieces))
    text = b"".join(piece for piece in known if not (piece.startswith(b"<") and piece.endswith(b">")))
    return text.decode("utf-8", "replace").replace("▁", " ").strip()
