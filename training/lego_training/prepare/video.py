"""Frames of a video file at given times: one pass over the parts that are needed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import av
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from lego_training.prepare.actions import Reason
from lego_training.prepare.source import TimedFrame, UnusableVideo, stored_size

_MOST_PIXELS = 50_000_000
# Seconds without a wanted frame that are worth a jump: it lands on a keyframe before, often seconds too early.
_JUMP = 10.0


class VideoFile:
    """A video file as a `FrameSource`.

    Times are those of the file's timestamps, counted from its first frame, so that a variable or a wrongly stated frame
    rate does not matter.

    Args:
        path: The file.
        height: Of the frames it returns, in pixels.

    Raises:
        UnusableVideo: It cannot be opened, or is no video.
    """

    def __init__(self, path: Path, height: int) -> None:
        self._path = path
        try:
            self._container = av.open(str(path))
        except FFmpegError as error:
            raise UnusableVideo(Reason.UNREADABLE_VIDEO, f"{path} cannot be opened ({error.strerror})") from error
        if not self._container.streams.video:
            self._container.close()
            raise UnusableVideo(Reason.UNREADABLE_VIDEO, f"{path} has no video stream")
        self._stream = self._container.streams.video[0]
        width, tall = self._stream.width, self._stream.height
        if not 0 < width * tall <= _MOST_PIXELS:
            self._container.close()
            text = f"{path} is {width}x{tall} pixels; the limit is {_MOST_PIXELS} pixels"
            raise UnusableVideo(Reason.UNREADABLE_VIDEO, text)
        # Videos are decoded side by side, one a process.
        self._stream.thread_type = "NONE"
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0) or 30.0
        self.source_size = width, tall
        self.size = stored_size(self.source_size, height)
        self._scaler = VideoReformatter()  # one for all frames: it keeps its filters
        self._unit = float(self._stream.time_base or 1 / 90_000)
        self._first = self._stream.start_time or 0
        self._end: float | None = None  # time of the last frame, once it has been seen
        self._broken: list[float] = []

    def close(self) -> None:
        """Lets the file go."""
        self._container.close()

    def windows(self, times: Sequence[float], reach: int, stride: int) -> Iterator[list[TimedFrame]]:
        """See `FrameSource`."""
        span = reach * stride
        for group in _groups(times):
            yield from self._group(group, span, stride)

    def why_missing(self, time: float) -> tuple[Reason, str]:
        """See `FrameSource`."""
        broken = [each for each in self._broken if abs(each - time) < 1.0]
        if broken:
            return Reason.BROKEN_FRAMES, f"{self._path} cannot be decoded at {broken[0]:.3f} s, near {time:.3f} s"
        if self._end is not None and time > self._end:
            told = self._duration()
            # A file may end a frame or two before the duration it states.
            if told is not None and told > self._end + 1.0:
                text = f"{self._path} breaks off at {self._end:.3f} s of {told:.3f} s, before {time:.3f} s"
                return Reason.TRUNCATED_VIDEO, text
            return Reason.SHORT_VIDEO, f"{self._path} ends at {self._end:.3f} s, before {time:.3f} s"
        return Reason.NO_FRAME, f"{self._path} has no frame near {time:.3f} s"

    def _duration(self) -> float | None:
        if self._stream.duration is not None:
            return self._stream.duration * self._unit
        return self._container.duration / av.time_base if self._container.duration is not None else None

    def _group(self, times: list[float], span: int, stride: int) -> Iterator[list[TimedFrame]]:
        """Decodes from the first time to the last, holding no more frames than one window needs."""
        held: deque[tuple[float, VideoFrame]] = deque(maxlen=2 * span + 2)
        reached: list[int] = []  # for each time that has come, the number of the first frame not before it
        done = 0
        for number, (time, frame) in enumerate(self._from(times[0], span)):
            held.append((time, frame))
            while len(reached) < len(times) and time >= times[len(reached)]:
                reached.append(number)
            while done < len(reached) and number >= reached[done] + span:
                yield self._window(held, times[done], span, stride)
                done += 1
            if done == len(times):
                return
        self._end = held[-1][0] if held else self._end or 0.0
        for time in times[done:]:
            yield self._window(held, time, span, stride)

    def _window(
        self, held: Sequence[tuple[float, VideoFrame]], wanted: float, span: int, stride: int
    ) -> list[TimedFrame]:
        if not held:
            return []
        nearest = min(range(len(held)), key=lambda index: abs(held[index][0] - wanted))
        numbers = range(nearest - span, nearest + span + 1, stride)
        return [self._picture(*held[number]) for number in numbers if 0 <= number < len(held)]

    def _picture(self, time: float, frame: VideoFrame) -> TimedFrame:
        width, height = self.size
        small = self._scaler.reformat(frame, width, height, "rgb24", interpolation=Interpolation.LANCZOS)
        return TimedFrame(time, small.to_image())

    def _from(self, wanted: float, span: int) -> Iterator[tuple[float, VideoFrame]]:
        """Yields frames from at least span + 1 before a time on, or else from the first."""
        lead = max(1.0, 2 * (span + 1) / self.fps)
        while True:
            frames = self._decode(wanted - lead)
            before: deque[tuple[float, VideoFrame]] = deque(maxlen=span + 2)
            count = 0
            for each in frames:
                before.append(each)
                count += 1
                if each[0] >= wanted:
                    break
            if wanted <= lead or count >= span + 2:
                return chain(before, frames)
            lead *= 4

    def _decode(self, start: float) -> Iterator[tuple[float, VideoFrame]]:
        """Yields (time, frame) from the keyframe before `start` on, leaving out what cannot be decoded.

        After a broken frame nothing counts until the next keyframe: what is decoded there shows the damage too, and the
        decoder does not say so.
        """
        is_damaged = False
        self._container.seek(self._first + int(max(0.0, start) / self._unit), stream=self._stream)
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:  # the file breaks off
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except FFmpegError:
                self._note_broken(packet.pts)
                is_damaged = True
                continue
            for frame in frames:
                is_damaged = frame.is_corrupt or (is_damaged and not frame.key_frame)
                if frame.pts is None or is_damaged:
                    self._note_broken(frame.pts)
                else:
                    yield self._time(frame.pts), frame

    def _time(self, pts: int) -> float:
        return (pts - self._first) * self._unit

    def _note_broken(self, pts: int | None) -> None:
        self._broken.append(math.inf if pts is None else self._time(pts))


def _groups(times: Sequence[float]) -> Iterator[list[float]]:
    """Yields runs of times without a long pause between them."""
    group: list[float] = []
    for time in times:
        if group and time - group[-1] > _JUMP:
            yield group
            group = []
        group.append(time)
    if group:
        yield group
