"""PocketSphinx: small, old, and on every machine. Worth having where no Moonshine package is, or with a grammar.

It keeps Python from running anything else while it works, up to a second at the end of a sentence. So it works in a
process of its own (`sphinx_process.py`), which ends with this one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.speech.audio import Samples, to_int16
from lego_core.speech.recognise import Transcript
from lego_core.speech.sphinx_process import FEED, FINISH, HYPOTHESIS, START, header

HOUSEHOLD = Path(__file__).parent / "household.jsgf"  # "how do I open the drawer", "put the lid on the pot", ...
_LEAVE_SECONDS = 2.0


class Sphinx:
    """A `Recogniser`.

    Args:
        grammar: JSGF file of the only sentences there are; None for the general model of English.

    Raises:
        LegoError: There is no such file, it is no grammar, or it has a word that the dictionary does not know.
    """

    exact = True

    def __init__(self, grammar: Path | None = None) -> None:
        self.name = "pocketsphinx" if grammar is None else f"pocketsphinx with {grammar.name}"
        if grammar is not None and not grammar.is_file():
            raise LegoError(f"there is no grammar {str(grammar)!r}; give a JSGF file")
        command = [
            sys.executable,
            "-m",
            "lego_core.speech.sphinx_process",
            *([] if grammar is None else [str(grammar)]),
        ]
        self._process = subprocess.Popen(  # noqa: S603 our own module, and a file that is there
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._answer()

    def start(self) -> None:
        """A new utterance begins."""
        self._ask(START)

    def feed(self, samples: Samples) -> None:
        """Takes the next (N,) samples."""
        self._ask(FEED, to_int16(samples))

    def hypothesis(self, stop: Callable[[], bool]) -> Transcript | None:
        """Returns what was said so far."""
        if stop():
            return None
        self._ask(HYPOTHESIS)
        return Transcript(self._answer())

    def finish(self) -> Transcript:
        """Returns what was said. No confidence: its own is as low for what it got right as for what it did not."""
        self._ask(FINISH)
        return Transcript(self._answer())

    def drop(self) -> None:
        """Leaves the utterance as it is: the next start forgets it."""

    def close(self) -> None:
        """Ends the process. It can be used no more."""
        if self._process.poll() is None:
            self._requests.close()  # which it takes for a farewell
            try:
                self._process.wait(_LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._answers.close()

    def _ask(self, what: bytes, payload: bytes = b"") -> None:
        try:
            self._requests.write(header(what, len(payload)) + payload)
            self._requests.flush()
        except (OSError, ValueError) as error:  # its process is gone, or this was closed
            raise LegoError("pocketsphinx ended by itself; start this program again") from error

    def _answer(self) -> str:
        line = self._answers.readline()
        if not line:
            raise LegoError("pocketsphinx ended by itself; start this program again")
        answer = json.loads(line)
        if "error" in answer:
            self.close()
            raise LegoError(answer["error"])
        text: str = answer["text"]
        return text
