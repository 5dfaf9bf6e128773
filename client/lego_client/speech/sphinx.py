"""PocketSphinx: small, old, and on every machine. Worth having where no Moonshine package is, or with a grammar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from lego_core.errors import LegoError
from pocketsphinx import Decoder

from lego_client.speech.audio import RATE, Samples
from lego_client.speech.recognise import Transcript

HOUSEHOLD = Path(__file__).parent / "household.jsgf"  # "how do I open the drawer", "put the lid on the pot", ...


class Sphinx:
    """A `Recogniser`.

    Args:
        grammar: JSGF file of the only sentences there are; None for the general model of English.

    Raises:
        LegoError: There is no such file, it is no grammar, or it has a word that the dictionary does not know.
    """

    def __init__(self, grammar: Path | None = None) -> None:
        self.name = "pocketsphinx" if grammar is None else f"pocketsphinx with {grammar.name}"
        if grammar is not None and not grammar.is_file():
            raise LegoError(f"there is no grammar {str(grammar)!r}; give a JSGF file")
        try:
            # Its own log would stand between the lines of ours.
            chosen = {} if grammar is None else {"jsgf": str(grammar), "lm": None}
            self._decoder = Decoder(samprate=RATE, loglevel="FATAL", **chosen)
        except (RuntimeError, ValueError) as error:
            raise LegoError(f"{grammar} is no grammar whose words are all known ({error}); correct it") from error
        self._open = False

    def start(self) -> None:
        """A new utterance begins."""
        self._end()
        self._decoder.start_utt()
        self._open = True

    def feed(self, samples: Samples) -> None:
        """Takes and decodes the next (N,) samples."""
        if len(samples):
            self._decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())

    def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
        """Returns what was said so far; it is there already."""
        return None if stop() else self._best()

    def finish(self) -> Transcript:
        """Returns what was said."""
        self._end()
        return self._best()

    def close(self) -> None:
        """Ends what is under way."""
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            self._decoder.end_utt()

    def _best(self) -> Transcript:
        best = self._decoder.hyp()
        if best is None or not best.hypstr:
            return Transcript("")
        return Transcript(best.hypstr)  # its posterior is as low for what it got right as for what it did not
