"""Runs `lego-train study` in the test's own process."""

from __future__ import annotations

from lego_training import cli
from typer.testing import CliRunner

METHODS = ("LEGO", "SDEdit", "ProxEdit")


def run(*arguments: object) -> str:
    """Runs a command of lego-train; errors are raised."""
    result = CliRunner().invoke(cli.app, ["study", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output
