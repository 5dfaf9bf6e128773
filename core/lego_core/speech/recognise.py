"""What was said: the interface of every recogniser, and which of them this machine has."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lego_core.errors import LegoError
from lego_core.speech.audio import Samples
from lego_core.speech.extra import needs_extra


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        text: As the recogniser writes it; empty where it understood nothing.
        confidence: How sure it is, in [0, 1]; None where it does not say. Recognisers differ in scale.
    """

    text: str
    confidence: float | None = None


class UtteranceLost(LegoError):
    """This utterance cannot be written down; the next one may."""


class Recogniser(Protocol):
    """Writes down one utterance after the other. Calls come one at a time, and may block their thread.

    Attributes:
        name: What to call it in messages and records.
        exact: Whether a hypothesis is of all that has been fed, so that `finish` would say nothing else.
    """

    name: str
    exact: bool

    def start(self) -> None:
        """A new utterance begins; whatever was fed before is forgotten."""
        ...

    def feed(self, samples: Samples) -> None:
        """Takes the next (N,) float32 samples in [-1, 1] at 16 kHz."""
        ...

    def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
        """Returns what was said so far.

        Args:
            stop: Asked now and then; once it says True the answer is no longer wanted, and None is returned.

        Raises:
            UtteranceLost: This utterance cannot be written down.
            LegoError: No other can be, either.
        """
        ...

    def finish(self) -> Transcript:
        """Returns what was said, now that the utterance is whole; raises as `hypothesis` does."""
        ...

    def drop(self) -> None:
        """Gives up the utterance: it is not to be written down."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


# Where the packages that carry a model keep it. They are looked into and never imported.
_MOONSHINE_PACKAGES = {
    "moonshine-base": ("moonshine_cpp", "models/base-en"),
    "moonshine-tiny": ("moonshine_voice", "assets/tiny-en"),
}
_POCKETSPHINX = "pocketsphinx"
RECOGNISERS = (*_MOONSHINE_PACKAGES, _POCKETSPHINX)  # the better first


def installed_recognisers() -> list[str]:
    """Returns the names of those that this machine has, the better first."""
    return [name for name in RECOGNISERS if _is_installed(name)]


def open_recogniser(
    name: str = "auto", model: Path | None = None, grammar: Path | None = None, threads: int = 0
) -> Recogniser:
    """Returns a recogniser, ready to listen. Loading takes seconds: call it in a thread from async code.

    Args:
        name: One of `RECOGNISERS`, or "auto" for the best that is installed.
        model: Directory of a Moonshine model of the user's own, which is taken instead.
        grammar: JSGF file of the only sentences there are, for pocketsphinx.
        threads: Threads of one inference; 0 for as many as help (two).

    Raises:
        LegoError: It is not installed, or a file of the user's is not what it should be.
    """
    if name not in ("auto", *RECOGNISERS):
        raise LegoError(f"the recogniser is {name!r}; choose auto, {', '.join(RECOGNISERS)}")
    if grammar is not None and name not in ("auto", _POCKETSPHINX):
        raise LegoError(f"a grammar is for pocketsphinx; {name} knows all words by itself")
    if model is not None and (grammar is not None or name == _POCKETSPHINX):
        raise LegoError("a model directory is for Moonshine models; pocketsphinx carries its own")
    if model is not None:
        return _moonshine(str(model), model, threads)
    if name == "auto":
        present = [_POCKETSPHINX] if grammar is not None else installed_recognisers()
        if not present:
            raise LegoError(
                'no recogniser is installed: pip install "lego-ar[speech]"; for a server, "lego-ar[server-speech]"'
            )
        name = present[0]
    if name == _POCKETSPHINX:
        if not _is_installed(name):
            raise LegoError('the recogniser pocketsphinx is not installed: pip install "lego-ar[speech-pocketsphinx]"')
        from lego_core.speech.sphinx import Sphinx

        return Sphinx(grammar)
    directory = _packaged_model(name)
    if directory is None:
        raise LegoError(f'the recogniser {name} is not installed: pip install "lego-ar[speech]"; {_present()}')
    return _moonshine(name, directory, threads)


def _moonshine(name: str, directory: Path, threads: int) -> Recogniser:
    with needs_extra("recognising speech"):
        from lego_core.speech.moonshine import Moonshine, MoonshineRecogniser
    return MoonshineRecogniser(name, Moonshine(directory, threads))


def _is_installed(name: str) -> bool:
    if name == _POCKETSPHINX:
        return importlib.util.find_spec("pocketsphinx") is not None
    return _packaged_model(name) is not None and importlib.util.find_spec("onnxruntime") is not None


def _packaged_model(name: str) -> Path | None:
    package, folder = _MOONSHINE_PACKAGES[name]
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (directory := Path(root) / folder).is_dir():
            return directory
    return None


def _present() -> str:
    names = installed_recognisers()
    return f"installed: {', '.join(names)}" if names else "no other is installed either"
