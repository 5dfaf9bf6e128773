"""The command `lego-client task`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lego_client.cli_options import (
    ModelOption,
    Patience,
    PictureOptions,
    ReconnectOption,
    SecurityOptions,
    ServerOption,
    ViewOptions,
    WaitOption,
    takes_groups,
    with_previews,
)
from lego_client.output import check_output
from lego_client.recording.consent import recording_to
from lego_client.recording.options import RecordOptions
from lego_client.sending import Sending
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource, open_source
from lego_client.task.guide import TaskGuide, TaskSettings
from lego_client.task.memory import load_walk
from lego_client.task.typed import TypedLines
from lego_client.task.walk import HELP, Walk


@takes_groups
def task(
    *,
    file: Annotated[
        str, typer.Argument(help="A YAML file with the steps (docs/tasks.md), such as docs/tasks/tea.yaml.")
    ],
    source: Annotated[
        str, typer.Option(help="What you see: a camera index, rtsp/http address, picture, video or folder.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; earlier ones in it are kept.")],
    server: ServerOption = "localhost:50051",
    state: Annotated[
        Path | None, typer.Option(help="File that keeps what is done, so that you can stop and go on later.")
    ] = None,
    model: ModelOption = "",
    reconnect: ReconnectOption = 60.0,
    wait: WaitOption = 0.0,
    patience: Patience,
    picture: PictureOptions,
    view: ViewOptions,
    security: SecurityOptions,
    recording: RecordOptions,
) -> None:
    """Leads you through a task: type next, done, back, repeat, skip, where am I or stop; or any question."""
    from lego_client.task.reading import load_task  # with a library that other commands do without

    planned = load_task(file)
    walk = Walk(planned) if state is None else load_walk(state, planned)
    settings = TaskSettings(out, state, picture.guidance(), patience, sys.stdin.isatty())
    camera = open_source(source, framing=view.framing)
    make_client = partial(
        security.client, server, model, timeout=patience.timeout, reconnect=reconnect, wait=wait,
        sending=Sending(data_saver=view.data_saver),
    )  # fmt: skip
    make_client()
    check_output(out)
    noted = {"command": "task", "task": planned.title, "source": camera.name, "server": server}
    with recording_to(recording, noted) as recorder:
        client = make_client(observer=recorder)
        asyncio.run(_lead(client, camera, walk, settings, picture.previews))


async def _lead(client: GuidanceClient, source: FrameSource, walk: Walk, settings: TaskSettings, previews: int) -> None:
    console = Console()
    with source:
        async with client:
            if client.info.notice:
                console.print(Text(f"notice: {client.info.notice}", style="yellow"))
            console.print(Text(HELP, style="dim"), soft_wrap=True)
            settings = replace(settings, options=with_previews(settings.options, previews, client))
            await TaskGuide(client, source, walk, settings, console).run(TypedLines(sys.stdin))
