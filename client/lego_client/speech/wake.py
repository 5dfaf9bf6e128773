"""An optional wake word, looked for in what was recognised: "hey lego, how do I open the drawer?".

It is a comparison of words, not of sound: all that is said nearby is recognised, on this machine, and what is not
addressed to the assistant is dropped here. Recognisers rarely write "lego" as it is spelt, so letters may differ: most
must be the same, or all consonants ("hail I go").
"""

from __future__ import annotations

import difflib
import re

from lego_core.errors import LegoError

_ALIKE = 0.7  # by difflib's measure, without spaces: "hey diego" is 0.8 alike, "hello" 0.67
_FEWEST_CONSONANTS = 3
_VOWELS = re.compile(r"[aeiouy'’-]")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


class WakeWord:
    """Tells what is meant for the assistant.

    Args:
        phrase: One to four words that begin what is.

    Raises:
        LegoError: The phrase is too short to be told from other words, or too long to be said each time.
    """

    def __init__(self, phrase: str = "hey lego") -> None:
        words = _WORD.findall(phrase.lower())
        if not 1 <= len(words) <= 4 or len("".join(words)) < 4:
            raise LegoError(f"the wake word is {phrase!r}; it must have one to four words and four letters or more")
        self.phrase = " ".join(words)
        self._count = len(words)

    def after(self, said: str) -> str | None:
        """Returns what follows the wake word.

        Args:
            said: A transcript.

        Returns:
            The rest as it was written, empty where the wake word was all; None where it was not said first.
        """
        found = list(_WORD.finditer(said))
        best, end = 0.0, 0
        # A recogniser may make one word of two ("heylego") or two of one ("hey le go").
        for count in range(max(1, self._count - 1), self._count + 2):
            if count > len(found):
                break
            heard = " ".join(word.group().lower() for word in found[:count])
            alike = _alike(heard.replace(" ", ""), self.phrase.replace(" ", ""))
            if alike > best:
                best, end = alike, found[count - 1].end()
        if best < _ALIKE:
            return None
        first = _WORD.search(said, end)
        return said[first.start() :] if first else ""


def _alike(heard: str, meant: str) -> float:
    consonants = _VOWELS.sub("", meant)
    if len(consonants) >= _FEWEST_CONSONANTS and _VOWELS.sub("", heard) == consonants:
        return 1.0
    return difflib.SequenceMatcher(None, heard, meant).ratio()
