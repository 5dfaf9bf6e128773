"""A live session from its parts: runs until the wearer leaves, and ends tidily."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lego_core.errors import LegoError

from lego_client.live.answers import AnswerFiles
from lego_client.live.controls import Controls
from lego_client.live.conversation import Conversation, Options
from lego_client.live.displays import open_display
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.live.steps import Steps
from lego_client.live.voice import Hearing, Voice
from lego_client.overlay.modes import MODES
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource
from lego_client.task.walk import Walk

if TYPE_CHECKING:
    from lego_client.recording.recorder import Recorder
    from lego_client.speech.speak import Speaker

_LOOK_SECONDS = 0.05  # between two looks for a new view


@dataclass(frozen=True)
class LiveSettings:
    """What the wearer chose.

    Attributes:
        display: One of `displays.DISPLAYS`.
        mode: One of `overlay.modes.MODES`.
        out: A folder for every answer; None saves on demand only.
        stream_fps: Views sent per second whether asked about or not; 0 sends none but those asked about.
        ahead: Whether views are sent while the wearer asks.
        retries: How often to ask again when the server has no room.
        first_query: Asked at once; "" for none.
        walk: A task to be led through; None for none.
        kept: A file that keeps what is done of it; None for none.
    """

    display: str
    mode: str
    out: Path | None = None
    stream_fps: float = 0.0
    ahead: bool = True
    retries: int = 3
    first_query: str = ""
    walk: Walk | None = None
    kept: Path | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise LegoError(f"the mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        if not 0 <= self.stream_fps <= 30:
            raise LegoError(f"stream-fps is {self.stream_fps:g}; it must be from 0 to 30 views a second")
        if self.stream_fps and not self.ahead:
            raise LegoError("--stream-fps sends views all the time, and --data-saver none unasked; choose one")


async def run_live(
    open_client: Callable[[], GuidanceClient],
    source: FrameSource,
    options: Options,
    settings: LiveSettings,
    target: str,
    *,
    hearing: Hearing | None = None,
    speaker: Speaker | None = None,
    recorder: Recorder | None = None,
) -> None:
    """Runs a live session until the wearer leaves.

    Args:
        open_client: Makes a session that is not yet connected.
        source: The camera, not yet started.
        options: How to paint, once the server is known.
        settings: What the wearer chose.
        target: HOST:PORT of the server.
        hearing: What listens; None for nobody.
        speaker: What speaks; None for nobody.
        recorder: Keeps what is seen, sent and heard; None for nothing.

    Raises:
        LegoError: The display or the camera cannot be had, or the server refuses.
        ServerError: There is no server for as long as is waited for one.
    """
    state = LiveState(target=target, mode=settings.mode, aloud=speaker is not None)
    with source:
        conversation = Conversation(open_client, source, state, options, retries=settings.retries, ahead=settings.ahead)
        steps = None if settings.walk is None else Steps(settings.walk, conversation, state, settings.kept)
        async with Voice(hearing, speaker, conversation, state, steps) as voice:
            files = AnswerFiles(conversation, state, source.name, settings.out)  # an answer is spoken, then saved
            controls = Controls(
                state, conversation, files.save_shown, voice.talk if voice.by_key else None, steps, speaker is not None
            )  # fmt: skip
            display = open_display(settings.display, state, Screen(state, source, controls.keys), controls)
            if settings.first_query:
                conversation.ask(settings.first_query)
            work = [asyncio.create_task(each) for each in (display.run(), conversation.connect(), _first_view(source))]
            beside = [asyncio.create_task(voice.run())]
            if settings.stream_fps:
                beside.append(asyncio.create_task(conversation.stream(settings.stream_fps)))
            if recorder is not None:
                beside.append(asyncio.create_task(_record(source, recorder)))
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await conversation.close()
                await files.close()
                if steps is not None:
                    await steps.close()
                for task in (*work, *beside):
                    task.cancel()
                for task in (*work, *beside):
                    with contextlib.suppress(asyncio.CancelledError, Exception):  # the first failure has been raised
                        await task


async def _first_view(source: FrameSource) -> NoReturn:
    """Ends the session by what a camera says that cannot be had. One that fails later is told on the screen.

    Raises:
        LegoError: It cannot.
    """
    while not source.newest():  # noqa: ASYNC110 (captured in a thread)
        await asyncio.sleep(_LOOK_SECONDS)
    await asyncio.Event().wait()  # the session ends otherwise
    raise AssertionError("nobody sets it")


async def _record(source: FrameSource, recorder: Recorder) -> None:
    """Gives the recorder each new view; it takes what it has room for."""
    seen = 0
    while True:
        with contextlib.suppress(LegoError):  # a camera that fails is told on the screen
            frames = source.newest()
            if frames and frames[-1].sequence != seen:
                seen = frames[-1].sequence
                recorder.captured(frames[-1].pixels)
        await asyncio.sleep(_LOOK_SECONDS)
