"""Votes on disk: a line each, on the disk before the rater is thanked."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_training.study.design import Study

RATER = re.compile(r"[A-Za-z0-9_-]{3,40}")
_LONGEST_SECONDS = 3600.0


@dataclass(frozen=True)
class Vote:
    """What one rater said of one item.

    Attributes:
        rater: A code that names no person.
        item: The item's id.
        choice: One of its choices.
        seconds: Taken over it.
        at: When, in ISO 8601.
    """

    rater: str
    item: str
    choice: str
    seconds: float
    at: str


class Votes:
    """All votes of a study. A rater's later vote on an item takes the earlier one's place. Safe from any thread."""

    def __init__(self, folder: Path, study: Study) -> None:
        """Reads what has been voted so far.

        Raises:
            LegoError: A line cannot be read, other than a last one that was cut off.
        """
        self._path = folder / "votes.jsonl"
        self._choices = {item.id: item.choices for item in study.items}
        self._lock = threading.Lock()
        self._votes: dict[tuple[str, str], Vote] = {}
        lines = self._path.read_text(encoding="utf-8").split("\n") if self._path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                self._note(self.check(json.loads(line)))
            except (ValueError, LegoError) as error:
                if number < len(lines):  # the last line is the only one without an end: a crash may have cut it
                    raise LegoError(f"{self._path}, line {number}: {error}; mend or remove the line") from error
        if lines and lines[-1]:
            _cut_last_line(self._path)

    def __iter__(self) -> Iterator[Vote]:
        return iter(list(self._votes.values()))

    def __len__(self) -> int:
        return len(self._votes)

    def check(self, values: Any) -> Vote:
        """Returns a vote from what a page has sent.

        Raises:
            LegoError: It is none of this study's.
        """
        if not isinstance(values, dict):
            raise LegoError("a vote is an object with rater, item, choice and seconds")
        rater, item, choice, seconds = (values.get(name) for name in ("rater", "item", "choice", "seconds"))
        if not isinstance(rater, str) or not RATER.fullmatch(rater):
            raise LegoError(f"rater is {rater!r:.80}; it must be 3 to 40 letters, digits, - or _")
        if not isinstance(item, str) or item not in self._choices:
            raise LegoError(f"item is {item!r:.80}; this study has none of that id")
        if choice not in self._choices[item]:
            raise LegoError(f"choice is {choice!r:.80}; item {item} has {', '.join(self._choices[item])}")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
            raise LegoError(f"seconds is {seconds!r:.80}; it must be a number from 0")
        at = values.get("at")
        if not isinstance(at, str) or len(at) > 40:
            at = datetime.now(UTC).isoformat(timespec="seconds")
        return Vote(rater, item, choice, round(min(float(seconds), _LONGEST_SECONDS), 2), at)

    def add(self, votes: Iterable[Vote]) -> int:
        """Keeps votes; returns how many were new or another than before.

        Raises:
            LegoError: They cannot be written; nothing is lost, send them again.
        """
        with self._lock:
            new = [vote for vote in votes if self._is_new(vote)]
            text = "".join(json.dumps(asdict(vote)) + "\n" for vote in new)
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise LegoError(f"{self._path} cannot be written ({error.strerror}); votes wait in the page") from error
            for vote in new:
                self._note(vote)
            return len(new)

    def left_for(self, rater: str, raters: int) -> list[str]:
        """Returns the items a rater has still to judge: those not yet judged by enough others, fewest votes first.

        Args:
            rater: Whose.
            raters: How many are enough.
        """
        with self._lock:
            counts = Counter(item for _, item in self._votes)
            left = [
                item for item in self._choices if (rater, item) not in self._votes and counts[item] < raters
            ]  # fmt: skip
        return sorted(left, key=lambda item: counts[item])

    def _is_new(self, vote: Vote) -> bool:
        known = self._votes.get((vote.rater, vote.item))
        return known is None or known.choice != vote.choice

    def _note(self, vote: Vote) -> None:
        self._votes[vote.rater, vote.item] = vote


def _cut_last_line(path: Path) -> None:
    """Removes a line that was not written to its end, so that the next one does not continue it."""
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(data.rfind(b"\n") + 1)
