"""Whether what comes from a microphone can be speech at all: silence that no room has, and sound that is cut off."""

from __future__ import annotations

from collections import deque

import numpy as np
from lego_core.speech.audio import CHUNK, CHUNK_SECONDS, Samples

_SILENT_FIRST_SECONDS = 3.0  # muted, or not allowed
_SILENT_LATER_SECONDS = 30.0  # a microphone that suppresses noise may send zeros between sentences
_WINDOW_SECONDS = 1.0
_FULL_SCALE = 0.999
_MOST_CLIPPED = 0.01  # of the samples of a window; a single loud clap is below


class LevelWatch:
    """Says once what is wrong with the level, and again only after it was right in between.

    Args:
        name: What to call the source.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._silent_chunks = 0
        self._silent_seconds = _SILENT_FIRST_SECONDS
        self._clipped: deque[int] = deque(maxlen=round(_WINDOW_SECONDS / CHUNK_SECONDS))
        self._told_clipped = False

    def look(self, chunk: Samples) -> str | None:
        """Returns a sentence for the wearer, or None; takes the next (512,) samples."""
        self._silent_chunks += 1
        if np.any(chunk):
            self._silent_chunks, self._silent_seconds = 0, _SILENT_LATER_SECONDS
        if self._silent_chunks == round(self._silent_seconds / CHUNK_SECONDS):
            return (
                f"{self._name} has sent nothing but zeros for {self._silent_seconds:g} s; unmute it, and allow this "
                "program to use it in the system's settings"
            )
        self._clipped.append(int(np.count_nonzero(np.abs(chunk) >= _FULL_SCALE)))
        share = sum(self._clipped) / (CHUNK * (self._clipped.maxlen or 1))
        if share <= _MOST_CLIPPED:
            self._told_clipped = self._told_clipped and share > 0
            return None
        if self._told_clipped:
            return None
        self._told_clipped = True
        return f"{self._name} is too loud and cuts speech off; turn its level down"
