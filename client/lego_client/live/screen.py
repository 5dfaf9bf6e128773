"""The wearer's screen as one picture: the view, guidance in it, what is being said, and what the assistant is doing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from lego_core.errors import LegoError

from lego_client.live.controls import Key
from lego_client.live.exchange import Exchange
from lego_client.live.state import LiveState
from lego_client.overlay.compositions import Composition, Slider
from lego_client.overlay.ghost import Ghost
from lego_client.overlay.labels import State, Status, annotate, put_list
from lego_client.overlay.modes import composition
from lego_client.overlay.pixels import Picture, blank
from lego_client.sources import FrameSource

# Pixels of the longer side; another view is scaled, so that it is quick to draw, and words on it can be read.
_LEAST_SIDE, _MOST_SIDE = 640, 1280
_WITHOUT_CAMERA = (640, 480)


class Screen:
    """Draws the state over the newest view of a camera.

    Args:
        state: What there is to show.
        source: The started camera.
        keys: What the help lists.
    """

    def __init__(self, state: LiveState, source: FrameSource, keys: Sequence[Key]) -> None:
        self._state = state
        self._source = source
        self._keys = keys
        self._composition: tuple[Exchange, str, Composition] | None = None

    def draw(self) -> Picture:
        """Returns the screen: (H, W, 3) uint8 RGB, of the view's shape."""
        state = self._state
        view = self._view()
        shown = state.shown
        picture, lost = view, False
        if shown is not None and shown.picture is not None and shown.asked_picture is not None:
            chosen = self._chosen(shown, shown.asked_picture)
            picture = chosen.compose(view, shown.picture)
            lost = isinstance(chosen, Ghost) and chosen.opacity == 0
        picture = annotate(picture, self._words(shown), self._status(shown, lost))
        if state.help:
            picture = put_list(picture, [(key.label, key.does) for key in self._keys])
        return picture

    @property
    def trouble(self) -> str:
        """What keeps the camera from showing the present, in one sentence; "" when nothing does."""
        try:
            self._source.newest()
        except LegoError as error:
            return str(error)
        return self._source.trouble

    def _view(self) -> Picture:
        try:
            frames = self._source.newest()
        except LegoError:  # told in words
            frames = []
        if not frames:
            return blank(_WITHOUT_CAMERA)
        pixels = frames[-1].pixels
        height, width = pixels.shape[:2]
        side = min(_MOST_SIDE, max(_LEAST_SIDE, height, width))
        scale = side / max(height, width)
        if scale == 1:
            return pixels
        size = max(1, round(width * scale)), max(1, round(height * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(pixels, size, interpolation=how), np.uint8)

    def _chosen(self, exchange: Exchange, asked: Picture) -> Composition:
        """Returns the composition of an answer; it is kept, because a ghost learns where the scene is."""
        if self._composition is None or self._composition[:2] != (exchange, self._state.mode):
            self._composition = exchange, self._state.mode, composition(self._state.mode, asked)
        chosen = self._composition[2]
        if isinstance(chosen, Slider):
            chosen.position = self._state.slider
        return chosen

    def _words(self, shown: Exchange | None) -> str:
        state = self._state
        if state.typing is not None:
            return f"› {state.typing}▏"
        if state.hearing:
            return f"“{state.hearing} …”"
        if trouble := state.notice or self.trouble or state.offline:
            return trouble
        if shown is None:
            return state.step or ("" if state.help else "Enter: type a question   H: all keys")
        place = f"[{len(state.exchanges) - state.selected}/{len(state.exchanges)}] " if state.selected else ""
        words = shown.failed or shown.description or f"“{shown.query}”"
        return f"{place}{state.step_shown} {words}"

    def _status(self, shown: Exchange | None, lost: bool) -> Status:
        state = self._state
        doing, newest = state.doing, state.newest
        if doing is State.THINKING and newest is not None:
            return Status(doing, newest.step, newest.steps)
        if doing is State.ANSWER and shown is not None:
            return Status(State.LOST if lost else doing, age_seconds=math.floor(shown.age_seconds))
        return Status(doing)
