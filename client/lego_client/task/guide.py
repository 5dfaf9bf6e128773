"""A task walked through at the keyboard: each step is asked about what the camera shows when its turn has come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lego_core.errors import LegoError
from rich.console import Console
from rich.text import Text

from lego_client.answer import Answer, ask
from lego_client.cli_options import Patience
from lego_client.display import AnswerDisplay
from lego_client.errors import ServerError
from lego_client.events import GuidanceOptions
from lego_client.output import answer_directory, save_answer
from lego_client.session import GuidanceClient
from lego_client.sharpness import sharpest
from lego_client.sources import FrameSource
from lego_client.task.memory import save_walk
from lego_client.task.typed import TypedLines
from lego_client.task.walk import Walk

_FRAMES_S = 15.0  # cameras need a moment to wake, network streams a few


@dataclass(frozen=True)
class TaskSettings:
    """What the wearer chose.

    Attributes:
        out: A folder for the answers.
        state: Keeps what is done; None keeps nothing.
        options: How to sample.
        patience: How long an answer may take.
        interruptible: Whether a new line gives up the answer under way, as somebody at a keyboard expects.
    """

    out: Path
    state: Path | None
    options: GuidanceOptions
    patience: Patience
    interruptible: bool


class TaskGuide:
    """Leads through a task over a connected session and a started camera."""

    def __init__(
        self, client: GuidanceClient, source: FrameSource, walk: Walk, settings: TaskSettings, console: Console
    ) -> None:
        self._client = client
        self._source = source
        self._walk = walk
        self._settings = settings
        self._console = console
        self._newest = 0

    async def run(self, lines: TypedLines) -> None:
        """Goes on until the task is finished, or the wearer stops or has no more to say.

        Raises:
            LegoError: The state or an answer cannot be written.
            ServerError: The server went away for good.
        """
        self._tell(self._walk.begin().say)
        following: asyncio.Task[str | None] | None = None
        try:
            while not self._walk.finished:
                following = following or asyncio.create_task(lines.next())
                line = await following
                following = None
                if line is None:
                    return
                reply = self._walk.hear(line)
                if self._settings.state is not None:
                    await asyncio.to_thread(save_walk, self._settings.state, self._walk)
                self._tell(reply.say)
                if reply.left:
                    return
                if reply.query is not None:
                    following = await self._answer(reply.query, lines)
        finally:
            if following is not None:
                following.cancel()

    async def _answer(self, query: str, lines: TypedLines) -> asyncio.Task[str | None] | None:
        """Asks; returns the line that came meanwhile, or is yet to come."""
        if not self._settings.interruptible:
            await self._ask(query)
            return None
        asking = asyncio.create_task(self._ask(query))
        typing = asyncio.create_task(lines.next())
        try:
            await asyncio.wait((asking, typing), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
        return typing

    async def _ask(self, query: str) -> None:
        settings = self._settings
        try:
            frames = await asyncio.to_thread(self._source.view, self._newest, _FRAMES_S, self._warn)
            self._newest = frames[-1].sequence
            seen = await asyncio.to_thread(sharpest, frames)
            frame = await self._client.send_frame(seen.pixels, seen.captured)
            with AnswerDisplay(self._console, query) as display:
                answer: Answer = await ask(
                    self._client, query, frame, source=self._source.name, options=settings.options,
                    time_limit=settings.patience.timeout, deadline_seconds=settings.patience.deadline,
                    retries=settings.patience.retries, on_event=display.show,
                )  # fmt: skip
        except (LegoError, ServerError) as error:
            self._client.check()  # a session that has ended for good ends the task
            self._console.print(Text(f"{error}; say repeat to try again", style="red"))
            return
        directory = answer_directory(settings.out, one_of_many=True)
        self._written(save_answer(directory, answer, self._client.info))

    def _tell(self, say: str) -> None:
        if say:
            self._console.print(Text(say, style="bold"), soft_wrap=True)

    def _warn(self, trouble: str) -> None:
        self._console.print(Text(trouble, style="yellow"), soft_wrap=True)

    def _written(self, paths: Sequence[Path]) -> None:
        self._console.print(Text(f"wrote {paths[0]}"), soft_wrap=True)
