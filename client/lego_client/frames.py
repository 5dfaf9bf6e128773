"""Frames on their way: within the server's credits, each under an id of the present session, the newest view first."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np
from lego_core.errors import LegoError
from lego_proto.v1 import guidance_pb2 as pb
from numpy.typing import NDArray

from lego_client.encoding import EncodedFrame, encode_frame, within_limits
from lego_client.errors import ServerError
from lego_client.frame_window import FrameWindow
from lego_client.link import Link
from lego_client.observer import SessionObserver
from lego_client.pace import Pace
from lego_client.pending import SentFrame
from lego_client.sending import LevelChooser, Sending
from lego_client.tracing import SessionTraces


class FrameSender:
    """Sends frames over a link, one after another.

    Attributes:
        window: What the server's session has; told of streams and acknowledgements by the owner.
        newest: The frame sent last; None before the first. The owner forgets one that has been refused.
    """

    def __init__(
        self, link: Link, observer: SessionObserver, sending: Sending | None = None,
        traces: SessionTraces | None = None,
    ) -> None:  # fmt: skip
        self._sending = sending or Sending()
        self._levels = LevelChooser.of(self._sending)
        self.window = FrameWindow(self._levels.delivered)
        self.newest: SentFrame | None = None
        self._link = link
        self._observer = observer
        self._traces = traces or SessionTraces()
        self._lock = asyncio.Lock()
        self._next_id = 1
        self._offered: tuple[NDArray[np.uint8], float] | None = None
        self._offer_arrived = asyncio.Event()
        self._offers: asyncio.Task[None] | None = None
        self._offer_failed: LegoError | None = None

    def start(self) -> None:
        """Begins to send what is offered."""
        self._offers = asyncio.create_task(self._send_offers())

    async def stop(self) -> None:
        """Sends no more of it."""
        if self._offers is not None:
            self._offers.cancel()
            with contextlib.suppress(asyncio.CancelledError, LegoError, ServerError):
                await self._offers

    async def send(self, pixels: NDArray[np.uint8] | EncodedFrame, captured: float | None = None) -> SentFrame:
        """See `GuidanceClient.send_frame`."""
        self._link.check()
        captured = time.monotonic() if captured is None else captured
        self._offered = None  # older than this one
        return await self._send(await self._encode(pixels), captured)

    def offer(self, pixels: NDArray[np.uint8], captured: float | None = None) -> None:
        """See `GuidanceClient.offer_frame`."""
        self._link.check()
        if self._offers is not None and self._offers.done():
            self._offers.result()
        failed, self._offer_failed = self._offer_failed, None
        if failed is not None:
            raise failed
        if self._sending.data_saver:
            return
        self._offered = pixels, time.monotonic() if captured is None else captured
        self._offer_arrived.set()

    async def ensure(self, frame: SentFrame) -> int:
        """Returns the id that a frame has in the present session, after sending it again where it has none.

        Raises:
            ServerError: The server went away for good.
        """
        async with self._lock:
            known = self.window.id_of(frame.frame_id)
            if known is not None:
                return known
            await self.window.room()
            return (await self._transmit(frame.encoded, frame.captured, frame.frame_id)).frame_id

    async def _encode(self, frame: NDArray[np.uint8] | EncodedFrame) -> EncodedFrame:
        info = self._link.info
        limits = info.max_image_bytes, info.max_image_pixels
        with self._traces.stretch("encode frame"):
            if isinstance(frame, EncodedFrame):
                return await asyncio.to_thread(within_limits, frame, *limits)
            return await asyncio.to_thread(encode_frame, frame, *limits, self._levels.level, info.resolution)

    async def _send(self, encoded: EncodedFrame, captured: float) -> SentFrame:
        async with self._lock:
            await self.window.room()
            return await self._transmit(encoded, captured)

    async def _transmit(self, encoded: EncodedFrame, captured: float, first_id: int | None = None) -> SentFrame:
        """Sends a frame under the next id; the caller holds the lock and has waited for room."""
        frame = SentFrame(self._next_id, encoded, captured)
        self._next_id += 1
        if first_id is None:
            self.newest = frame
            self._observer.frame_sent(frame)
        if self._link.up:  # without a stream it keeps: whoever asks about it has it sent again
            self.window.sent(first_id or frame.frame_id, frame.frame_id, len(encoded.jpeg))
            with self._traces.stretch("send frame"):
                await self._link.write(pb.GuideRequest(frame=pb.Frame(frame_id=frame.frame_id, image=encoded.jpeg)))
        return frame

    async def _send_offers(self) -> None:
        pace = Pace(self._sending.fps)
        while True:
            await self._offer_arrived.wait()
            await asyncio.sleep(pace.wait(time.monotonic()))
            await self.window.room(spare=1)  # a frame that is asked about need not wait for those that are not
            offered, self._offered = self._offered, None
            self._offer_arrived.clear()
            pace.take(time.monotonic())
            if offered is not None and self._link.up:
                pixels, captured = offered
                try:
                    await self._send(await self._encode(pixels), captured)
                except LegoError as error:  # of this frame; the next may be better
                    self._offer_failed = error
