"""Lines from the keyboard, read without holding up the session."""

from __future__ import annotations

import asyncio
import threading
from typing import TextIO


class TypedLines:
    """Reads lines in a thread that does not keep the program from ending while nobody types."""

    def __init__(self, source: TextIO) -> None:
        """Begins to read; needs a running event loop."""
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._read, name="keyboard", daemon=True).start()

    async def next(self) -> str | None:
        """Waits for the next line; None at the end of the input, and from then on."""
        line = await self._lines.get()
        if line is None:
            self._lines.put_nowait(None)
        return line

    def _read(self) -> None:
        line = " "
        while line:
            try:
                line = self._source.readline()
            except (OSError, ValueError):  # the terminal is gone
                line = ""
            try:
                self._loop.call_soon_threadsafe(self._lines.put_nowait, line.strip() if line else None)
            except RuntimeError:  # the loop has ended meanwhile
                return
