"""No display at all: what happens as lines of text, and questions as lines of standard input."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading

from lego_client.live.controls import Controls
from lego_client.live.state import LiveState

_PERIOD = 0.1  # seconds between two looks at the state
_COMMANDS = {
    "/next": "n",
    "/back": "b",
    "/quit": "q",
    "/repeat": "r",
    "/cancel": "escape",
    "/talk": " ",
    "/voice": "v",
    "/save": "s",
}


class Lines:
    """Writes a line whenever something changes. A line of input is a question, or one of a few commands."""

    def __init__(self, state: LiveState, controls: Controls) -> None:
        self._state = state
        self._controls = controls
        self._told: dict[str, object] = {}

    async def run(self) -> None:
        """See `Display`. The end of standard input is not the end: a voice may still ask."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            with contextlib.suppress(RuntimeError):  # the session is over
                for line in sys.stdin:
                    if line.strip():
                        loop.call_soon_threadsafe(self._hear, line.strip())

        # Not asyncio's: standard input may be a file or a closed pipe, and a daemon does not keep the program alive.
        threading.Thread(target=read, name="questions", daemon=True).start()
        while not self._state.leaving:
            self._tell_changes()
            await asyncio.sleep(_PERIOD)
        self._tell_changes()

    def _hear(self, line: str) -> None:
        if line in _COMMANDS:
            self._controls.press(_COMMANDS[line])
        elif line.startswith("/"):
            self._print(f"{line} is none of the commands {' '.join(_COMMANDS)}")
        else:
            self._controls.ask(line)

    def _tell_changes(self) -> None:
        state, newest = self._state, self._state.newest
        self._tell("offline", state.offline, "online" if "offline" in self._told else "")
        self._tell("notice", state.notice)
        self._tell("step", state.step)
        self._tell("hearing", state.hearing and f"hearing: {state.hearing}")
        if newest is None:
            return
        self._tell("query", (newest.asked_at, f"question: {newest.query}"))
        if newest.guidance is not None:
            seconds = f"{newest.seconds:.2f} s"
            self._tell("answer", (newest.asked_at, f"answer after {seconds}: {newest.description}"))
        elif newest.failed:
            self._tell("answer", (newest.asked_at, f"no answer: {newest.failed}"))

    def _tell(self, topic: str, value: object, otherwise: str = "") -> None:
        """Writes what is new of a topic."""
        if self._told.get(topic) == value:
            return
        self._told[topic] = value
        text = value[1] if isinstance(value, tuple) else value
        if text or otherwise:
            self._print(str(text or otherwise))

    @staticmethod
    def _print(text: str) -> None:
        print(text, flush=True)
