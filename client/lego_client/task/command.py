"""The command `lego-client task`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lego_client.backoff import Backoff
from lego_client.cli_options import (
    CONNECT_SECONDS,
    CacheIntervalOption,
    CaOption,
    CertOption,
    DeadlineOption,
    FidelityOption,
    GuidanceIntervalOption,
    ImageScaleOption,
    KeyOption,
    KeyringOption,
    ModelOption,
    Patience,
    ReconnectOption,
    RetriesOption,
    SamplerOption,
    SeedOption,
    ServerOption,
    StepsOption,
    TextScaleOption,
    TimeoutOption,
    TlsOption,
    TokenFileOption,
    WaitOption,
    connection_of,
)
from lego_client.events import GuidanceOptions
from lego_client.output import check_output
from lego_client.recording.consent import recording_to
from lego_client.recording.options import DEFAULT_LIMIT_MB, RecordConsentOption, RecordLimitOption, RecordOption
from lego_client.session import GuidanceClient
from lego_client.sources import FrameSource, open_source
from lego_client.task.guide import TaskGuide, TaskSettings
from lego_client.task.memory import load_walk
from lego_client.task.typed import TypedLines
from lego_client.task.walk import HELP, Walk
from lego_client.tracing import traces_from_environment


def task(
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
    seed: SeedOption = None,
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    guidance_interval: GuidanceIntervalOption = None,
    cache_interval: CacheIntervalOption = None,
    sampler: SamplerOption = None,
    fidelity: FidelityOption = None,
    model: ModelOption = "",
    timeout: TimeoutOption = 120.0,
    deadline: DeadlineOption = None,
    retries: RetriesOption = 3,
    reconnect: ReconnectOption = 60.0,
    wait: WaitOption = 0.0,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    token_file: TokenFileOption = None,
    keyring: KeyringOption = False,
    record: RecordOption = None,
    record_limit: RecordLimitOption = DEFAULT_LIMIT_MB,
    record_consent: RecordConsentOption = False,
) -> None:
    """Leads you through a task: type next, done, back, repeat, skip, where am I or stop; or any question."""
    from lego_client.task.reading import load_task  # with a library that other commands do without

    planned = load_task(file)
    walk = Walk(planned) if state is None else load_walk(state, planned)
    options = GuidanceOptions(
        seed=seed, steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler, fidelity=fidelity,
        guidance_interval=guidance_interval, cache_interval=cache_interval,
    )  # fmt: skip
    settings = TaskSettings(out, state, options, Patience(timeout, deadline, retries), sys.stdin.isatty())
    camera = open_source(source)
    connection = connection_of(server, tls, ca, cert, key, token_file, keyring)
    check_output(out)
    noted = {"command": "task", "task": planned.title, "source": camera.name, "server": server}
    with recording_to(record, noted, consent=record_consent, limit_mb=record_limit) as recorder:
        client = GuidanceClient(
            server, min(timeout, CONNECT_SECONDS), connection, traces_from_environment(), model=model,
            backoff=Backoff(reconnect), wait_seconds=wait, observer=recorder,
        )  # fmt: skip
        asyncio.run(_lead(client, camera, walk, settings))


async def _lead(client: GuidanceClient, source: FrameSource, walk: Walk, settings: TaskSettings) -> None:
    console = Console()
    with source:
        async with client:
            if client.info.notice:
                console.print(Text(f"notice: {client.info.notice}", style="yellow"))
            console.print(Text(HELP, style="dim"), soft_wrap=True)
            await TaskGuide(client, source, walk, settings, console).run(TypedLines(sys.stdin))
