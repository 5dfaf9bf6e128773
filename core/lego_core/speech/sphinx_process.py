"""The process in which PocketSphinx works: requests come through the standard input, answers go out line by line.

A request is one letter, the size of what follows in four bytes, and that. An answer is one line of JSON: `text`, or
`error` before the process ends. The end of the input ends it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import BinaryIO

START, FEED, HYPOTHESIS, FINISH = b"S", b"F", b"H", b"E"
_RATE = 16_000
_HEADER = struct.Struct("<cI")


def header(what: bytes, size: int) -> bytes:
    """Returns what comes before `size` bytes of a request."""
    return _HEADER.pack(what, size)


def serve(requests: BinaryIO, answers: BinaryIO, grammar: str | None) -> None:
    """Answers until there are no more requests.

    Args:
        requests: What to do.
        answers: What came of it; the first answer, an empty text, says that all is loaded.
        grammar: JSGF file of the only sentences there are; None for the general model.
    """
    from pocketsphinx import Decoder

    def answer(**content: str) -> None:
        answers.write(json.dumps(content).encode() + b"\n")
        answers.flush()

    def best() -> str:
        found = decoder.hyp()
        return found.hypstr if found is not None else ""

    chosen = {} if grammar is None else {"jsgf": grammar, "lm": None}
    try:
        decoder = Decoder(samprate=_RATE, loglevel="FATAL", **chosen)
    except (RuntimeError, ValueError) as error:
        answer(error=f"{grammar} is no grammar whose words are all known ({error}); correct it")
        return
    answer(text="")
    is_open = False
    while len(head := requests.read(_HEADER.size)) == _HEADER.size:
        what, size = _HEADER.unpack(head)
        payload = requests.read(size)
        if what in (START, FINISH) and is_open:
            decoder.end_utt()
            is_open = False
        if what == START:
            decoder.start_utt()
            is_open = True
        elif what == FEED:
            if payload:
                decoder.process_raw(payload)
        else:
            answer(text=best())


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as kept:
        # Its parser of grammars writes what it does not understand to the standard output, from C.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        serve(sys.stdin.buffer, kept, sys.argv[1] if len(sys.argv) > 1 else None)
