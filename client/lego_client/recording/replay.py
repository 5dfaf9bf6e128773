"""A session played again as the wearer saw it: in a window, in the terminal, or as lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from lego_core.errors import LegoError
from PIL import Image, ImageDraw
from rich.console import Console
from rich.text import Text

from lego_client.display import AnswerDisplay
from lego_client.events import (
    ConnectionLost,
    DescriptionPiece,
    Guidance,
    QueryFailed,
    QueryRestarted,
    Reconnected,
)
from lego_client.pictures import font
from lego_client.recording.film import page_for
from lego_client.recording.happenings import Asked, AskedAnew, Connected, Disconnected, Heard, Note, View
from lego_client.recording.options import DISPLAYS
from lego_client.recording.player import Player
from lego_client.recording.recording import Recording
from lego_client.window import PictureWindow, check_window, has_desktop

_NAME = "LEGO-AR replay"
_FRAMES_PER_SECOND = 25.0
_STEP_S = 5.0
_SPEEDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def checked_display(name: str | None) -> str:
    """Returns the display, or what this machine has: a window on a desktop, else the terminal.

    Raises:
        LegoError: There is no such display, or it cannot be had here.
    """
    if name is None:
        name = "window" if has_desktop() else "terminal"
    if name not in DISPLAYS:
        raise LegoError(f"the display is {name!r}; it must be one of {', '.join(DISPLAYS)}")
    if name == "window":
        check_window()
    return name


class Controls:
    """What the keys of the window do to a replay.

    Attributes:
        speed: Seconds of the recording per second.
        paused: Whether it stands still.
        leaving: Whether the viewer has had enough.
    """

    def __init__(self, player: Player, seconds: float, speed: float) -> None:
        self.speed = speed
        self.paused = False
        self.leaving = False
        self._player = player
        self._end = seconds

    def tick(self, elapsed: float) -> None:
        """Lets `elapsed` seconds of the viewer's time go by."""
        if not self.paused:
            self._player.go(min(self._end, self._player.seconds + elapsed * self.speed))
            self.paused = self._player.seconds >= self._end

    def press(self, key: str) -> None:
        """Takes a key by its name, as `PictureWindow` gives it: space, the arrows, + and -, q or Escape."""
        match key:
            case " ":
                self.paused = not self.paused
                if self._player.seconds >= self._end:
                    self._player.go(0.0)
            case "escape" | "q" | "Q":
                self.leaving = True
            case "+" | "=":
                self.speed = min((speed for speed in _SPEEDS if speed > self.speed), default=self.speed)
            case "-" | "_":
                self.speed = max((speed for speed in _SPEEDS if speed < self.speed), default=self.speed)
            case "left":
                self._player.go(self._player.seconds - _STEP_S)
                self.paused = False
            case "right":
                self._player.go(min(self._end, self._player.seconds + _STEP_S))


def play_in_window(recording: Recording, start: float, speed: float) -> None:
    """Shows the pages of the session; space, arrows, + and - steer, q leaves.

    Raises:
        LegoError: No window can be opened, or the file cannot be read any more.
    """
    page, player = page_for(recording), Player(recording)
    controls = Controls(player, recording.seconds, speed)
    player.go(start)
    with PictureWindow(_NAME) as window:
        before = time.monotonic()
        while not (controls.leaving or window.closed):
            picture = with_clock(page.draw(player.stage.view, player.shown), player, recording.seconds, controls)
            window.show(np.asarray(picture))
            for key in window.take_keys():
                controls.press(key)
            time.sleep(max(0.0, 1 / _FRAMES_PER_SECOND - (time.monotonic() - before)))
            now = time.monotonic()
            controls.tick(now - before)
            before = now


def with_clock(page: Image.Image, player: Player, seconds: float, controls: Controls) -> Image.Image:
    """Writes into a page, over the last line on the right, where the replay stands."""
    state = "paused" if controls.paused else f"x {controls.speed:g}"
    text = f"{player.seconds:.1f} / {seconds:.1f} s   {state}"
    place = page.width - 16, page.height - 32
    ImageDraw.Draw(page).text(place, text, font=font(15), fill=(140, 145, 154), anchor="rs")
    return page


def play_in_terminal(
    recording: Recording,
    console: Console,
    start: float,
    speed: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Writes what was asked and answered, at the pace at which it was.

    Raises:
        LegoError: The file cannot be read any more.
    """
    display: AnswerDisplay | None = None
    position = start
    query_id = 0
    try:
        for entry in recording.entries:
            if entry.seconds < start or isinstance(entry.happening, View):
                continue
            sleep(max(0.0, entry.seconds - position) / speed)
            position = max(position, entry.seconds)
            match entry.happening:
                case Asked() as asked:
                    if display is not None:
                        display.__exit__(None, None, None)
                    console.print(f"at {entry.seconds:.1f} s", style="dim")
                    query_id = asked.query_id
                    display = AnswerDisplay(console, asked.text).__enter__()
                case AskedAnew(query_id=new, earlier_query_id=earlier) if earlier == query_id and display is not None:
                    query_id = new
                    display.show(QueryRestarted(new))
                case Disconnected(reason=reason) if display is not None:
                    display.show(ConnectionLost(reason))
                case Connected(resumed=resumed) if display is not None:
                    display.show(Reconnected(resumed))
                case Heard(event=event) if event.query_id == query_id and display is not None:
                    display.show(event)
                    if isinstance(event, Guidance | QueryFailed):
                        display.__exit__(None, None, None)
                        display = None
                        console.print(Text(_ending(event), style="dim"))
                case Note(text=text):
                    console.print(Text(f"note: {text}", style="yellow"))
    finally:
        if display is not None:
            display.__exit__(None, None, None)


def lines_of(recording: Recording, start: float = 0.0) -> list[str]:
    """Returns what happened and when, a line each, from a moment on."""
    lines: list[str] = []
    words = ""
    for entry in recording.entries:
        match entry.happening:
            case Connected(target=target, server=server, resumed=resumed):
                line = f"connected to {target} ({server.model_version}){', session resumed' if resumed else ''}"
            case Disconnected(reason=reason):
                line = f"connection lost: {reason}"
            case Asked(text=text):
                words, line = "", f"“{text}”"
            case AskedAnew():
                words, line = "", "asked anew"
            case Heard(event=DescriptionPiece(text=text, done=done)):
                words += text
                line = words if done else ""
            case Heard(event=Guidance() | QueryFailed() as event):
                line = _ending(event)
            case Note(text=text):
                line = f"note: {text}"
            case _:
                line = ""
        if line and entry.seconds >= start:
            lines.append(f"{entry.seconds:8.2f} s  {line}")
    return lines


def _ending(event: Guidance | QueryFailed) -> str:
    if isinstance(event, QueryFailed):
        return f"failed ({event.code}): {event.message}"
    return f"picture of {event.width}x{event.height} pixels, {event.steps} steps, seed {event.seed}"
