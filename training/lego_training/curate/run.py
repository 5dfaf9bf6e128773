"""Asks for the descriptions of scenes, several at a time, until each has a fit one or is given up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lego_core.errors import LegoError

from lego_training.curate.checks import Vocabulary, answer_faults, tidy
from lego_training.curate.endpoint import CONTENT_FILTER, ChatEndpoint, Halted, Reply, Unanswered
from lego_training.curate.journal import Journal, request_key
from lego_training.curate.prompt import Prompt
from lego_training.curate.scenes import Scene
from lego_training.dataset import Fault

# A run whose requests fail one after another, each after every try, has lost its endpoint.
_FAILURES_IN_A_ROW = 3

Status = Literal["accepted", "rejected", "unanswered"]
Ask = Callable[[str, dict[str, Any]], Awaitable[Reply]]


@dataclass(frozen=True)
class Outcome:
    """What came of one scene.

    Attributes:
        scene: The scene.
        status: "rejected" after `Inquiry.attempts` unfit answers; "unanswered" if the endpoint failed, so that the next
            run asks again.
        text: The description; of a rejected one the last answer; empty if there is none.
        faults: Of the last answer, or why there is none.
        replies: Every reply that it took, an earlier run's too.
    """

    scene: Scene
    status: Status
    text: str
    faults: tuple[Fault, ...]
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Inquiry:
    """How scenes are asked about.

    Attributes:
        model: Name of the model, as the endpoint knows it.
        prompt: Its words and examples.
        request: Settings of each request.
        vocabulary: The nouns that answers are checked for.
        attempts: Answers that are asked for at most for one scene, the first included.
    """

    model: str
    prompt: Prompt
    request: dict[str, Any]
    vocabulary: Vocabulary
    attempts: int = 3
    examples: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "examples", tuple(example.description for example in self.prompt.examples))

    def body(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Returns the body of a request."""
        return {"model": self.model, "messages": messages, **self.request}

    def first_body(self, scene: Scene) -> dict[str, Any]:
        """Returns the body of a scene's first request."""
        return self.body(self.prompt.messages(scene))

    async def describe(self, scene: Scene, ask: Ask) -> Outcome:
        """Asks for one description; an unfit answer is shown back with its faults.

        Args:
            scene: The scene.
            ask: Gets the reply to a request of this record.
        """
        messages = self.prompt.messages(scene)
        replies: list[Reply] = []
        text, faults = "", tuple[Fault, ...]()
        while len(replies) < self.attempts:
            try:
                reply = await ask(scene.record, self.body(messages))
            except Unanswered as reason:
                return Outcome(scene, "unanswered", "", (Fault("unanswered", str(reason)),), tuple(replies))
            replies.append(reply)
            text, faults = tidy(reply.text), tuple(self._faults(reply, scene))
            if not faults:
                return Outcome(scene, "accepted", text, (), tuple(replies))
            if reply.finish == CONTENT_FILTER:
                break
            messages += _correction(text, faults)
        return Outcome(scene, "rejected", text, faults, tuple(replies))

    def _faults(self, reply: Reply, scene: Scene) -> Iterator[Fault]:
        if reply.finish == CONTENT_FILTER:
            yield Fault("content filter", "the endpoint's filter or the model itself refuses to answer")
        elif reply.finish == "length":
            yield Fault("cut off", "it was cut off at the limit of tokens; write a shorter sentence")
        else:
            yield from answer_faults(tidy(reply.text), scene, self.vocabulary, self.examples)


async def curate(
    scenes: Sequence[Scene], inquiry: Inquiry, endpoint: ChatEndpoint, journal: Journal, concurrency: int = 8,
    advance: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:  # fmt: skip
    """Describes scenes; what the journal holds is not asked again.

    The first Ctrl-C or SIGTERM lets the requests under way finish, since they are paid for; the second drops them.

    Args:
        scenes: The scenes.
        inquiry: How they are asked about.
        endpoint: Who is asked.
        journal: Replies so far; each new one is in it before anything else happens.
        concurrency: Requests at a time.
        advance: Told of each outcome as it comes.

    Returns:
        The outcomes, in the order of the scenes; fewer than scenes if the run was stopped.

    Raises:
        LegoError: The endpoint cannot be used, or has failed several records in a row.
        OSError: The journal's disk is full.
    """
    outcomes: dict[str, Outcome] = {}
    waiting = iter(scenes)
    failures_in_a_row = 0
    is_stopping = False

    async def ask(record: str, body: dict[str, Any]) -> Reply:
        key = request_key(record, body)
        reply = journal.get(key)
        if reply is None:
            if is_stopping:
                raise Halted
            reply = await endpoint.complete(body)
            journal.add(key, record, reply)
        return reply

    async def work() -> None:
        nonlocal failures_in_a_row
        for scene in waiting:
            await asyncio.sleep(0)  # lets a signal in, even where the journal answers everything
            if is_stopping:
                return
            try:
                outcome = await inquiry.describe(scene, ask)
            except Halted:
                return
            failures_in_a_row = failures_in_a_row + 1 if outcome.status == "unanswered" else 0
            outcomes[scene.record] = outcome
            advance(outcome)
            if failures_in_a_row == _FAILURES_IN_A_ROW:
                raise LegoError(
                    f"{endpoint.address} failed {failures_in_a_row} records one after another, the last with "
                    f"{outcome.faults[0]}; run the same command again to go on"
                )

    def stop() -> None:
        nonlocal is_stopping
        is_stopping = True
        endpoint.halt()

    with _signals(stop):
        await _together(work() for _ in range(concurrency))
    return [outcomes[scene.record] for scene in scenes if scene.record in outcomes]


async def _together(jobs: Iterable[Any]) -> None:
    """Awaits all jobs; the first error cancels the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `stop` once; again, they cancel the task that is running now."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    was_told = False

    def tell() -> None:
        nonlocal was_told
        if was_told:
            task.cancel()
        was_told = True
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _correction(text: str, faults: tuple[Fault, ...]) -> list[dict[str, str]]:
    """The turns that show an unfit answer back."""
    return [
        {"role": "assistant", "content": text or "(nothing)"},
        {
            "role": "user",
            "content": f"That cannot be used: {'; '.join(map(str, faults))}. Write the description of the same action "
            "again, as one sentence and nothing else.",
        },
    ]
