"""A task as its author wrote it: a YAML file, read with an eye for the line at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import yaml
from lego_core.errors import LegoError

from lego_client.sources.factory import existing_path
from lego_client.task.plan import Step, Task

_T = TypeVar("_T")

_MOST_BYTES = 1_000_000
_MOST_STEPS = 200
_MOST_CHARACTERS = 1000
_MOST_CONFIRM_WORDS = 50


def load_task(spec: str) -> Task:
    """Reads a task.

    Args:
        spec: The path of a YAML file; docs/tasks.md describes it.

    Raises:
        LegoError: There is no such file, or it is not as it should be; the message names file, line, value and cure.
    """
    path = existing_path(spec, "a YAML file with the steps of a task")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise LegoError(f"{path} has more than {_MOST_BYTES} bytes; a task is far smaller")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LegoError(f"{path} cannot be read as text ({error}); a task is a YAML file in UTF-8") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)  # nodes know their lines; nothing is constructed
    except yaml.YAMLError as error:
        raise LegoError(f"{path} is no YAML: {_where(error)}") from error
    except RecursionError as error:
        raise LegoError(f"{path} is nested too deeply to be a task") from error
    return _Reader(path).task(root)


class _Reader:
    """Turns nodes into a task."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def task(self, root: yaml.Node | None) -> Task:
        if root is None:
            raise LegoError(f"{self._path} is empty; a task has a title and steps")
        fields = self._mapping(root, "the task", {"title": True, "steps": True, "notes": False})
        steps = self._sequence(fields["steps"], "steps", _MOST_STEPS, self._step)
        return Task(self._text(fields["title"], "title"), steps, self._optional(fields, "notes"))

    def _step(self, node: yaml.Node, number: int) -> Step:
        where = f"step {number}"
        fields = self._mapping(node, where, {"query": True, "title": False, "notes": False, "confirm": False})
        query = self._text(fields["query"], f"query of {where}")
        title = self._text(fields["title"], f"title of {where}") if "title" in fields else query
        confirm: tuple[str, ...] = ()
        if "confirm" in fields:
            confirm = self._sequence(
                fields["confirm"], f"confirm of {where}", _MOST_CONFIRM_WORDS,
                lambda one, _: self._text(one, f"confirm of {where}"),
            )  # fmt: skip
        return Step(title, query, self._optional(fields, "notes"), confirm)

    def _mapping(self, node: yaml.Node, what: str, keys: dict[str, bool]) -> dict[str, yaml.Node]:
        """Returns the values by key.

        Args:
            node: What should be a mapping.
            what: Its name in messages.
            keys: Those there may be, and whether they must be.
        """
        wanted = ", ".join(keys)
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, f"{what} is {_shown(node)}; it must be keys and values: {wanted}")
        fields: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in keys:
                self._fail(key, f"{what} has the key {_shown(key)}; it may have {wanted}")
            if name in fields:
                self._fail(key, f"{what} has the key {name!r} twice; keep one of them")
            fields[name] = value
        for name, needed in keys.items():
            if needed and name not in fields:
                self._fail(node, f"{what} has no {name}; add a line '{name}: ...'")
        return fields

    def _sequence(self, node: yaml.Node, what: str, most: int, read: Callable[[yaml.Node, int], _T]) -> tuple[_T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self._fail(node, f"{what} is {_shown(node)}; it must be a list, each entry behind a dash")
        if not 1 <= len(node.value) <= most:
            self._fail(node, f"{what} has {len(node.value)} entries; it must have 1 to {most}")
        return tuple(read(one, number) for number, one in enumerate(node.value, 1))

    def _optional(self, fields: dict[str, yaml.Node], name: str) -> str:
        return self._text(fields[name], name) if name in fields else ""

    def _text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self._fail(node, f"{what} is {_shown(node)}; it must be text")
        text = " ".join(node.value.split())
        if not text:
            self._fail(node, f"{what} is empty; write some words, or leave the key out")
        if len(text) > _MOST_CHARACTERS:
            self._fail(node, f"{what} has {len(text)} characters; it may have {_MOST_CHARACTERS}")
        return text

    def _fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise LegoError(f"{self._path}, line {node.start_mark.line + 1}: {message}")


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if len(node.value) <= 60 else repr(node.value[:60] + "...")
    return "a list" if isinstance(node, yaml.SequenceNode) else "keys and values"


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return (
        f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark is not None else " ".join(problem.split())
    )
