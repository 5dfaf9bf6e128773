"""A server's engine loop in simulated time: its own policy (`lego_server.turns`), with measured times of calls.

Nothing here runs a model or waits. A call takes a time drawn from those measured, of its kind, its batch and as many
lanes busy; everything else about a query is two numbers, measured as well: what it takes outside the engine loop, and
how much processor time that is, which the lanes lack where they run on the same cores.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lego_server.turns import next_admitted, next_batch
from lego_server.work import BuildCondition, DecodeLatent, Denoise, EncodeFrame, Extend, Prefill, Work

_NOTHING: Any = None  # what a call is about matters to nobody here
KINDS: dict[str, Work] = {
    "EncodeFrame": EncodeFrame(_NOTHING, _NOTHING), "Prefill": Prefill(_NOTHING, _NOTHING),
    "Extend": Extend(_NOTHING, (0,)), "BuildCondition": BuildCondition(_NOTHING, _NOTHING, _NOTHING),
    "Denoise": Denoise(_NOTHING, 0.0, _NOTHING, ()), "DecodeLatent": DecodeLatent(_NOTHING),
}  # fmt: skip
Times = Mapping[int, Mapping[str, Mapping[int, Sequence[float]]]]
"""Seconds of engine calls, each a sample: by lanes busy, kind of call, and queries in it."""


@dataclass(frozen=True)
class Costs:
    """What a query costs.

    Attributes:
        calls: Seconds of its engine calls.
        outside: Seconds of everything else between the wearer's question and the picture, with nobody else there.
        processor: Processor seconds of all that is no engine call.
    """

    calls: Times
    outside: float = 0.0
    processor: float = 0.0

    def seconds(self, busy: int, kind: str, batch: int, chance: random.Random) -> float:
        """Draws how long a call takes; a batch that was not measured lies between its neighbours, or in proportion."""
        by_batch = self.calls[min(busy, max(self.calls))][kind]
        if batch in by_batch:
            return chance.choice(by_batch[batch])
        sizes = sorted(by_batch)
        place = bisect_left(sizes, batch)
        if place in (0, len(sizes)):
            nearest = sizes[min(place, len(sizes) - 1)]
            return chance.choice(by_batch[nearest]) * batch / nearest
        low, high = sizes[place - 1], sizes[place]
        share = (batch - low) / (high - low)
        return (1 - share) * chance.choice(by_batch[low]) + share * chance.choice(by_batch[high])


@dataclass(frozen=True)
class Sharing:
    """How queries share an engine, as in the server's settings.

    Attributes:
        lanes: Engine calls at the same time.
        max_active: Queries served in turns.
        max_batch: Queries in one call.
        cores: Processor cores that lanes and everything else share; 0 where the engine has a processor of its own.
    """

    lanes: int = 1
    max_active: int = 4
    max_batch: int = 1
    cores: int = 0


@dataclass
class Simulated:
    """What wearers saw.

    Attributes:
        seconds: Until the last answer, without the warm-up.
        latencies: Seconds of each answered query, from the wearer's question to the picture.
        first_words: The same, to the first words.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first_words: list[float] = field(default_factory=list)

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds > 0 else 0.0

    def latency(self, percent: float) -> float:
        """Returns a percentile of the latencies; infinite if nobody was answered."""
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("inf")


class _Job:
    """What `lego_server.turns` looks at, of a query that only pretends."""

    absent = False

    def __init__(self, wearer: int, asked: float, order: int, plan: Iterator[str]) -> None:
        self.wearer, self.order = str(wearer), order
        self.asked = self.deadline = asked  # all have equally long, so the order of deadlines is that of arrival
        self.running = False
        self.kind: str | None = None
        self.pending: Work | None = None
        self.plan = plan
        self.number = wearer


class _Loop:
    def __init__(self, costs: Costs, sharing: Sharing, answered: Callable[[_Job, float], None], result: Simulated,
                 warm: float, chance: random.Random) -> None:  # fmt: skip
        self.costs, self.sharing, self.answered, self.result = costs, sharing, answered, result
        self.warm, self.chance = warm, chance
        self.waiting: list[Any] = []
        self.active: list[Any] = []
        self.busy = 0
        self.owed = 0.0  # processor seconds that have not found a free core yet
        self.looked = 0.0

    def take_turns(self, now: float, later: Callable[[float, Callable[[float], None]], None]) -> None:
        """Gives free lanes what is to be done; the policy is the server's own."""
        sharing = self.sharing
        self.owed = max(0.0, self.owed - (now - self.looked) * (sharing.lanes - self.busy) * self._cores_of_a_lane)
        self.looked = now
        while self.busy < sharing.lanes:
            while self.waiting and len(self.active) < sharing.max_active:
                job = next_admitted(self.waiting, self.active)
                self.waiting.remove(job)
                self.active.append(job)
                self._go_on(job)
            ready = [job for job in self.active if not job.running]
            if not ready:
                return
            batch: list[Any] = next_batch(ready, sharing.max_batch)
            for job in batch:
                job.running = True
            self.busy += 1
            seconds = self.costs.seconds(self.busy, batch[0].kind, len(batch), self.chance)
            if sharing.cores and self.busy == sharing.lanes:  # no core is left for anything else: all have less
                lacking = min(self.owed, seconds * self._cores_of_a_lane)
                self.owed -= lacking
                seconds += lacking / self._cores_of_a_lane
            later(now + seconds, lambda at, batch=batch: self._done(batch, at))

    @property
    def _cores_of_a_lane(self) -> float:
        return self.sharing.cores / self.sharing.lanes

    def _done(self, batch: list[Any], now: float) -> None:
        for job in batch:
            job.running = False
            if job.kind == "Prefill" and now >= self.warm:
                self.result.first_words.append(now - job.asked + self.costs.outside)
            if not self._go_on(job):
                self.active.remove(job)
                self.answered(job, now)
        self.busy -= 1

    @staticmethod
    def _go_on(job: Any) -> bool:
        job.kind = next(job.plan, None)
        job.pending = None if job.kind is None else KINDS[job.kind]
        return job.kind is not None


def simulate(
    costs: Costs, sharing: Sharing, plan: Sequence[str], wearers: int, seconds: float, *, pause: float = 0.0,
    warm: float = 0.0, seed: int = 0,
) -> Simulated:  # fmt: skip
    """Simulates wearers, each of whom asks again a pause after having been answered.

    Args:
        costs: What a query costs.
        sharing: How queries share the engine.
        plan: A query's engine calls in order, keys of `KINDS`.
        wearers: How many there are.
        seconds: For how long they ask, after the warm-up; who has asked by then is still answered.
        pause: Mean seconds between an answer and the next question, drawn at random (exponential); 0 for none at all.
        warm: Seconds before anything counts.
        seed: Of everything drawn.
    """
    chance = random.Random(seed)
    result = Simulated()
    numbers = itertools.count()
    events: list[tuple[float, int, Callable[[float], None]]] = []

    def later(at: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(events, (at, next(numbers), happens))

    def ask(wearer: int) -> Callable[[float], None]:
        def happens(now: float) -> None:
            if now > warm + seconds:
                return
            loop.owed += costs.processor
            loop.waiting.append(_Job(wearer, now, next(numbers), iter(plan)))

        return happens

    def answered(job: _Job, now: float) -> None:
        if now >= warm:
            result.latencies.append(now - job.asked + costs.outside)
        wait = chance.expovariate(1 / pause) if pause else 0.0
        result.seconds = now + costs.outside - warm
        later(now + costs.outside + wait, ask(job.number))

    loop = _Loop(costs, sharing, answered, result, warm, chance)
    for wearer in range(wearers):
        later(chance.uniform(0, pause or 0.01), ask(wearer))
    while events:
        now, _, happens = heapq.heappop(events)
        # Before what happens, so that free cores have been at work on what is owed until now.
        loop.take_turns(now, later)
        happens(now)
        loop.take_turns(now, later)
    return result


def wearers_served(
    costs: Costs, sharing: Sharing, plan: Sequence[str], pause: float, limit: float, rate_limit: float = float("inf")
) -> int:
    """Returns for how many wearers one engine is enough.

    Args:
        costs: What a query costs.
        sharing: How queries share the engine.
        plan: A query's engine calls.
        pause: Mean seconds between an answer and a wearer's next question.
        limit: Seconds that 95 of 100 queries may take at most.
        rate_limit: Queries a second that the rest of a server can carry.

    Returns:
        0 if one wearer alone waits longer.
    """

    def enough(wearers: int) -> bool:
        # Long enough for some hundreds of queries, and for a queue that grows to show.
        length = max(4 * pause, 600 * (pause + limit) / wearers)
        run = simulate(costs, sharing, plan, wearers, length, pause=pause, warm=pause)
        return run.latency(95) <= limit and run.throughput <= rate_limit

    low, high = 0, 1
    while enough(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low
