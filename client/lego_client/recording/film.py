"""A recording as a film: what the wearer saw, and beside it the guidance as it came."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from lego_core.errors import LegoError

from lego_client.mp4 import mp4_writer
from lego_client.page import Page
from lego_client.recording.happenings import View
from lego_client.recording.player import Player
from lego_client.recording.recording import Recording

_LOOK_S = 3.0  # how long the last guidance stands

Bar = Callable[[range], Iterable[int]]


def page_for(recording: Recording) -> Page:
    """Returns pages in the shape of the recording's first view.

    Raises:
        LegoError: The file cannot be read any more.
    """
    player = Player(recording)
    first = next((entry.seconds for entry in recording.entries if isinstance(entry.happening, View)), 0.0)
    player.go(first)
    return Page(*player.stage.view.size, recording.server.notice)


def export_film(recording: Recording, path: Path, fps: float = 15.0, bar: Bar = lambda numbers: numbers) -> None:
    """Writes an MP4 at the recording's own pace.

    Args:
        recording: What to show.
        path: Where to write.
        fps: Frames a second, 1 to 60.
        bar: Wraps the frames' numbers, to show how far the work is.

    Raises:
        LegoError: The film cannot be written, or `fps` is out of range.
    """
    if not 1 <= fps <= 60:
        raise LegoError(f"fps is {fps:g}; it must be from 1 to 60")
    page, player = page_for(recording), Player(recording)
    with mp4_writer(path, fps, page.size) as write:
        for number in bar(range(round((recording.seconds + _LOOK_S) * fps))):
            player.go(number / fps)
            write(np.asarray(page.draw(player.stage.view, player.shown)))
