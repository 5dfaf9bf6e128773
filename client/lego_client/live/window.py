"""A window on the desktop."""

from __future__ import annotations

import asyncio
import time

from lego_client.live.controls import Controls
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.overlay.pixels import Picture
from lego_client.window import PictureWindow

_FRAMES_PER_SECOND = 25.0
_LOOK_SECONDS = 0.01  # between two looks for keys


class Window:
    """Draws the screen many times a second, and takes keys."""

    def __init__(self, state: LiveState, screen: Screen, controls: Controls) -> None:
        self._state = state
        self._screen = screen
        self._controls = controls

    async def run(self) -> None:
        """See `Display`."""
        with PictureWindow("LEGO-AR") as window:
            while not self._state.leaving:
                began = time.monotonic()
                drawing = asyncio.create_task(asyncio.to_thread(self._screen.draw))
                drawn = self._picture()
                # A new guidance frame is drawn at once.
                while not drawing.done() or (
                    time.monotonic() - began < 1 / _FRAMES_PER_SECOND and self._picture() is drawn
                ):
                    for key in window.take_keys():
                        self._controls.press(key)
                    self._state.leaving |= window.closed
                    await asyncio.sleep(_LOOK_SECONDS)
                window.show(drawing.result())

    def _picture(self) -> Picture | None:
        """Returns the guidance frame, or the preview of it, that is to be shown."""
        shown = self._state.shown
        return None if shown is None else shown.picture
