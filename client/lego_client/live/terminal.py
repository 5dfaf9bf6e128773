"""A terminal: the answer in words, the picture in coarse blocks of colour, and keys."""

from __future__ import annotations

import asyncio

import cv2
import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lego_client.live.controls import Controls
from lego_client.live.keyboard import keys_to
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.overlay.labels import State
from lego_client.overlay.pixels import Picture

_PERIOD = 0.1  # seconds; a terminal far away takes no more
_COLOURS = {
    State.READY: "white", State.LISTENING: "green", State.THINKING: "yellow", State.ANSWER: "cyan",
    State.OFFLINE: "red", State.LOST: "magenta",
}  # fmt: skip
_MOST_COLUMNS = 96
_OTHER_ROWS = 14  # of the terminal, that words and frames take
_HISTORY = 5


class Terminal:
    """Shows the state with rich, and takes keys."""

    def __init__(self, state: LiveState, screen: Screen, controls: Controls) -> None:
        self._state = state
        self._screen = screen
        self._controls = controls
        self._console = Console()

    async def run(self) -> None:
        """See `Display`."""
        with (
            keys_to(self._controls.press),
            Live(console=self._console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
        ):
            while not self._state.leaving:
                live.update(await asyncio.to_thread(self._render), refresh=True)
                await asyncio.sleep(_PERIOD)

    def _render(self) -> RenderableType:
        state, shown = self._state, self._state.shown
        rows: list[RenderableType] = [self._status()]
        if state.step:
            rows.append(Text(state.step, style="bold green"))
        if state.help:
            rows.append(self._help())
        elif shown is not None:
            rows.append(Text(f"“{shown.query}”", style="bold"))
            rows.append(Text(shown.failed, style="yellow") if shown.failed else Text(shown.description))
            if shown.pending and shown.steps:
                rows.append(ProgressBar(total=shown.steps, completed=shown.step, width=_MOST_COLUMNS // 2))
            if shown.picture is not None:
                rows.append(blocks(shown.picture, *self._room()))
        if notice := state.notice or self._screen.trouble:
            rows.append(Text(notice, style="yellow"))
        if len(state.exchanges) > 1 and not state.help:
            rows.append(self._history())
        rows.append(self._prompt())
        return Panel(Group(*rows), title="LEGO-AR", subtitle="Enter: ask   H: keys   Q: leave")

    def _room(self) -> tuple[int, int]:
        width, height = self._console.size
        return max(8, min(_MOST_COLUMNS, width - 4)), max(4, height - _OTHER_ROWS)

    def _status(self) -> Text:
        state, newest = self._state, self._state.newest
        doing = state.doing
        text = Text(f"● {doing.value}", style=_COLOURS[doing])
        if doing is State.THINKING and newest is not None and newest.steps:
            text.append(f" {newest.step}/{newest.steps}")
        if state.offline:
            text.append(f" · {state.offline}")
        return text

    def _prompt(self) -> Text:
        if self._state.typing is not None:
            return Text(f"› {self._state.typing}▏", style="bold cyan")
        if self._state.hearing:
            return Text(f"“{self._state.hearing} …”", style="italic")
        return Text("")

    def _help(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for key in self._controls.keys:
            table.add_row(Text(key.label, style="bold"), key.does)
        return table

    def _history(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        shown = self._state.shown
        for exchange in self._state.exchanges[-_HISTORY:]:
            mark = "▸" if exchange is shown else " "
            table.add_row(mark, Text(exchange.query, style="dim"), Text(exchange.failed or exchange.description))
        return table


def blocks(picture: Picture, columns: int, rows: int) -> Text:
    """Returns a picture as half blocks, two pixels to a character, in its aspect ratio.

    Args:
        picture: (H, W, 3) uint8 RGB.
        columns: Most characters across.
        rows: Most lines.
    """
    height, width = picture.shape[:2]
    scale = min(columns / width, 2 * rows / height)
    size = max(1, int(width * scale)), max(2, int(height * scale) // 2 * 2)
    small = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    text = Text(no_wrap=True)
    for upper, lower in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color=_colour(above), bgcolor=_colour(below)))
        text.append("\n")
    return text


def _colour(rgb: list[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)
