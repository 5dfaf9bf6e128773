"""How every command ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from lego_core.command import Stopped, run_command
from lego_core.errors import LegoError

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="group")


@app.command()
def end(how: str) -> None:
    """Ends as it is told."""
    match how:
        case "well":
            return
        case "badly":
            raise LegoError("the size is 0;\n  give 1 or more")
        case "full":
            raise OSError(28, "No space left on device")
        case "otherwise":
            raise RuntimeError("the server went away")
        case "stopped":
            raise Stopped("run it again to go on")
        case "interrupted":
            raise KeyboardInterrupt
        case "checked":
            raise typer.Exit(1)


@app.command()
def count(times: Annotated[int, typer.Option()] = 1) -> None:
    """Takes a number."""


@group.command()
def member() -> None:
    """One of a group."""


def run(*arguments: str) -> int:
    return run_command(app, "lego-test", arguments, {RuntimeError: 1})


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("well", 0, ""),
        ("badly", 2, "error: the size is 0; give 1 or more\n"),
        ("full", 2, "error: [Errno 28] No space left on device\n"),
        ("otherwise", 1, "error: the server went away\n"),
        ("stopped", 130, "stopped: run it again to go on\n"),
        ("interrupted", 130, "stopped\n"),
        ("checked", 1, ""),
    ],
)
def test_an_end_is_at_most_one_line_and_a_code(
    how: str, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("end", how) == code
    assert capsys.readouterr().err.lstrip("\n") == told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("end",), "error: Missing argument 'how'.\n"),
        (("end", "well", "--colour"), "error: No such option: --colour\n"),
        (("begin",), "error: No such command 'begin'.\n"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err == told


def test_a_value_of_the_wrong_type_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("count", "--times", "abc") == 2
    told = capsys.readouterr().err
    assert "--times" in told and told.count("'abc'") == 1 and told.count("\n") == 1


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("group") == 2
    shown = capsys.readouterr()
    assert "member" in shown.out + shown.err and "error" not in shown.err


def test_nothing_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "lego-test" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_an_error() -> None:
    program = (
        "import sys, typer; from lego_core.command import run_command; app = typer.Typer();"
        "app.command()(lambda: print('much'));"
        "sys.exit(run_command(app, 'lego-test', ['--help'] if len(sys.argv) > 1 else []))"
    )
    for arguments in ([], ["--help"]):
        with open("/dev/full", "w") as full:
            result = subprocess.run(
                [sys.executable, "-c", program, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
        told = "error: the standard output cannot be written (No space left on device); send it somewhere else\n"
        assert (result.returncode, result.stderr) == (2, told)
