"""The way through a task: which step is at hand, what is done, and what to say and ask next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from lego_client.task.plan import Step, Task
from lego_client.task.words import Command, command_of, says_nothing

HELP = "Say next, done, back, repeat, skip, where am I, or stop; or ask about what you see."


class Status(Enum):
    """What has become of a step."""

    OPEN = "open"
    DONE = "done"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Reply:
    """What the wearer is told, and what is to be asked about their view.

    Attributes:
        say: Sentences for the wearer; "" for none.
        query: To be asked about the present frame; None for none.
        left: The wearer wants to stop.
    """

    say: str = ""
    query: str | None = None
    left: bool = False


class Walk:
    """A task under way. Questions in between change nothing of it.

    Attributes:
        task: What is done.
        place: The step at hand, from 0; the number of steps once all are behind.
        statuses: What has become of each step.
    """

    def __init__(self, task: Task, place: int = 0, statuses: list[Status] | None = None) -> None:
        """Stands at the beginning, or where an earlier walk stopped.

        Args:
            task: What is to be done.
            place: 0 to the number of steps.
            statuses: One a step; None for none done.
        """
        self.task = task
        self.statuses = statuses or [Status.OPEN] * len(task.steps)
        self.place = place
        self._shown = False  # whether the step at hand has been asked about

    @property
    def step(self) -> Step | None:
        """The step at hand; None once all are behind."""
        return self.task.steps[self.place] if self.place < len(self.task.steps) else None

    @property
    def finished(self) -> bool:
        """Whether all steps are behind."""
        return self.step is None

    def begin(self) -> Reply:
        """Says what the task is and where it stands; nothing is asked before the wearer says "next"."""
        task = self.task
        count = f"{len(task.steps)} step{'s' if len(task.steps) > 1 else ''}"
        words = [f"{task.title}: {count}.", *([task.notes] if task.notes else [])]
        if self.place or any(status is not Status.OPEN for status in self.statuses):
            words.append(self._where())
        elif self.step is not None:
            words.append(f"First: {self.step.title}.")
        return Reply(" ".join(words))

    def command(self, text: str) -> Command | None:
        """Returns the way through the task that the wearer means; None for a question of their own."""
        return command_of(text, self.step.confirm if self.step else ())

    def hear(self, text: str) -> Reply:
        """Takes what the wearer says: a command, or a question of their own about what they see."""
        command = self.command(text)
        if command is not None:
            return self.obey(command)
        if says_nothing(text):
            return Reply(HELP)
        return Reply(query=text.strip())

    def obey(self, command: Command) -> Reply:
        """Goes where the wearer wants to."""
        match command:
            case Command.NEXT if not self._shown:  # the step at hand is the next one
                return self._present()
            case Command.NEXT | Command.DONE:
                return self._leave(Status.DONE)
            case Command.SKIP:
                return self._leave(Status.SKIPPED)
            case Command.BACK if self.place == 0:
                return Reply(f"This is the first step: {self.task.steps[0].title}.")
            case Command.BACK:
                self.place -= 1
                self.statuses[self.place] = Status.OPEN
                return self._present()
            case Command.REPEAT:
                return self._present()
            case Command.WHERE:
                return Reply(self._where())
            case Command.STOP:
                return Reply(self._where(), left=True)

    def _leave(self, status: Status) -> Reply:
        if self.step is not None:
            self.statuses[self.place] = status
            self.place += 1
        return self._present()

    def _present(self) -> Reply:
        """Tells of the step at hand and has it asked about."""
        if self.step is None:
            self._shown = False
            return Reply(self._where())
        self._shown = True
        return Reply(
            f"{self._number()}: {self.step.title}.{f' {self.step.notes}' if self.step.notes else ''}", self.step.query
        )

    def _number(self) -> str:
        return f"Step {self.place + 1} of {len(self.task.steps)}"

    def _where(self) -> str:
        skipped = [self.task.steps[n].title for n, status in enumerate(self.statuses) if status is Status.SKIPPED]
        left_out = f" Skipped: {'; '.join(skipped)}." if skipped else ""
        if self.step is None:
            return f"That was the last step: {self.task.title} is finished.{left_out}"
        done = self.statuses.count(Status.DONE)
        return f"{self._number()}: {self.step.title}. {done} done.{left_out}"
