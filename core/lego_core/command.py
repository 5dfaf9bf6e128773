"""How every command of ours ends: what a person can put right is one line on stderr, and an exit code says the rest."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

import typer

from lego_core.errors import LegoError

INTERRUPTED = 130  # the shell's exit code for Ctrl-C

# Newer typer carries its own copy of click; this base class of its errors is found in either.
_UsageError: type[typer.BadParameter] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "UsageError"
)


class Stopped(Exception):
    """Ctrl-C or SIGTERM ended a long job; the message says what is left and how to go on."""


def run_command(
    app: typer.Typer,
    name: str,
    arguments: Sequence[str] | None = None,
    codes: Mapping[type[Exception], int] | None = None,
) -> int:
    """Runs a command line.

    Args:
        app: What it can do.
        name: The command's name, for its help.
        arguments: What was typed after it; None takes this process' own.
        codes: Exit codes of further exceptions whose message is written for the person at the keyboard.

    Returns:
        0; what a command exits with itself; 2 for what the user can put right; 130 after Ctrl-C; or one of `codes`.
    """
    # gRPC's own log lines would stand beside our one sentence on stderr; a user's own setting wins.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    told = codes or {}
    try:
        result = app(args=arguments or ["--help"], prog_name=name, standalone_mode=False)
    except Stopped as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group of commands without one: its help
            print(error.format_message(), file=sys.stderr)
            return 2
        return _fail(f"{error.format_message()}{_given(error)}", 2)
    except tuple(told) as error:
        return _fail(str(error), next(code for kind, code in told.items() if isinstance(error, kind)))
    except LegoError as error:
        return _fail(str(error), 2)
    except OSError as error:  # a full disk, a folder without access
        # Where it names no file it may be the output's, whose content is gone by now: a line more tells.
        return _fail(str(error) if error.filename else _output_fault("\n") or str(error), 2)
    if fault := _output_fault():
        return _fail(fault, 2)
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:  # some versions of typer turn Ctrl-C into this code themselves
        print("stopped", file=sys.stderr)
    return code


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # where nothing can be told, the code tells
        print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def _given(error: typer.BadParameter) -> str:
    """Returns the value at fault where newer typer leaves it out, to be found in pydantic's own error."""
    details = getattr(error.__cause__, "errors", None)
    return f" (it is {details()[0]['input']!r})" if callable(details) else ""


def _output_fault(more: str = "") -> str:
    """Returns why what was printed, and more, cannot be written; empty if it can."""
    try:
        sys.stdout.write(more)
        sys.stdout.flush()
    except OSError as error:
        with open(os.devnull, "w") as nowhere:  # Python would try again at its end
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return f"the standard output cannot be written ({error.strerror}); send it somewhere else"
    return ""
