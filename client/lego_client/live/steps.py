"""A task in a live session: its steps are asked about as the wearer says, types or presses "next"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.live.conversation import Conversation
from lego_client.live.state import LiveState
from lego_client.task.memory import save_walk
from lego_client.task.walk import Walk
from lego_client.task.words import Command


class Steps:
    """Leads through a task, one step at a time.

    Args:
        walk: The task, and where it stands.
        conversation: Asks about the steps.
        state: Told of the step at hand.
        kept: A file that keeps what is done; None for none.
    """

    def __init__(self, walk: Walk, conversation: Conversation, state: LiveState, kept: Path | None = None) -> None:
        self._walk = walk
        self._conversation = conversation
        self._state = state
        self._kept = kept
        self._told: list[Callable[[str], None]] = []
        self._saving: asyncio.Task[None] | None = None
        state.step = walk.begin().say

    def when_told(self, listener: Callable[[str], None]) -> None:
        """Has a listener get every sentence that the wearer is told of the task."""
        self._told.append(listener)

    def hear(self, text: str) -> bool:
        """Does what was typed or said if that is a way through the task; returns whether it was."""
        command = self._walk.command(text)
        if command is not None:
            self.obey(command)
        return command is not None

    def obey(self, command: Command) -> None:
        """Goes where the wearer wants to. "Stop" gives up the question under way; the task stays where it is."""
        if command is Command.STOP:
            self._conversation.cancel()
            self._state.tell("stopped; say next to go on", 3)
            return
        reply = self._walk.obey(command)
        if self._kept is not None:
            self._saving = asyncio.create_task(self._save(self._kept, self._saving))
        if reply.query is None:
            self._state.tell(reply.say)
        if reply.query is not None or self._walk.finished:
            self._state.step, self._state.step_query = reply.say, reply.query
        for listener in self._told:
            listener(reply.say)
        if reply.query is not None:
            self._conversation.ask(reply.query)

    async def close(self) -> None:
        """Waits until what is done has been written."""
        if self._saving is not None:
            await self._saving

    async def _save(self, path: Path, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before  # two at once might end the older one last
        try:
            await asyncio.to_thread(save_walk, path, self._walk)
        except LegoError as error:
            self._state.tell(str(error))
