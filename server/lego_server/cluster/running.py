"""How many replicas of each application run, as this process was last told."""

from __future__ import annotations

_counts: dict[str, int] = {}


def note(application: str, replicas: int) -> None:
    """Remembers how many replicas an application has. Safe from any thread, as is `running_replicas`."""
    _counts[application] = replicas


def running_replicas(application: str) -> int:
    """Returns how many replicas an application has; 0 if nothing is known of it."""
    return _counts.get(application, 0)


def forget(application: str) -> None:
    """Forgets an application that is no more."""
    _counts.pop(application, None)
