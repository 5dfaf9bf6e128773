"""Streams over the network, as phones and wearables serve them: RTSP, or HTTP (MJPEG, single pictures, HLS, a file)."""

from __future__ import annotations

import time
from collections.abc import Generator

import cv2
import numpy as np
from lego_core.errors import LegoError
from numpy.typing import NDArray

from lego_client.backoff import Backoff, Outage
from lego_client.pace import Pace
from lego_client.sources.addresses import shown
from lego_client.sources.base import LIVE_FPS, FrameSource
from lego_client.sources.framing import Framing
from lego_client.sources.http_camera import TIMEOUT_S, HttpCamera, Unreachable
from lego_client.sources.jpeg_stream import decode
from lego_client.sources.opencv import opened, retrieve_rgb
from lego_client.sources.video import in_real_time
from lego_client.sources.watch import PictureWatch

_TIMEOUT_MS = round(TIMEOUT_S * 1000)
# Frames are shown as they arrive: FFmpeg neither collects some before it begins nor puts late ones in order. TCP,
# because a lost packet of UDP spoils pictures until the next whole one.
_LOW_LATENCY = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|reorder_queue_size;0|max_delay;0"


class NetworkStream(FrameSource):
    """A stream by its address.

    One that breaks off is opened again, after waits that grow and are drawn at random, until `backoff` gives up.
    """

    def __init__(self, address: str, framing: Framing | None = None, backoff: Backoff | None = None) -> None:
        # Compression may well give one picture for minutes where nothing moves.
        watch = PictureWatch(finds_still=False)
        super().__init__(shown(address), live=True, framing=framing, watch=watch)
        self._address = address
        self._backoff = backoff or Backoff()
        self._pace = Pace(LIVE_FPS)
        self._by_http = address.lower().startswith("http")
        self._stored = False
        self._single = False

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        """Yields frames as they arrive, of a stored video as they are due."""
        outage: Outage | None = None
        seen_any = False
        while not self.closing:
            came, fault = False, f"{self.name} broke off"
            try:
                for frame in self._jpegs() if self._by_http else self._video():
                    came = seen_any = True
                    yield frame
            except Unreachable as error:
                if not seen_any:
                    raise
                fault = str(error).partition(";")[0]
            if self._stored:
                return
            if not seen_any:
                raise Unreachable(f"no video at {self.name}; check the address, the password and that the stream is on")
            if came and self._single:
                self.pause(self._pace.wait(time.monotonic()))
                continue
            outage = Outage(self._backoff) if came or outage is None else outage
            self.report(f"{fault}: trying again")
            self.pause(outage.next_wait())
            if outage.seconds_left <= 0:
                raise LegoError(
                    f"{self.name} broke off and did not come back within {self._backoff.seconds:g} s; check the "
                    "network and the camera"
                )

    def _jpegs(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        camera = HttpCamera(self._address)
        try:
            if not camera.has_pictures:
                self._by_http = False
                camera.close()  # many cameras serve one at a time
                yield from self._video()
                return
            self._single = camera.single
            for picture in camera.pictures():
                if self.closing:
                    return
                now = time.monotonic()
                if self._pace.due(now) and (pixels := decode(picture)) is not None:
                    self._pace.take(now)
                    yield pixels, self.elapsed()
        finally:
            camera.close()

    def _video(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        options = (
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS,
            cv2.CAP_PROP_N_THREADS, 1,  # each further thread of FFmpeg holds a frame back
        )  # fmt: skip
        with opened(self._address, cv2.CAP_FFMPEG, options, ffmpeg=_LOW_LATENCY) as stream:
            if stream is None:
                return
            if stream.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a stored file arrives faster than it happened
                self._stored = True
                yield from in_real_time(self, stream, 1.0)
                return
            while not self.closing and stream.grab():
                now = time.monotonic()
                if self._pace.due(now) and (pixels := retrieve_rgb(stream)) is not None:
                    self._pace.take(now)
                    yield pixels, self.elapsed()
