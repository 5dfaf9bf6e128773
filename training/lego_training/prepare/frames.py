"""Frames of a folder of extracted ones, as EPIC-KITCHENS ships them: frame_0000000001.jpg and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.images import open_image
from PIL import Image

from lego_training.dataset import read_frame
from lego_training.prepare.actions import Reason
from lego_training.prepare.source import TimedFrame, UnusableVideo, stored_size


class FrameFolder:
    """A folder of frames as a `FrameSource`.

    Frame n is that of (n - 1) / fps seconds.

    Args:
        path: The folder.
        fps: Frames a second at which they were extracted.
        height: Of the frames it returns, in pixels.

    Raises:
        UnusableVideo: It holds no frame.
    """

    def __init__(self, path: Path, fps: float, height: int) -> None:
        self._path, self.fps = path, fps
        numbers = [int(file.stem[6:]) for file in path.glob("frame_*.jpg") if file.stem[6:].isdecimal()]
        if not numbers:
            raise UnusableVideo(Reason.MISSING_VIDEO, f"{path} holds no frame_0000000001.jpg or later; unpack its tar")
        self._last = max(numbers)
        try:
            self.source_size = open_image(self._file(min(numbers)).read_bytes()).size
        except LegoError as error:
            raise UnusableVideo(Reason.UNREADABLE_VIDEO, f"{self._file(min(numbers))}: {error}") from error
        self.size = stored_size(self.source_size, height)
        self._broken: dict[int, str] = {}

    def close(self) -> None:
        """Nothing is held open."""

    def windows(self, times: Sequence[float], reach: int, stride: int) -> Iterator[list[TimedFrame]]:
        """See `FrameSource`."""
        for time in times:
            nearest = self._number(time)
            numbers = range(nearest - reach * stride, nearest + reach * stride + 1, stride)
            frames = ((number, self._read(number)) for number in numbers)
            yield [TimedFrame((number - 1) / self.fps, image) for number, image in frames if image is not None]

    def why_missing(self, time: float) -> tuple[Reason, str]:
        """See `FrameSource`."""
        number = self._number(time)
        if number in self._broken:
            return Reason.BROKEN_FRAMES, self._broken[number]
        if number > self._last:
            return Reason.SHORT_VIDEO, f"{self._path} ends with frame {self._last}, before frame {number}"
        return Reason.NO_FRAME, f"{self._file(number)} is missing"

    def _number(self, time: float) -> int:
        return round(time * self.fps) + 1

    def _file(self, number: int) -> Path:
        return self._path / f"frame_{number:010d}.jpg"

    def _read(self, number: int) -> Image.Image | None:
        path = self._file(number)
        if not path.is_file():
            return None
        try:
            image = read_frame(path)
        except LegoError as error:
            self._broken[number] = str(error)
            return None
        return image if image.size == self.size else image.resize(self.size, Image.Resampling.LANCZOS)
