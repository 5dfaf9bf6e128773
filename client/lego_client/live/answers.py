"""Answers kept as files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lego_core.errors import LegoError

from lego_client.errors import ServerError
from lego_client.live.conversation import Conversation
from lego_client.live.exchange import Exchange
from lego_client.live.state import LiveState
from lego_client.output import answer_directory, check_output, save_answer

DEFAULT_FOLDER = Path("lego-answers")


class AnswerFiles:
    """Saves answers: each one, where a folder was named for them, else those that the wearer chooses.

    Args:
        conversation: Whose answers.
        state: What is on display, and told what was saved where.
        source: The name of the camera, for the record.
        out: The folder for every answer; None saves on demand only.

    Raises:
        LegoError: The folder cannot be made.
    """

    def __init__(self, conversation: Conversation, state: LiveState, source: str, out: Path | None) -> None:
        self._conversation = conversation
        self._state = state
        self._source = source
        self._out = out or DEFAULT_FOLDER
        self._saving: set[asyncio.Task[None]] = set()
        if out is not None:
            check_output(out)
            conversation.when_ended(self._save)

    def save_shown(self) -> None:
        """Saves the answer on display."""
        shown = self._state.shown
        if shown is None or shown.guidance is None:
            self._state.tell("there is no answer to save yet")
            return
        task = asyncio.create_task(self._save(shown))
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def close(self) -> None:
        """Waits for what is being saved."""
        await asyncio.gather(*self._saving)

    async def _save(self, exchange: Exchange) -> None:
        answer = exchange.answer(self._source)
        if answer is None:
            return

        def write() -> Path:
            check_output(self._out)
            return save_answer(answer_directory(self._out, one_of_many=True), answer, self._conversation.info)[0].parent

        try:
            self._state.tell(f"saved in {await asyncio.to_thread(write)}", 4)
        except (LegoError, ServerError) as error:
            self._state.tell(str(error))
