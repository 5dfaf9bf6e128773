"""How much of what a camera sees is sent: how often and how finely, by the wearer's wish and by what the link bears."""

from __future__ import annotations

from dataclasses import dataclass

from lego_core.errors import LegoError

_MOST_FPS = 60.0
_SLOW_S = 0.4  # a frame that travels longer shows what the wearer no longer sees
_QUICK_S = 0.2
_QUICK_FRAMES = 5  # so many in a row, before more is tried
_WEIGHT = 0.5  # of the newest frame in the estimate of the link


@dataclass(frozen=True)
class Sending:
    """What the wearer wishes.

    Attributes:
        fps: Frames of a live view sent a second, at most.
        data_saver: Send only frames that are asked about, and those small.
    """

    fps: float = 10.0
    data_saver: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fps <= _MOST_FPS:
            raise LegoError(f"send-fps is {self.fps:g}; it must be above 0 and at most {_MOST_FPS:g} frames a second")


@dataclass(frozen=True)
class Level:
    """How finely a frame is sent: at most so many pixels on its longer side, and JPEG quality 1 to 100."""

    longest_side: int
    quality: int


# From one to the next, photographs of kitchens take 1.5 to 1.7 times less. A frame is never made smaller than the model
# sees it, so the last ones lower the quality only.
LEVELS = (
    Level(1280, 90), Level(1280, 75), Level(960, 75), Level(768, 70), Level(640, 65), Level(512, 60), Level(384, 50),
)  # fmt: skip
_STEP = 1.7
_DATA_SAVER = 5


class LevelChooser:
    """Finds the finest level whose frames travel quickly.

    It goes down at once and as far as needed, and up one level after several frames that leave room for it: between the
    two bounds nothing changes.
    """

    def __init__(self, finest: int = 0) -> None:
        """Begins at the finest level.

        Args:
            finest: The index in `LEVELS` of the finest that is allowed.
        """
        self._finest = self._index = finest
        self._seconds_per_byte = 0.0
        self._quick = 0

    @classmethod
    def of(cls, sending: Sending) -> LevelChooser:
        """Returns one that keeps to the wearer's wish."""
        return cls(_DATA_SAVER if sending.data_saver else 0)

    @property
    def level(self) -> Level:
        """The level for the next frame."""
        return LEVELS[self._index]

    def delivered(self, size: int, seconds: float) -> None:
        """Takes what a frame has shown of the link.

        Args:
            size: Its bytes.
            seconds: How long the link was busy with it, without the round trip.
        """
        if size <= 0:
            return
        before = self._seconds_per_byte or seconds / size
        self._seconds_per_byte = (1 - _WEIGHT) * before + _WEIGHT * seconds / size
        expected = size * self._seconds_per_byte
        self._quick = self._quick + 1 if expected * _STEP < _QUICK_S else 0
        if expected > _SLOW_S:
            while expected > _SLOW_S and self._index < len(LEVELS) - 1:
                self._index += 1
                expected /= _STEP
        elif self._quick >= _QUICK_FRAMES and self._index > self._finest:
            self._index -= 1
            self._quick = 0
