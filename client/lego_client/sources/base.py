"""The interface of every frame source: a capture thread that keeps only the newest frames."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Self

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.sharpness import sharpness
from lego_client.sources.framing import Framing
from lego_client.sources.watch import PictureWatch

# The paper picks each of its frames from seven neighbours (LEGO, section 4.1).
RING_SIZE = 7
# A live source is looked at so often: seven frames are then half a second, and a camera of 60 frames a second costs no
# more than one of 15.
LIVE_FPS = 15.0
_SILENT_S = 3.0
_NEIGHBOURS_S = 2.0  # frames further apart show different views
_CHECK = "check that it is switched on and connected"


@dataclass(frozen=True)
class CapturedFrame:
    """One frame as it left the camera.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        time: Seconds since the source began; for a video file, the position in the file.
        sequence: 1 for the first frame of a source, then counting up.
        captured: When it was captured, in seconds of `time.monotonic`: no clock needs to be right for its age.
    """

    pixels: NDArray[np.uint8]
    time: float
    sequence: int
    captured: float = field(default_factory=monotonic)

    @property
    def age(self) -> float:
        """Seconds since it was captured."""
        return monotonic() - self.captured

    @cached_property
    def sharpness(self) -> float:
        """How sharp it is, compared with others of its camera; see `lego_client.sharpness`."""
        return sharpness(self.pixels)


class FrameSource(ABC):
    """Captures in a thread of its own, so that reading a camera never blocks the caller's event loop.

    A subclass writes `capture` and nothing else. Errors met while capturing are raised by `wait_for` and `newest`.
    `wait_for` blocks: call it with `asyncio.to_thread` from async code; `close` wakes it.

    Attributes:
        name: What to call this source in messages and records.
        live: Whether it shows the present (a camera, a stream) rather than a stored picture or clip.
        framing: How its pictures are turned upright.
    """

    def __init__(
        self, name: str, *, live: bool, framing: Framing | None = None, watch: PictureWatch | None = None
    ) -> None:
        """Names the source; nothing is opened yet.

        Args:
            name: What to call it.
            live: Whether it shows the present.
            framing: How its pictures are turned upright; None leaves them.
            watch: Judges its pictures; None where a dark or unchanging one is nothing unusual.
        """
        self.name = name
        self.live = live
        self.framing = framing or Framing()
        self._watch = watch
        self._ring: deque[CapturedFrame] = deque(maxlen=RING_SIZE)
        self._captured = 0
        self._finished = False
        self._error: LegoError | None = None
        self._trouble = ""
        self._began = self._heard = monotonic()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {name}", daemon=True)

    @abstractmethod
    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields `(pixels, time)` as frames are captured; runs in the capture thread, ends when there are no more.

        A live source counts time by `elapsed`.

        Raises:
            LegoError: The source cannot be opened or read, and what to do about it.
        """

    def start(self) -> None:
        """Starts capturing."""
        self._began = self._heard = monotonic()
        self._thread.start()

    def close(self) -> None:
        """Stops capturing and wakes whoever waits. May be called more than once."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is not None:
            # A camera driver may hang in a read; the thread is a daemon, so the program can still end.
            self._thread.join(timeout=1.0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def finished(self) -> bool:
        """Whether no further frame will come."""
        with self._changed:
            return self._finished

    @property
    def trouble(self) -> str:
        """What keeps the wearer from being shown the present, in one sentence to read or speak; "" when nothing does.

        It goes by itself: a camera that is gone is looked for until it is back.
        """
        with self._changed:
            return self._trouble or self._silence()

    @property
    def unsure(self) -> bool:
        """Whether what it shows may not be the present yet: a camera that wakes up is black at first."""
        return self._watch is not None and self._watch.unsure

    def newest(self) -> list[CapturedFrame]:
        """Returns the newest frames, at most `RING_SIZE`, oldest first.

        Raises:
            LegoError: Capturing failed.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            return list(self._ring)

    def wait_for(
        self, total: int, timeout: float, tell: Callable[[str], None] = lambda trouble: None
    ) -> list[CapturedFrame]:
        """Blocks until `total` frames were captured since the start, or the source finished, or time is up.

        Args:
            total: Number of frames since the start, so that `frame.sequence + 1` waits for a newer frame.
            timeout: Seconds. Fewer frames than asked for are returned then.
            tell: Called with each new `trouble` while waiting.

        Returns:
            The newest frames, at most `RING_SIZE`, oldest first.

        Raises:
            LegoError: Capturing failed, or not one frame came in time.
        """
        told, end = "", monotonic() + timeout
        with self._changed:
            while not (self._captured >= total or self._finished or self._closing.is_set()):
                trouble = self._trouble or self._silence()
                if trouble not in ("", told):
                    tell(trouble)
                told = trouble
                if (left := end - monotonic()) <= 0:
                    break
                self._changed.wait(min(left, _SILENT_S))
            if self._error is not None:
                raise self._error
            if not self._ring:
                raise LegoError(self._trouble or f"{self.name} delivered no frame within {timeout:g} s; {_CHECK}")
            return list(self._ring)

    def view(
        self, after: int, timeout: float, tell: Callable[[str], None] = lambda trouble: None
    ) -> list[CapturedFrame]:
        """Blocks until there are frames to choose from that show what is seen now; what to ask a query about.

        Args:
            after: Sequence of the newest frame already asked about; a live source must have captured a later one. 0 at
                first.
            timeout: Seconds.
            tell: Called with each new `trouble` while waiting, and with one that the frames returned have.

        Returns:
            The newest frames, at most `RING_SIZE`, oldest first.

        Raises:
            LegoError: Capturing failed, not one frame came in time, or a live source stands still.
        """
        if not self.live:
            return self.wait_for(RING_SIZE, timeout, tell)
        with self._changed:
            if self._ring and self._ring[-1].age > _SILENT_S:  # what was seen before the camera fell silent
                after = max(after, self._ring[-1].sequence)
        end = monotonic() + timeout
        frames = self.wait_for(max(RING_SIZE, after + 1), timeout, tell)
        while self.unsure and not self.finished and monotonic() < end:
            frames = self.wait_for(frames[-1].sequence + 1, end - monotonic(), tell)  # a camera may still be waking up
        newest, trouble = frames[-1], self.trouble
        if newest.sequence <= after and not self.finished:
            raise LegoError(trouble or f"{self.name} has delivered no new frame for {timeout:g} s; {_CHECK}")
        if trouble:
            tell(trouble)
        return [frame for frame in frames if newest.captured - frame.captured <= _NEIGHBOURS_S]

    def pause(self, seconds: float) -> None:
        """Lets a subclass keep time in `capture`; returns at once when the source is being closed."""
        if seconds > 0:
            self._closing.wait(seconds)

    @property
    def closing(self) -> bool:
        """Whether `capture` should end."""
        return self._closing.is_set()

    def elapsed(self) -> float:
        """Returns the seconds since the source began."""
        return monotonic() - self._began

    def report(self, trouble: str) -> None:
        """Lets a subclass say in `capture` why no frame comes; the next frame ends it.

        Args:
            trouble: One sentence for the wearer.
        """
        with self._changed:
            self._trouble = trouble
            self._changed.notify_all()

    def _silence(self) -> str:
        """Judges a live source that says nothing at all: a driver may hang in a read. The caller holds the lock."""
        if not self.live or self._finished or not self._captured or monotonic() - self._heard < _SILENT_S:
            return ""
        return f"{self.name} has delivered no frame for more than {_SILENT_S:g} s; {_CHECK}"

    def _run(self) -> None:
        frames = self.capture()
        try:
            for pixels, moment in frames:
                if self._closing.is_set():
                    break
                view = self.framing.apply(pixels)
                now = monotonic()
                trouble = self._watch.look(view, now) if self._watch is not None else ""
                captured = self._began + moment if self.live else now
                frame = CapturedFrame(view, moment, self._captured + 1, captured)
                _ = frame.sharpness  # scored here, so that nobody who asks waits for it
                with self._changed:
                    self._captured += 1
                    self._heard = now
                    self._trouble = trouble
                    self._ring.append(frame)
                    self._changed.notify_all()
        except LegoError as error:
            self._error = error
        except Exception as error:  # OpenCV and Pillow raise many types; the waiting caller must hear of each
            self._error = LegoError(f"reading {self.name} failed: {error}")
        finally:
            frames.close()
            with self._changed:
                self._finished = True
                self._changed.notify_all()
