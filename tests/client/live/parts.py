"""A live session without a display, over a real connection, for tests to steer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import cv2
import numpy as np
from lego_client.backoff import Backoff
from lego_client.events import GuidanceOptions
from lego_client.live.controls import Controls
from lego_client.live.conversation import Conversation
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.live.steps import Steps
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource, open_source
from lego_client.sources.watch import PictureWatch
from lego_client.task.walk import Walk
from numpy.typing import NDArray

QUERY = "how do I open the drawer?"


@dataclass
class Live:
    state: LiveState
    conversation: Conversation
    controls: Controls
    steps: Steps | None
    screen: Screen
    source: FrameSource
    saved: list[str]

    def type(self, text: str) -> None:
        for name in ("enter", *text, "enter"):
            self.controls.press(name)


class Camera(FrameSource):
    """Shows what it is given."""

    def __init__(self, watch: PictureWatch | None = None) -> None:
        super().__init__("a camera", live=True, watch=watch)
        self.shows: Queue[NDArray[np.uint8]] = Queue()

    def capture(self) -> Generator[tuple[NDArray[np.uint8], float], None, None]:
        while not self.closing:
            try:
                yield self.shows.get(timeout=0.05), self.elapsed()
            except Empty:
                continue


@asynccontextmanager
async def live(
    target: str, folder: Path, *, ahead: bool = True, walk: Walk | None = None, kept: Path | None = None,
    camera: FrameSource | None = None, patience: float = 30.0,
) -> AsyncIterator[Live]:  # fmt: skip
    """Looks at one picture, in which a ghost finds its place, and talks to a server; perhaps leads through a task."""
    picture = folder / "view.png"
    patches = np.random.default_rng(0).integers(0, 256, (36, 64, 3), np.uint8)
    cv2.imwrite(str(picture), cv2.resize(patches, (320, 180), interpolation=cv2.INTER_CUBIC))
    state, saved = LiveState(target), []
    with camera or open_source(str(picture)) as source:
        conversation = Conversation(
            lambda: GuidanceClient(target, backoff=Backoff(patience), wait_seconds=patience),
            source,
            state,
            lambda client: GuidanceOptions(preview_every=2),
            ahead=ahead,
        )
        steps = None if walk is None else Steps(walk, conversation, state, kept)
        controls = Controls(state, conversation, lambda: saved.append("saved"), steps=steps, speaks=True)
        connecting = asyncio.create_task(conversation.connect())
        try:
            yield Live(state, conversation, controls, steps, Screen(state, source, controls.keys), source, saved)
        finally:
            await conversation.close()
            if steps is not None:
                await steps.close()
            connecting.cancel()
            with suppress(asyncio.CancelledError):
                await connecting


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (several tasks may make it so)
            await asyncio.sleep(0.01)
