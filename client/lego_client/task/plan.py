"""A task: actions in their order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One action of a task.

    Attributes:
        title: What it is called.
        query: What is asked about the wearer's view when its turn has come.
        notes: What to know beforehand; "" for nothing.
        confirm: Words that mean it is done, beside the usual ones.
    """

    title: str
    query: str
    notes: str = ""
    confirm: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """Actions in their order.

    Attributes:
        title: What the whole is called.
        steps: At least one.
        notes: What to know before it begins; "" for nothing.
    """

    title: str
    steps: tuple[Step, ...]
    notes: str = ""
