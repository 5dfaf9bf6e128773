"""`lego-server doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lego_server.cli_settings import takes_settings
from lego_server.config import ServerConfig
from lego_server.doctor.checks import CHECKS, Finding, check_cluster

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@takes_settings
def doctor(
    config: ServerConfig,
    directory: Annotated[Path | None, typer.Argument(metavar="ENGINES", help="Engine directory.")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Look at what lego-server cluster needs, too.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Load the model and answer one query, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say whether a server can run here as configured, and what to do if not; exit code 1 if there is a problem."""
    if directory is not None:
        config = config.with_values({"engine": {"directory": str(directory)}})
    checks = (*CHECKS, check_cluster) if cluster else CHECKS
    findings = [finding for check in checks for finding in check(config)]
    if run and not _problems(findings):
        from lego_server.doctor.trial import run_trial

        findings.append(run_trial(config))
    elif run:
        findings.append(Finding("run", "warning", "not tried: there are problems above", "solve them first"))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        Console().print(_table(findings))
    if _problems(findings):
        raise typer.Exit(1)


def _problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status == "problem"]


def _table(findings: list[Finding]) -> Table:
    table = Table("", "", "found", "what to do", box=None)
    for each in findings:
        table.add_row(each.name, Text(each.status, _STYLES[each.status]), Text(each.told), Text(each.cure))
    return table
