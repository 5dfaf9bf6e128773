"""Settings from a YAML file, every key overridable on the command line, as checked dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from lego_core.errors import LegoError
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

Built = TypeVar("Built")


def read_settings(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Returns what a YAML file says, with the overrides in place.

    Args:
        path: The file.
        overrides: "key=value" pairs with dotted keys.

    Raises:
        LegoError: Unreadable file, or an override that is none.
    """
    bad = [override for override in overrides if "=" not in override]
    if bad:
        raise LegoError(f"the override {bad[0]!r} is not of the form key=value")
    try:
        merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (OSError, ValueError, TypeError, YAMLError, OmegaConfBaseException) as error:
        raise LegoError(f"{path} cannot be read as a configuration: {error}") from error
    if not isinstance(values, dict):
        raise LegoError(f"{path} is no mapping of keys")
    return {str(key): value for key, value in values.items()}


def build(kind: type[Built], values: Any, place: str) -> Built:
    """Makes a dataclass of its keys.

    Args:
        kind: The dataclass; it checks its values itself.
        values: Its keys and their values.
        place: Where they stand, for errors.

    Raises:
        LegoError: Unknown or missing key, or a value out of range; the message names the key.
    """
    if not isinstance(values, dict):
        raise LegoError(f"{place} is {values!r}; it must be a mapping of keys")
    known = {
        each.name: each.default is MISSING and each.default_factory is MISSING
        for each in fields(kind)  # type: ignore[arg-type]
    }
    unknown = [key for key in values if key not in known]
    if unknown:
        raise LegoError(f"{place}: unknown key {unknown[0]!r}; known keys are {', '.join(known)}")
    missing = [key for key, needed in known.items() if needed and key not in values]
    if missing:
        raise LegoError(f"{place}: the key {missing[0]!r} is missing")
    try:
        return kind(**values)
    except LegoError as error:
        raise LegoError(f"{place}: {error}") from error
