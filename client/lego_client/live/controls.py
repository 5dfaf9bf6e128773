"""What each key does. One table for every display, and for the help that lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lego_client.live.conversation import Conversation
from lego_client.live.state import LiveState
from lego_client.live.steps import Steps
from lego_client.overlay.modes import MODES
from lego_client.task.words import Command

_SLIDE = 0.05
_LONGEST_QUERY = 1000  # characters; a server may allow fewer, and says so


@dataclass(frozen=True)
class Key:
    """A key and what it does.

    Attributes:
        names: What displays call it: a character, or one of "enter", "escape", "backspace", "left", "right".
        label: As people read it.
        does: In a few words.
        act: Does it.
    """

    names: tuple[str, ...]
    label: str
    does: str
    act: Callable[[], None]


class Controls:
    """Takes keys, by name, from any display.

    Args:
        state: What they change.
        conversation: What they ask.
        save: Saves the answer on display.
        talk: Begins or ends a spoken question; None without a microphone.
        steps: The task that is led through; None without one.
        speaks: Whether there is a voice for answers.
    """

    def __init__(
        self,
        state: LiveState,
        conversation: Conversation,
        save: Callable[[], None],
        talk: Callable[[], None] | None = None,
        steps: Steps | None = None,
        speaks: bool = False,
    ) -> None:
        self._state = state
        self._conversation = conversation
        self._talk = talk
        self._steps = steps
        self.keys = (
            Key(("enter", "/"), "Enter", "type a question; Enter again asks it", self._type),
            *((Key((" ",), "Space", "begin or end a spoken question", talk),) if talk is not None else ()),
            *(() if steps is None else _task_keys(steps)),
            Key(("r",), "R", "ask again, about what you see now", self._repeat),
            Key(("escape",), "Esc", "give up the question under way", self._cancel),
            Key(("m",), "M", "another way to show guidance", self._next_mode),
            Key(("[",), "[", "move the slider left", lambda: self._slide(-_SLIDE)),
            Key(("]",), "]", "move the slider right", lambda: self._slide(_SLIDE)),
            Key(("left",), "←", "an older answer", lambda: state.browse(1)),
            Key(("right",), "→", "a newer answer", lambda: state.browse(-1)),
            *((Key(("v",), "V", "speak answers aloud, or not", self._speak),) if speaks else ()),
            Key(("s",), "S", "save the answer on display", save),
            Key(("h", "?"), "H", "show or hide these keys", self._help),
            Key(("q",), "Q", "leave", self._leave),
        )
        self._by_name = {name: key for key in self.keys for name in key.names}

    def ask(self, text: str) -> None:
        """Asks what was typed, or does it where it is a way through the task."""
        if self._steps is None or not self._steps.hear(text):
            self._conversation.ask(text)

    def knows(self, name: str) -> bool:
        """Says whether a key does something in this session."""
        return name in self._by_name

    def press(self, name: str) -> None:
        """Does what a key does now; while a question is typed, keys are letters."""
        if self._state.typing is not None:
            self._edit(name)
            return
        key = self._by_name.get(name.lower())
        if key is not None:
            key.act()

    def _edit(self, name: str) -> None:
        text = self._state.typing or ""
        if name == "enter":
            self._state.typing = None
            if text.strip():
                self.ask(text.strip())
        elif name == "escape":
            self._state.typing = None
        elif name == "backspace":
            self._state.typing = text[:-1]
        elif len(name) == 1 and name.isprintable() and len(text) < _LONGEST_QUERY:
            self._conversation.look_ahead()
            self._state.typing = text + name

    def _type(self) -> None:
        self._state.typing = ""

    def _repeat(self) -> None:
        if self._state.newest is None:
            self._state.tell("there is no question to repeat yet; press Enter and type one")
        else:
            self._conversation.ask(self._state.newest.query)

    def _cancel(self) -> None:
        if self._state.help:
            self._state.help = False
        elif self._conversation.cancel():
            self._state.tell("given up", 2)

    def _next_mode(self) -> None:
        self._state.mode = MODES[(MODES.index(self._state.mode) + 1) % len(MODES)]
        self._state.tell(self._state.mode.replace("-", " "), 2)

    def _slide(self, by: float) -> None:
        self._state.slider = min(1.0, max(0.0, self._state.slider + by))

    def _speak(self) -> None:
        self._state.aloud = not self._state.aloud
        self._state.tell(f"answers are {'' if self._state.aloud else 'not '}spoken", 2)

    def _help(self) -> None:
        self._state.help = not self._state.help

    def _leave(self) -> None:
        self._state.leaving = True


def _task_keys(steps: Steps) -> tuple[Key, ...]:
    return (
        Key(("n",), "N", "the next step of the task", lambda: steps.obey(Command.NEXT)),
        Key(("b",), "B", "the step before", lambda: steps.obey(Command.BACK)),
        Key(("w",), "W", "where you are in the task", lambda: steps.obey(Command.WHERE)),
    )
