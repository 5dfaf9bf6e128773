"""Where the wearer sees it: a window, a terminal, or lines of text for a machine without either."""

from __future__ import annotations

import sys
from typing import Protocol

from lego_core.errors import LegoError

from lego_client.live.controls import Controls
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.window import check_window, has_desktop

DISPLAYS = ("window", "terminal", "none")


class Display(Protocol):
    """Shows the state and takes keys until the wearer leaves."""

    async def run(self) -> None:
        """Returns once the state says that the wearer leaves.

        Raises:
            LegoError: Nothing can be shown here.
        """
        ...


def default_display() -> str:
    """Returns what this machine has: a window on a desktop, else a terminal, else none."""
    if has_desktop():
        return "window"
    return "terminal" if sys.stdin.isatty() and sys.stdout.isatty() else "none"


def check_display(name: str) -> str:
    """Returns the name as given.

    Raises:
        LegoError: There is no such display, or it cannot be had here.
    """
    if name not in DISPLAYS:
        raise LegoError(f"the display is {name!r}; it must be one of {', '.join(DISPLAYS)}")
    if name == "window":
        check_window()
    if name == "terminal" and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LegoError(
            "keys cannot be read here, it is no terminal; use --display none, and give each question a line"
        )
    return name


def open_display(name: str, state: LiveState, screen: Screen, controls: Controls) -> Display:
    """Returns one of `DISPLAYS`."""
    if name == "window":
        from lego_client.live.window import Window

        return Window(state, screen, controls)
    if name == "terminal":
        from lego_client.live.terminal import Terminal

        return Terminal(state, screen, controls)
    from lego_client.live.lines import Lines

    return Lines(state, screen, controls)
