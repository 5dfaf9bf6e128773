"""Options of the command line that have to do with recordings; light, as every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

DISPLAYS = ("window", "terminal", "none")
DEFAULT_LIMIT_MB = 2000.0

_PANEL = "Recording"


@dataclass(frozen=True)
class RecordOptions:
    """Whether and where a session is recorded; `recording_to` does it."""

    record: Annotated[
        Path | None,
        typer.Option(help="Record the session into this new file, such as session.mcap.", rich_help_panel=_PANEL),
    ] = None
    record_limit: Annotated[
        float, typer.Option(help="How large a recording may become, in MB.", rich_help_panel=_PANEL)
    ] = DEFAULT_LIMIT_MB
    record_consent: Annotated[
        bool,
        typer.Option(
            "--record-consent", help="You agree to what --record keeps; asked otherwise.", rich_help_panel=_PANEL
        ),
    ] = False
