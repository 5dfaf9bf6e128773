"""What is done of a task, in a small file, so that one can stop and go on later."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from lego_core.errors import LegoError
from lego_core.files import write_whole

from lego_client.task.plan import Task
from lego_client.task.walk import Status, Walk

_MOST_BYTES = 100_000


def save_walk(path: Path, walk: Walk) -> None:
    """Writes where a walk stands; an earlier state is replaced as a whole.

    Raises:
        LegoError: The file cannot be written.
    """
    state = {
        "task": walk.task.title,
        "steps": _fingerprint(walk.task),
        "place": walk.place,
        "statuses": [status.value for status in walk.statuses],
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(state, indent=2, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise LegoError(f"{path} cannot be written ({error.strerror}); choose another place with --state") from error


def load_walk(path: Path, task: Task) -> Walk:
    """Returns a walk that stands where the file says; at the beginning where there is no such file.

    Raises:
        LegoError: The file is of another task, of an earlier version of this one, or no state at all.
    """
    if not path.exists():
        return Walk(task)
    cure = f"delete {path}, or name another file with --state, to begin anew"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise LegoError(f"{path} is too large to be the state of a task; name another file with --state")
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, LegoError):
            raise
        raise LegoError(f"{path} cannot be read as the state of a task ({error}); {cure}") from error
    steps = len(task.steps)
    match state:
        case {"task": str() as title, "steps": str()} if title != task.title:
            raise LegoError(f"{path} is the state of the task {title!r}, not of {task.title!r}; name another file")
        case {"steps": str() as steps_then} if steps_then != _fingerprint(task):
            raise LegoError(f"the steps of {task.title!r} have changed since {path} was written; {cure}")
        case {"place": bool()}:  # which Python takes for a number
            pass
        case {"place": int() as place, "statuses": list() as names} if 0 <= place <= steps and len(names) == steps:
            try:
                return Walk(task, place, [Status(name) for name in names])
            except ValueError as error:
                raise LegoError(
                    f"{path} has a step that is neither open, done nor skipped ({error}); {cure}"
                ) from error
    raise LegoError(f"{path} is not the state of a task; {cure}")


def _fingerprint(task: Task) -> str:
    """Tells whether the steps are the same; notes and confirm words may change meanwhile."""
    text = json.dumps([(step.title, step.query) for step in task.steps], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
