"""What an endpoint has answered, line by line in a file, so that nothing is asked or paid for twice."""

from __future__ import annotations

import fcntl
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from lego_core.errors import LegoError

from lego_training.curate.endpoint import Reply


def request_key(record: str, body: dict[str, Any]) -> str:
    """Returns what identifies a request: a hash of its record and of all that is sent.

    What is sent holds model, prompt, examples, seed and sampling settings, and in a repeated request the answer at
    fault. The endpoint's address is not part of it, so that a server may move.
    """
    return hashlib.sha256(json.dumps([record, body], sort_keys=True).encode()).hexdigest()


class Journal:
    """An append-only JSONL file of replies, open to one process at a time.

    Args:
        path: The file, made if absent. A last line that an interruption cut short is taken away.

    Raises:
        LegoError: Another process has it open, or a line in its midst is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._replies = dict(self._read(path))
        except BlockingIOError:
            self._file.close()
            raise LegoError(f"{path} is in use: the same curation is running already; wait for it or stop it") from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def get(self, key: str) -> Reply | None:
        """Returns the reply to a request, or None if it was not asked."""
        return self._replies.get(key)

    def add(self, key: str, record: str, reply: Reply) -> None:
        """Keeps a reply; it is in the file when this returns.

        Raises:
            OSError: The disk is full.
        """
        self._file.write(json.dumps({"key": key, "record": record, **asdict(reply)}).encode() + b"\n")
        self._file.flush()
        self._replies[key] = reply

    def _read(self, path: Path) -> list[tuple[str, Reply]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        entries = []
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                values = json.loads(line)
                key, _ = values.pop("key"), values.pop("record")
                entries.append((key, Reply(**values)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise LegoError(f"{path}: line {number} is damaged ({error}); remove that line") from error
        return entries
