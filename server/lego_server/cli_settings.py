"""Every setting as a command-line option, without writing any of them twice."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from lego_server.config import ServerConfig
from lego_server.config_file import load_config
from lego_server.settings import Setting, settings_of

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Config file; options here win over it.")]


def takes_settings(command: Callable[..., None], without: frozenset[str] = frozenset()) -> Callable[..., None]:
    """Gives a command `--config` and an option for every setting.

    Its first parameter is then the `ServerConfig` they make: defaults, then the file, then what was typed.

    Args:
        command: The command.
        without: Sections that the command does not look at; a file for several commands may still have them.
    """
    _, *others = inspect.signature(command, eval_str=True).parameters.values()
    keys = {
        f"{section}__{each.name}": (section, each)
        for section, kind in ServerConfig.sections().items() if section not in without for each in settings_of(kind)
    }  # fmt: skip

    @functools.wraps(command)
    def with_settings(config_path: Path | None, **arguments: Any) -> None:
        typed: dict[str, dict[str, Any]] = {}
        for name, (section, each) in keys.items():
            value = arguments.pop(name)
            if value is not None and value != []:
                typed.setdefault(section, {})[each.name] = tuple(value) if each.many else value
        config = ServerConfig() if config_path is None else load_config(config_path)
        command(config.with_values(typed), **arguments)

    parameters = [
        inspect.Parameter("config_path", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ConfigOption),
        *(_parameter(name, section, each) for name, (section, each) in keys.items()),
        *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in others),
    ]
    with_settings.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_settings.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_settings


def _parameter(name: str, section: str, each: Setting) -> inspect.Parameter:
    told = "unset" if each.default is None else str(each.default)
    kind: Any = list[each.kind] if each.many else each.kind  # type: ignore[name-defined]
    names = [f"{each.option}/--no-{each.option[2:]}"] if each.kind is bool else [each.option]
    choices = f" One of {', '.join(each.choices)}." if each.choices else ""
    option = typer.Option(*names, help=f"{each.help}{choices}", show_default=told, rich_help_panel=section)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )
