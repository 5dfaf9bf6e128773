"""A part of this machine's screen: to try everything without a camera."""

from __future__ import annotations

import re
import time
from collections.abc import Generator

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.pace import Pace
from lego_client.sources.base import LIVE_FPS, FrameSource
from lego_client.sources.framing import Framing, rgb_from_bgr

SCHEME = "screen:"
_REGION = re.compile(r"(?P<left>-?\d+),(?P<top>-?\d+),(?P<width>\d+),(?P<height>\d+)")
_LEAST = 8  # pixels: what a server accepts at least


class Screen(FrameSource):
    """A monitor, or a rectangle of the screen."""

    def __init__(self, spec: str, framing: Framing | None = None) -> None:
        """Names what is captured; nothing is opened yet.

        Args:
            spec: "screen:" for the first monitor, "screen:2" for the second, "screen:LEFT,TOP,WIDTH,HEIGHT" in pixels.
            framing: How it is turned.

        Raises:
            LegoError: It is none of these, or the package that captures it is missing.
        """
        super().__init__(spec, live=True, framing=framing)
        try:
            import mss  # noqa: F401
        except ImportError as error:
            raise LegoError("the screen as a source needs the package mss: pip install 'lego-ar[screen]'") from error
        self._monitor, self._region = 1, {}
        place = spec[len(SCHEME) :]
        if region := _REGION.fullmatch(place):
            self._region = {name: int(value) for name, value in region.groupdict().items()}
        elif place.isascii() and place.isdigit():
            self._monitor = int(place)
        elif place:
            raise LegoError(f"the screen is {spec!r}; write screen:, screen:2 or screen:LEFT,TOP,WIDTH,HEIGHT")
        if (self._region and min(self._region["width"], self._region["height"]) < _LEAST) or self._monitor < 1:
            raise LegoError(
                f"the screen is {spec!r}; monitors count from 1, and both sides need at least {_LEAST} pixels"
            )

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields what is to be seen, at `LIVE_FPS`."""
        import mss
        import mss.exception

        pace = Pace(LIVE_FPS)
        try:
            with mss.mss() as screen:
                monitors = screen.monitors[1:]
                if not self._region and self._monitor > len(monitors):
                    raise LegoError(f"the screen is {self.name!r}; this machine has {len(monitors)} monitors")
                area = self._region or monitors[self._monitor - 1]
                while not self.closing:
                    pace.take(time.monotonic())
                    shot = screen.grab(area)
                    bgra = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
                    yield rgb_from_bgr(bgra), self.elapsed()
                    self.pause(pace.wait(time.monotonic()))
        except mss.exception.ScreenShotError as error:
            why = str(error).partition("\n")[0]
            raise LegoError(
                f"{self.name} cannot be captured ({why}); run this where there is a display, and give a region of it"
            ) from error
