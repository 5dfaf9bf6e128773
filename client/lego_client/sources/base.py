"""The interface of every frame source: a capture thread that keeps only the newest frames."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Self

import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

# The paper picks each of its frames from seven neighbours (LEGO, section 4.1).
RING_SIZE = 7


@dataclass(frozen=True)
class CapturedFrame:
    """One frame as it left the camera.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        time: Seconds since the source began; for a video file, the position in the file.
        sequence: 1 for the first frame of a source, then counting up.
    """

    pixels: NDArray[np.uint8]
    time: float
    sequence: int


class FrameSource(ABC):
    """Captures in a thread of its own, so that reading a camera never blocks the caller's event loop.

    A subclass writes `capture` and nothing else. Errors met while capturing are raised by `wait_for` and `newest`.
    `wait_for` blocks: call it with `asyncio.to_thread` from async code; `close` wakes it.

    Attributes:
        name: What to call this source in messages and records.
        live: Whether it shows the present (a camera, a stream) rather than a stored picture or clip.
    """

    def __init__(self, name: str, *, live: bool) -> None:
        self.name = name
        self.live = live
        self._ring: deque[CapturedFrame] = deque(maxlen=RING_SIZE)
        self._captured = 0
        self._finished = False
        self._error: LegoError | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {name}", daemon=True)

    @abstractmethod
    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields `(pixels, time)` as frames are captured; runs in the capture thread, ends when there are no more.

        Raises:
            LegoError: The source cannot be opened or read, and what to do about it.
        """

    def start(self) -> None:
        """Starts capturing."""
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

    def newest(self) -> list[CapturedFrame]:
        """Returns the newest frames, at most `RING_SIZE`, oldest first.

        Raises:
            LegoError: Capturing failed.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            return list(self._ring)

    def wait_for(self, total: int, timeout: float) -> list[CapturedFrame]:
        """Blocks until `total` frames were captured since the start, or the source finished, or time is up.

        Args:
            total: Number of frames since the start, so that `frame.sequence + 1` waits for a newer frame.
            timeout: Seconds. Fewer frames than asked for are returned then.

        Returns:
            The newest frames, at most `RING_SIZE`, oldest first.

        Raises:
            LegoError: Capturing failed, or not one frame came in time.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._captured >= total or self._finished or self._closing.is_set(), timeout)
            if self._error is not None:
                raise self._error
            if not self._ring:
                raise LegoError(f"{self.name} delivered no frame within {timeout:g} s; check that it is switched on")
            return list(self._ring)

    def view(self, after: int, timeout: float) -> list[CapturedFrame]:
        """Blocks until there are frames to choose from that show what is seen now; what to ask a query about.

        Args:
            after: Sequence of the newest frame already asked about; a live source must have captured a later one. 0 at
                first.
            timeout: Seconds.

        Returns:
            The newest frames, at most `RING_SIZE`, oldest first.

        Raises:
            LegoError: Capturing failed, not one frame came in time, or a live source stands still.
        """
        frames = self.wait_for(max(RING_SIZE, after + 1) if self.live else RING_SIZE, timeout)
        if self.live and frames[-1].sequence <= after and not self.finished:
            raise LegoError(f"{self.name} has delivered no new frame for {timeout:g} s; check that it still runs")
        return frames

    def pause(self, seconds: float) -> None:
        """Lets a subclass keep time in `capture`; returns at once when the source is being closed."""
        if seconds > 0:
            self._closing.wait(seconds)

    def _run(self) -> None:
        frames = self.capture()
        try:
            for pixels, time in frames:
                if self._closing.is_set():
                    break
                with self._changed:
                    self._captured += 1
                    self._ring.append(CapturedFrame(pixels, time, self._captured))
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
