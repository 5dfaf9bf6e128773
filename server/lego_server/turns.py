"""Whose turn it is: the order in which queries are let in, and in which their engine calls run.

Pure functions over jobs; the loop holds the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lego_server import work
from lego_server.work import DecodeLatent, Denoise

if TYPE_CHECKING:
    from lego_server.loop import Job


def next_admitted(waiting: Sequence[Job], active: Iterable[Job]) -> Job:
    """Returns who is let in next: of the wearers with the fewest active queries, the earliest deadline.

    Args:
        waiting: At least one.
        active: Those that share the engine now.
    """
    held = Counter(job.wearer for job in active)
    return min(waiting, key=lambda job: (job.absent, held[job.wearer], job.deadline, job.order))


def next_to_leave(active: Iterable[Job]) -> Job | None:
    """Returns who gives up a place where there is none for one who is there: of those who are not, whoever loses least.

    None where all who have a place are there, have their turn just now, or cannot begin anew.
    """
    absent = [job for job in active if job.absent and not job.running and job.restart is not None]
    return min(absent, key=lambda job: (job.denoising + job.rest, -job.order), default=None)


def next_batch(ready: Sequence[Job], max_batch: int) -> list[Job]:
    """Returns whose calls run now, as one: the most urgent query's, and like calls of the next urgent.

    Those who are there come before those who may come back. Words come before paint: what leads to a description is a
    twentieth of a query's work and what a wearer waits for first. Within each, the earliest deadline comes first, then
    the earliest arrival. Queries whose deadlines are equally long are so finished in order of arrival, each sooner than
    if all took turns.

    Args:
        ready: Those whose next engine call may run; at least one.
        max_batch: Most queries in one call.
    """
    in_order = sorted(ready, key=_urgency)
    leader = in_order[0]
    key = None if leader.pending is None else work.batch_key(leader.pending)
    if key is None:
        return [leader]
    alike = [job for job in in_order if job.pending is not None and work.batch_key(job.pending) == key]
    return alike[:max_batch]


def _urgency(job: Job) -> tuple[bool, bool, float, int]:
    return job.absent, isinstance(job.pending, Denoise | DecodeLatent), job.deadline, job.order
