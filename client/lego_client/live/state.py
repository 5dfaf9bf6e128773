"""Everything a display shows, in one place. `Conversation` and `Controls` change it; displays read it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lego_client.live.exchange import Exchange
from lego_client.overlay.labels import State
from lego_client.overlay.modes import MODES

_MOST_EXCHANGES = 20
_NOTICE_SECONDS = 8.0


@dataclass
class LiveState:
    """What the wearer sees.

    Attributes:
        target: HOST:PORT of the server.
        mode: How guidance is shown, one of `overlay.modes.MODES`.
        exchanges: The last questions, oldest first.
        selected: Which of them is shown, counted from the newest.
        offline: Why the server cannot be reached; "" while it can.
        typing: What has been typed of a question; None while none is.
        microphone: Whether somebody listens for questions.
        talking: Whether a key has begun a spoken question that it has not ended yet.
        hearing: What has been understood of a spoken question; "" while nobody speaks.
        step: What there is to say of the step of a task that is at hand; "" without a task.
        step_query: What is asked about that step; None before it is.
        aloud: Whether descriptions are spoken.
        slider: Where the line between before and after is, 0 to 1.
        help: Whether the keys are shown.
        leaving: Whether the wearer has had enough.
    """

    target: str = ""
    mode: str = MODES[0]
    exchanges: list[Exchange] = field(default_factory=list)
    selected: int = 0
    offline: str = ""
    typing: str | None = None
    microphone: bool = False
    talking: bool = False
    hearing: str = ""
    step: str = ""
    step_query: str | None = None
    aloud: bool = False
    slider: float = 0.5
    help: bool = False
    leaving: bool = False
    _notice: str = ""
    _notice_until: float = 0.0

    @property
    def shown(self) -> Exchange | None:
        """The question and answer on display; None before the first."""
        return self.exchanges[-1 - self.selected] if self.exchanges else None

    @property
    def newest(self) -> Exchange | None:
        """The question asked last."""
        return self.exchanges[-1] if self.exchanges else None

    def add(self, exchange: Exchange) -> None:
        """Puts a new question on display."""
        self.exchanges.append(exchange)
        del self.exchanges[:-_MOST_EXCHANGES]
        self.selected = 0

    def browse(self, by: int) -> None:
        """Shows an older (positive) or newer question."""
        self.selected = max(0, min(len(self.exchanges) - 1, self.selected + by))

    @property
    def notice(self) -> str:
        """One sentence that the wearer should read now; "" for none."""
        return self._notice if time.monotonic() < self._notice_until else ""

    def tell(self, sentence: str, seconds: float = _NOTICE_SECONDS) -> None:
        """Shows a sentence for a while, in place of the one before."""
        self._notice, self._notice_until = sentence, time.monotonic() + seconds

    @property
    def step_shown(self) -> str:
        """What to write of the step at hand beside what is on display; "" beside a question of the wearer's own."""
        return self.step if self.shown is None or self.shown.query == self.step_query else ""

    @property
    def doing(self) -> State:
        """What the assistant is doing, in one word."""
        if self.offline:
            return State.OFFLINE
        if self.newest is not None and self.newest.pending:
            return State.THINKING
        if self.typing is not None or self.hearing or self.talking or (self.microphone and self.shown is None):
            return State.LISTENING
        return State.READY if self.shown is None else State.ANSWER
