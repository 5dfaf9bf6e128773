"""A live session without a display, over a real connection, for tests to steer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from lego_client.backoff import Backoff
from lego_client.events import GuidanceOptions
from lego_client.live.controls import Controls
from lego_client.live.conversation import Conversation
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource, open_source

QUERY = "how do I open the drawer?"


@dataclass
class Live:
    state: LiveState
    conversation: Conversation
    controls: Controls
    screen: Screen
    source: FrameSource
    saved: list[str]

    def type(self, text: str) -> None:
        for name in ("enter", *text, "enter"):
            self.controls.press(name)


@asynccontextmanager
async def live(target: str, folder: Path, *, ahead: bool = True) -> AsyncIterator[Live]:
    """Looks at one picture, in which a ghost finds its place, and talks to a server."""
    picture = folder / "view.png"
    patches = np.random.default_rng(0).integers(0, 256, (36, 64, 3), np.uint8)
    cv2.imwrite(str(picture), cv2.resize(patches, (320, 180), interpolation=cv2.INTER_CUBIC))
    state, saved = LiveState(target), []
    with open_source(str(picture)) as source:
        conversation = Conversation(
            lambda: GuidanceClient(target, backoff=Backoff(30), wait_seconds=30),
            source,
            state,
            lambda client: GuidanceOptions(preview_every=2),
            ahead=ahead,
        )
        controls = Controls(state, conversation, lambda: saved.append("saved"))
        connecting = asyncio.create_task(conversation.connect())
        try:
            yield Live(state, conversation, controls, Screen(state, source, controls.keys), source, saved)
        finally:
            await conversation.close()
            connecting.cancel()
            with suppress(asyncio.CancelledError):
                await connecting


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (several tasks may make it so)
            await asyncio.sleep(0.01)
