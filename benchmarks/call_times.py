"""How long engine calls take: by kind, by queries in one, and by lanes that are busy at the same time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

from lego_server import work
from lego_server.assistant import Assistant, Event, Question
from lego_server.bench.questions import Questions
from lego_server.config import Limits
from lego_server.engines.base import Engine
from lego_server.frames import prepare_frame
from lego_server.options import OptionWishes, resolve_options

Samples = dict[str, dict[int, list[float]]]


def measure_calls(engine: Engine, lanes: int, batches: Sequence[int], seconds: float) -> dict[int, Samples]:
    """Answers queries as lanes of the engine loop do, and times every call.

    Args:
        engine: Loaded for so many lanes.
        lanes: Threads at most; measured are 1, 2, ... up to all.
        batches: Queries that go in step, so that their calls make a batch.
        seconds: For each number of lanes.

    Returns:
        Seconds by lanes busy, kind of call, and queries in it.
    """
    questions = _questions(engine)
    return {busy: _measure(engine, busy, batches, seconds, questions) for busy in range(1, lanes + 1)}


def plan_of(engine: Engine, steps: int | None = None) -> list[str]:
    """Returns the kinds of a typical query's engine calls in order, of the model's own number of steps or another."""
    questions = _questions(engine, steps)
    plans = [list(_Query(engine, next(questions)).kinds()) for _ in range(5)]
    return sorted(plans, key=len)[2]


def example_results(engine: Engine) -> dict[str, list[Any]]:
    """Returns what an engine gives for one query: the results of its calls in order, by kind."""
    query, found = _Query(engine, next(_questions(engine))), defaultdict(list)
    while query.pending is not None:
        kind, result = type(query.pending).__name__, work.run(engine, [query.pending])[0]
        found[kind].append(result)
        query.advance(result)
    return found


class _Query:
    """One query on its way."""

    def __init__(self, engine: Engine, question: Question) -> None:
        self._engine = engine
        self._steps = Assistant(engine.manifest, engine.texts).answer(question)
        self.pending: work.Work | None = None
        self.advance(None)

    def advance(self, result: Any) -> None:
        try:
            item = self._steps.send(result)
            while isinstance(item, Event):
                item = self._steps.send(None)
            self.pending = item
        except StopIteration:
            self.pending = None

    def kinds(self) -> Iterator[str]:
        while self.pending is not None:
            yield type(self.pending).__name__
            self.advance(work.run(self._engine, [self.pending])[0])


def _questions(engine: Engine, steps: int | None = None) -> Iterator[Question]:
    """Yields questions without end, about frames that nobody has asked about; decoding them is no engine call."""
    supply = Questions(distinct=True, folder=None, seed=0)
    given = [supply.next() for _ in range(16)]
    frames = [prepare_frame(frame, Limits(), engine.manifest.lego) for frame, _ in given]
    options = resolve_options(OptionWishes(seed=0, steps=steps), engine.manifest, 1000, 1000)
    for frame, (_, words) in zip(cycle(frames), cycle(given), strict=True):
        yield Question(replace(frame, features=None, described=None), engine.texts.prompt(words), options, 0.0, 0.0)


def _measure(
    engine: Engine, busy: int, batches: Sequence[int], seconds: float, questions: Iterator[Question]
) -> Samples:  # fmt: skip
    found: Samples = defaultdict(lambda: defaultdict(list))
    lock, together = threading.Lock(), threading.Barrier(busy)

    def new(batch: int) -> list[_Query]:
        with lock:
            return [_Query(engine, next(questions)) for _ in range(batch)]

    def run() -> None:
        for batch in batches:  # none counts that is the first of its shape
            _answer_in_step(new(batch), engine)
        together.wait()
        until = time.perf_counter() + seconds
        enough = False
        while not enough:
            for batch in batches:
                timed = _answer_in_step(new(batch), engine)
                with lock:
                    for kind, size, taken in timed:
                        found[kind][size].append(taken)
            enough = time.perf_counter() > until

    threads = [threading.Thread(target=run) for _ in range(busy)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {kind: dict(sorted(by_size.items())) for kind, by_size in found.items()}


def _answer_in_step(queries: list[_Query], engine: Engine) -> list[tuple[str, int, float]]:
    timed = []
    while ready := [query for query in queries if query.pending is not None]:
        began = time.perf_counter()
        first = ready[0].pending
        assert first is not None
        key = work.batch_key(first)
        batch = [ready[0]]
        if key is not None:
            batch = [query for query in ready if query.pending is not None and work.batch_key(query.pending) == key]
        results = work.run(engine, [query.pending for query in batch if query.pending is not None])
        timed.append((type(first).__name__, len(batch), time.perf_counter() - began))
        for query, result in zip(batch, results, strict=True):
            query.advance(result)
    return timed
