"""Questions and answers of one wearer, over a server that may come and go."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from lego_core.errors import LegoError

from lego_client.errors import ServerError
from lego_client.events import GuidanceOptions, ServerInfo
from lego_client.live.exchange import Exchange
from lego_client.live.state import LiveState
from lego_client.pending import SentFrame
from lego_client.session import GuidanceClient
from lego_client.sharpness import as_sharp, sharpest
from lego_client.sources import CapturedFrame, FrameSource

_LOOK_SECONDS = 0.1  # between two looks at the connection
_FRAME_SECONDS = 10.0  # for which a question waits for a camera that shows nothing
_AHEAD_SECONDS = 0.3  # between two views sent while the wearer asks
_PRESENT_SECONDS = 0.5  # by which a view sent ahead may be older than the newest: what the wearer still sees

Options = Callable[[GuidanceClient], GuidanceOptions]
Listener = Callable[[Exchange], Awaitable[None]]


class Conversation:
    """Asks for the wearer, one question at a time: a new one takes the place of one that is not yet answered.

    What the camera sees is sent when a question is asked, or begun to be asked, and at no other time, unless `stream`
    says otherwise. A question asked while the server is away waits until it is back.

    Args:
        open_client: Makes a session that is not yet connected.
        source: The started camera.
        state: Told everything.
        options: How to paint, once the server is known.
        retries: How often to ask again when the server has no room.
        ahead: Whether views are sent while the wearer asks, so that the server knows what the question is about.

    Attributes:
        info: What the server runs, as far as is known.
    """

    def __init__(
        self,
        open_client: Callable[[], GuidanceClient],
        source: FrameSource,
        state: LiveState,
        options: Options,
        *,
        retries: int = 3,
        ahead: bool = True,
    ) -> None:
        self._open_client = open_client
        self._source = source
        self._state = state
        self._options = options
        self._retries = retries
        self._ahead = ahead
        self._client: GuidanceClient | None = None
        self._connected = asyncio.Event()
        self._wanted = asyncio.Event()
        self._refusal: LegoError | ServerError | None = None  # what the last question met, once it is known
        self._asking: asyncio.Task[None] | None = None
        self._ended: list[Listener] = []
        self._looked = -math.inf
        self._shown_ahead = -math.inf  # when the last view sent ahead was captured
        self.info = ServerInfo()
        state.offline = f"connecting to {state.target}"

    def when_ended(self, listener: Listener) -> None:
        """Has a listener told of every question that has got its answer or failed."""
        self._ended.append(listener)

    async def connect(self) -> None:
        """Keeps a session open until cancelled. A server that refuses is tried again with the next question.

        Raises:
            LegoError: The server refused the first time, and trying again would not help.
            ServerError: As above.
        """
        first = True
        while True:
            try:
                async with self._open_client() as client:
                    first = False
                    await self._stay(client)
            except (LegoError, ServerError) as error:
                if first:
                    raise
                self._state.offline = f"{error}; the next question tries again"
                self._refusal = error
                self._connected.set()  # a question that waits for it is told
                self._connected.clear()
            self._wanted.clear()
            await self._wanted.wait()
            self._state.offline = f"connecting to {self._state.target}"

    async def stream(self, frames_per_second: float) -> None:
        """Sends the newest view again and again, until cancelled: answers come a little sooner, and data is used."""
        while True:
            self._offer_view()
            await asyncio.sleep(1 / frames_per_second)

    def look_ahead(self) -> None:
        """Sends the present view before the question about it; called with every letter and word the wearer asks by."""
        now = time.monotonic()
        if now - self._looked >= _AHEAD_SECONDS:
            self._looked = now
            self._offer_view()

    def _offer_view(self) -> None:
        if not self._ahead or self._client is None or not self._client.online:
            return
        if self._source.trouble or self._source.unsure:
            return
        with contextlib.suppress(LegoError, ServerError):  # told when the question itself is asked
            frames = self._source.newest()
            view = sharpest(_present(frames)) if frames else None
            if view is not None and view.captured != self._shown_ahead:
                self._client.offer_frame(view.pixels, view.captured)
                self._shown_ahead = view.captured

    def ask(self, query: str) -> Exchange:
        """Asks about what the wearer sees now; a question still unanswered is given up for this one."""
        self.cancel("a newer question took its place")
        exchange = Exchange(query, GuidanceOptions())
        self._state.add(exchange)
        self._refusal = None
        self._wanted.set()
        self._asking = asyncio.create_task(self._ask(exchange))
        return exchange

    def cancel(self, why: str = "cancelled") -> bool:
        """Gives up the question under way; returns whether there was one."""
        exchange = self._state.newest
        if self._asking is None or self._asking.done() or exchange is None or not exchange.pending:
            return False
        exchange.fail(why)
        self._asking.cancel()
        return True

    async def close(self) -> None:
        """Gives up what is under way and waits until the server has been told."""
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    async def _stay(self, client: GuidanceClient) -> None:
        """Stays with a session as long as it can be kept, and says when it is away.

        Raises:
            ServerError: It is lost for good.
        """
        self._client, self.info = client, client.info
        self._connected.set()
        try:
            while True:
                client.check()
                self._state.offline = "" if client.online else f"{self._state.target} is away; trying again"
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._connected.clear()
            self._client = None

    async def _ask(self, exchange: Exchange) -> None:
        try:
            sent = self._sent_ahead()
            view = await self._view() if sent is None else None
            while (client := self._client) is None:
                await self._connected.wait()
                if self._refusal is not None:
                    raise self._refusal
            exchange.options = self._options(client)
            if view is not None:
                sent = await client.send_frame(view.pixels, view.captured)
            exchange.frame = sent
            asking = client.ask(exchange.query, exchange.frame, exchange.options, retries=self._retries)
            decoding = asyncio.create_task(asyncio.to_thread(exchange.decode_asked))  # while the server is at work
            try:
                async with aclosing(asking) as events:
                    async for event in events:
                        exchange.take(event)
            finally:
                await decoding
        except (LegoError, ServerError) as error:
            exchange.fail(error)
            self._state.tell(exchange.failed)
        except Exception as error:  # a question must not wait for ever, whatever it is
            exchange.fail(f"the question failed ({error}); ask again")
            self._state.tell(exchange.failed)
        if exchange.pending:  # the server ended it without a word
            exchange.fail("the server gave no answer; ask again")
        for listener in self._ended:
            await listener(exchange)

    def _sent_ahead(self) -> SentFrame | None:
        """Returns the frame sent last if it shows what the wearer sees now, as well as any of the newest frames does.

        Raises:
            LegoError: The camera cannot be read.
        """
        sent = None if self._client is None else self._client.newest_frame
        if sent is None or self._source.trouble or self._source.unsure:
            return None
        views = _present(self._source.newest())
        view = next((each for each in views if each.captured == sent.captured), None)
        return sent if view is not None and as_sharp(view, views) else None

    async def _view(self) -> CapturedFrame:
        """Returns the sharpest of the newest frames, taken when the wearer asked and not when the server is back.

        Raises:
            LegoError: The camera shows nothing.
        """
        return await asyncio.to_thread(lambda: sharpest(self._source.view(0, _FRAME_SECONDS, self._state.tell)))


def _present(frames: Sequence[CapturedFrame]) -> list[CapturedFrame]:
    """Returns those of the newest frames that show what is seen now."""
    return [frame for frame in frames if frames[-1].captured - frame.captured <= _PRESENT_SECONDS]
