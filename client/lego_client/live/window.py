"""A window on the desktop."""

from __future__ import annotations

import asyncio
import time

import cv2
from lego_core.errors import LegoError

from lego_client.live.controls import Controls
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.overlay.pixels import Picture

_NAME = "LEGO-AR"
_FRAMES_PER_SECOND = 25.0
_LOOK_SECONDS = 0.005
# Of waitKeyEx, by Qt and GTK, Windows, and Cocoa.
_KEYS = {
    13: "enter", 10: "enter", 65421: "enter", 27: "escape", 8: "backspace", 127: "backspace", 65288: "backspace",
    65361: "left", 2424832: "left", 63234: "left", 65363: "right", 2555904: "right", 63235: "right",
}  # fmt: skip
_MODIFIERS = 0xFF0000  # GTK and Qt tell Shift and Num Lock above the key itself


class Window:
    """Draws the screen many times a second, and takes keys."""

    def __init__(self, state: LiveState, screen: Screen, controls: Controls) -> None:
        self._state = state
        self._screen = screen
        self._controls = controls

    async def run(self) -> None:
        """See `Display`."""
        try:
            cv2.namedWindow(_NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise LegoError(
                f"no window can be opened ({error.err}); use --display terminal or --display none"
            ) from error
        size: tuple[int, int] | None = None
        try:
            while not self._state.leaving:
                began = time.monotonic()
                drawing = asyncio.create_task(asyncio.to_thread(self._screen.draw))
                drawn = self._picture()
                # Of keys pressed between two looks the window remembers the last only: look often. A new guidance
                # frame is drawn at once.
                while not drawing.done() or (
                    time.monotonic() - began < 1 / _FRAMES_PER_SECOND and self._picture() is drawn
                ):
                    self._take_keys()
                    await asyncio.sleep(_LOOK_SECONDS)
                picture = drawing.result()
                if size != (size := (picture.shape[1], picture.shape[0])):
                    cv2.resizeWindow(_NAME, *size)
                cv2.imshow(_NAME, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        finally:
            cv2.destroyAllWindows()

    def _picture(self) -> Picture | None:
        """Returns the guidance frame, or the preview of it, that is to be shown."""
        shown = self._state.shown
        return None if shown is None else shown.picture

    def _take_keys(self) -> None:
        while (code := cv2.waitKeyEx(1)) != -1:
            self._press(code)
        if cv2.getWindowProperty(_NAME, cv2.WND_PROP_VISIBLE) < 1:  # closed by its corner
            self._state.leaving = True

    def _press(self, code: int) -> None:
        name = _KEYS.get(code) or _KEYS.get(code & ~_MODIFIERS)
        letter = code & ~_MODIFIERS
        if name is None and 32 <= letter < 0x110000:
            name = chr(letter)
        if name:
            self._controls.press(name)
