"""Settings described once: default, range and sentence; from these come checks, config files and command-line options.

A section is a frozen dataclass of `setting`s. Nothing else need be written for a key to be read from a file, printed by
`lego-server config`, offered as an option and refused with its range when it is wrong.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

_KEY = "lego_setting"
_KINDS: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "the path of a file",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What is known of one key of a section.

    Attributes:
        name: The key.
        kind: `bool`, `int`, `float`, `str` or `Path`; of the items where `many`.
        many: Whether the value is a tuple of such.
        optional: Whether it may be None, which a file says by leaving it out.
        default: Its value when nobody sets it.
        help: One sentence for whoever sets it.
        low: Least value; None for no limit.
        high: Greatest value; None for no limit.
        choices: The only values there are; empty for any.
        option: Its command-line option.
    """

    name: str
    kind: type
    many: bool
    optional: bool
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    option: str

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = f"a list of values that are each {_KINDS[self.kind]}" if self.many else _KINDS[self.kind]
        if self.low is not None and self.high is not None:
            return f"{words} between {self.low} and {self.high}"
        return words

    def check(self, value: Any) -> None:
        """Checks a value.

        Raises:
            LegoError: It is of another type or outside the range; names the key, the value and what is allowed.
        """
        if value is None and self.optional:
            return
        if self.many and not isinstance(value, tuple):
            raise LegoError(f"{self.name} is {value!r}; it must be {self.allowed}")
        for item in value if self.many else (value,):
            number = self.kind is float and isinstance(item, int) and not isinstance(item, bool)
            if not number and type(item) is not (type(Path()) if self.kind is Path else self.kind):
                raise LegoError(f"{self.name} is {value!r}; it must be {self.allowed}")
            if self.choices and item not in self.choices:
                raise LegoError(f"{self.name} is {item!r}; choose {self.allowed}")
            if self.kind is str and not item.strip():
                raise LegoError(f"{self.name} is empty; it must be {self.allowed}")
            low, high = self.low, self.high
            if low is not None and high is not None and not low <= item <= high:  # also refuses NaN
                raise LegoError(f"{self.name} is {item}; it must lie between {low} and {high}")


def setting(
    default: Any, help: str, low: float | None = None, high: float | None = None, *,
    choices: tuple[str, ...] = (), option: str = "",
) -> Any:  # fmt: skip
    """Declares one key of a section.

    Args:
        default: Its value when nobody sets it.
        help: One sentence for whoever sets it: what it is, in which unit.
        low: Least value of a number; give both ends or none.
        high: Greatest value.
        choices: The only values of a text.
        option: Its command-line option, where `--the-key` would not say enough beside other sections' options.
    """
    described = {"help": help, "low": low, "high": high, "choices": choices, "option": option}
    return dataclasses.field(default=default, metadata={_KEY: described})


def settings_of(section: type[Section]) -> tuple[Setting, ...]:
    """Returns what is known of a section's keys, in their order."""
    types_of = typing.get_type_hints(section)
    found = []
    for field in dataclasses.fields(section):
        described = dict(field.metadata[_KEY])
        annotation = types_of[field.name]
        parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        [kind] = [part for part in parts if part is not type(None)]
        many = typing.get_origin(kind) is tuple
        described["option"] = described["option"] or f"--{field.name.replace('_', '-')}"
        found.append(
            Setting(
                field.name, typing.get_args(kind)[0] if many else kind, many, len(parts) > 1, field.default, **described
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class Section:
    """A group of settings; checked when it is made.

    Raises:
        LegoError: A value is of another type or outside its range.
    """

    def __post_init__(self) -> None:
        for each in settings_of(type(self)):
            each.check(getattr(self, each.name))
