"""Keys pressed in a terminal, one by one and without Enter."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ESCAPES = {"\x1b[D": "left", "\x1b[C": "right", "\x1bOD": "left", "\x1bOC": "right"}
_NAMES = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x1b": "escape"}


def names_of(text: str) -> Iterator[str]:
    """Yields the names, as `Controls` knows them, of the keys that a terminal sent together.

    An escape sequence that means none of them is passed over.
    """
    while text:
        sequence = next((each for each in _ESCAPES if text.startswith(each)), None)
        if sequence is not None:
            yield _ESCAPES[sequence]
            text = text[len(sequence) :]
        elif text.startswith(("\x1b[", "\x1bO")):
            end = next((i for i, c in enumerate(text[2:], 2) if c.isalpha() or c == "~"), len(text) - 1)
            text = text[end + 1 :]
        else:
            yield _NAMES.get(text[0], text[0])
            text = text[1:]


@contextmanager
def keys_to(press: Callable[[str], None]) -> Iterator[None]:
    """Has every key of the terminal on standard input given to `press`, on the running event loop."""
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        with _windows_keys(loop, press):
            yield
        return
    import termios  # not there on Windows
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        keys = os.read(descriptor, 1024)
        if not keys:  # the terminal is gone
            loop.remove_reader(descriptor)
        for name in names_of(keys.decode(errors="ignore")):
            press(name)

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _windows_keys(loop: asyncio.AbstractEventLoop, press: Callable[[str], None]) -> Iterator[None]:
    import msvcrt

    ended = threading.Event()
    arrows = {"K": "left", "M": "right"}

    def read() -> None:
        while not ended.wait(0.02):
            while msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
                key = msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]
                if key in "\x00\xe0":  # the first half of an arrow
                    key = arrows.get(msvcrt.getwch(), "")  # type: ignore[attr-defined,unused-ignore]
                if name := _NAMES.get(key, key):
                    loop.call_soon_threadsafe(press, name)

    thread = threading.Thread(target=read, name="keyboard", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
