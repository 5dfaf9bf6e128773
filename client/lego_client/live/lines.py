"""No display at all: what happens as lines of text, and questions as lines of standard input."""

from __future__ import annotations

import asyncio
import sys

from lego_client.live.controls import Controls
from lego_client.live.screen import Screen
from lego_client.live.state import LiveState
from lego_client.task.typed import TypedLines

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
_NEEDS = {"n": "--task FILE", "b": "--task FILE", " ": "--listen talk", "v": "--speak"}  # of keys


class Lines:
    """Writes a line whenever something changes. A line of input is a question, or one of a few commands."""

    def __init__(self, state: LiveState, screen: Screen, controls: Controls) -> None:
        self._state = state
        self._screen = screen
        self._controls = controls
        self._told: dict[str, object] = {}

    async def run(self) -> None:
        """See `Display`. The end of standard input is not the end: a voice may still ask."""
        reading = asyncio.create_task(self._read(TypedLines(sys.stdin)))
        try:
            while not self._state.leaving:
                self._tell_changes()
                if reading.done():
                    reading.result()
                await asyncio.sleep(_PERIOD)
        finally:
            reading.cancel()
        self._tell_changes()

    async def _read(self, lines: TypedLines) -> None:
        while (line := await lines.next()) is not None and not self._state.leaving:
            if line:
                self._hear(line)

    def _hear(self, line: str) -> None:
        key = _COMMANDS.get(line, "")
        if self._controls.knows(key):
            self._controls.press(key)
        elif key:
            self._print(f"{line} does nothing in this session; start it with {_NEEDS[key]}")
        elif line.startswith("/"):
            self._print(f"{line} is none of the commands {' '.join(_COMMANDS)}")
        else:
            self._controls.ask(line)

    def _tell_changes(self) -> None:
        state, newest = self._state, self._state.newest
        self._tell("offline", state.offline, "online" if "offline" in self._told else "")
        self._tell("notice", state.notice or self._screen.trouble)
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
