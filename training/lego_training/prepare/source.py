"""Where frames come from: what video files and folders of extracted frames have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lego_core.errors import LegoError
from PIL import Image

from lego_training.prepare.actions import Reason


@dataclass(frozen=True)
class TimedFrame:
    """A frame, `FrameSource.size` pixels large, and its time in seconds from the first one."""

    time: float
    image: Image.Image


class UnusableVideo(LegoError):
    """A video that gives no frame at all."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FrameSource(Protocol):
    """A video.

    Attributes:
        fps: Its own frames a second, on average.
        source_size: (width, height) of its frames in pixels.
        size: (width, height) of those it returns.
    """

    fps: float
    source_size: tuple[int, int]
    size: tuple[int, int]

    def windows(self, times: Sequence[float], reach: int, stride: int) -> Iterator[list[TimedFrame]]:
        """Yields for each time the frame nearest to it and its neighbours, `reach` on either side if there are so many.

        Args:
            times: In seconds, ascending.
            reach: Neighbours on either side.
            stride: Every how manyth frame is a neighbour.
        """

    def why_missing(self, time: float) -> tuple[Reason, str]:
        """Says why no frame is near a time; only after `windows` has passed it."""

    def close(self) -> None:
        """Lets the file go."""


def stored_size(size: tuple[int, int], height: int) -> tuple[int, int]:
    """Returns (width, height) at which frames are stored: this height, the nearest even width.

    So a 1920x1080 video gives 456x256, as EPIC-KITCHENS extracts its frames.
    """
    return max(2, 2 * round(size[0] / size[1] * height / 2)), height
