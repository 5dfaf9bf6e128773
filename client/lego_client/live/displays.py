"""Where the wearer sees it: a window, a terminal, or lines of text for a machine without either."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from lego_core.errors import LegoError

from lego_client.live.controls import Controls
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState

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
    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return "window"
    return "terminal" if sys.stdin.isatty() and sys.stdout.isatty() else "none"


def check_display(name: str) -> str:
    """Returns the name as given.

    Raises:
        LegoError: There is no such display, or it cannot be had here.
    """
    if name not in DISPLAYS:
        raise LegoError(f"the display is {name!r}; it must be one of {', '.join(DISPLAYS)}")
    if name == "window" and default_display() != "window":
        raise LegoError("there is no desktop here (DISPLAY is not set); use --display terminal or --display none")
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

    return Lines(state, controls)
