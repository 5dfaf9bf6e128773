"""Config files: TOML in, with errors that say how to put it right; TOML out, with a comment on every key."""

from __future__ import annotations

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lego_core.errors import LegoError

from lego_server.config import ServerConfig
from lego_server.settings import Setting, settings_of


def load_config(path: Path, base: ServerConfig | None = None) -> ServerConfig:
    """Reads a config file.

    Args:
        path: A TOML file; a section is a table, and what it leaves out keeps its value.
        base: What holds where the file says nothing; None means the defaults.

    Raises:
        LegoError: It is missing or no TOML, or a section, a key or a value is wrong; each is named with the cure.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LegoError(f"there is no config file {path}; lego-server config prints one to start from") from error
    except OSError as error:
        raise LegoError(f"{path} cannot be read ({error.strerror}); give --config a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LegoError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise LegoError(f"{path} is not a config file: it is nested too deeply") from error
    config, sections = base or ServerConfig(), ServerConfig.sections()
    for name, table in tables.items():
        if name not in sections:
            raise LegoError(f"{path}: {_unknown('section', name, sections)}")
        if not isinstance(table, dict):
            raise LegoError(f"{path}: {name} is {table!r}; it is a section, so write [{name}] above its keys")
        keys = {each.name: each for each in settings_of(sections[name])}
        values = {}
        for key, value in table.items():
            if key not in keys:
                raise LegoError(f"{path}: [{name}] {_unknown('key', key, keys)} (it is set to {value!r})")
            values[key] = _read(keys[key], value)
        try:
            config = config.with_values({name: values})
        except LegoError as error:
            raise LegoError(f"{path}: [{name}] {error}") from error
    return config


def write_config(config: ServerConfig) -> str:
    """Returns a config file with every setting, what each means and may be; what is unset is commented out."""
    lines = []
    for name, section in ServerConfig.sections().items():
        assert section.__doc__ is not None
        title = section.__doc__.partition(": ")[2].partition("\n")[0]
        lines += [f"# {title[0].upper()}{title[1:]}", f"[{name}]"]
        for each in settings_of(section):
            lines += textwrap.wrap(_comment(each), 118, initial_indent="# ", subsequent_indent="# ")
            value = getattr(getattr(config, name), each.name)
            lines.append(f"# {each.name} =" if value is None else f"{each.name} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _read(setting: Setting, value: Any) -> Any:
    """Returns a value as the setting has it, as far as TOML has no type for that."""
    if setting.many and isinstance(value, list):
        return tuple(value)
    return Path(value) if setting.kind is Path and isinstance(value, str) and value else value


def _comment(each: Setting) -> str:
    default = "unset" if each.default is None else _toml(each.default)
    return f"{each.help} {each.allowed[0].upper()}{each.allowed[1:]}; default {default}."


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Path):
        value = str(value)
    # JSON and TOML write such values alike, but for the character that only JSON lets stand bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    cure = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"there is no {what} {name}; {cure}"
