"""The command `lego-client live`."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lego_core.errors import LegoError

from lego_client.cli_options import (
    ModelOption,
    PictureOptions,
    ReconnectOption,
    RetriesOption,
    SecurityOptions,
    ServerOption,
    ViewOptions,
    check_queries,
    takes_groups,
    with_previews,
)
from lego_client.listen import HearingOptions
from lego_client.live.displays import DISPLAYS, check_display, default_display
from lego_client.live.run import LiveSettings, run_live
from lego_client.live.voice import LISTEN, Hearing
from lego_client.overlay.modes import MODES
from lego_client.recording.consent import recording_to
from lego_client.recording.options import RecordOptions
from lego_client.sending import Sending
from lego_client.sources.factory import open_camera

if TYPE_CHECKING:
    from lego_client.speech.speak import Speaker
    from lego_client.task.walk import Walk


@takes_groups
def live(
    *,
    source: Annotated[
        str, typer.Option(help="The camera: its index, an rtsp/http address, or a video, picture or folder.")
    ] = "0",
    server: ServerOption = "localhost:50051",
    query: Annotated[str, typer.Option(help="A question to ask at once.")] = "",
    display: Annotated[str, typer.Option(help=f"One of {', '.join(DISPLAYS)}; default: what this machine has.")] = "",
    mode: Annotated[str, typer.Option(help=f"How guidance is shown first, one of {', '.join(MODES)}.")] = MODES[0],
    out: Annotated[
        Path | None, typer.Option(help="Folder for every answer; default: those you choose to save.")
    ] = None,
    stream_fps: Annotated[
        float, typer.Option(help="Views sent per second, asked about or not; 0 sends those asked about only.")
    ] = 0.0,
    task: Annotated[str | None, typer.Option(help="A YAML file with the steps of a task to be led through.")] = None,
    state: Annotated[
        Path | None, typer.Option(help="File that keeps what is done of the task, so that you can go on later.")
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            help="voice: speak when you like; talk: the space key begins and ends it; off. Needs the extra speech, or "
            "speech-remote."
        ),
    ] = "off",
    speak: Annotated[bool, typer.Option("--speak", help="Have answers spoken; V turns it on and off.")] = False,
    model: ModelOption = "",
    retries: RetriesOption = 3,
    reconnect: ReconnectOption = 3600.0,
    hearing: HearingOptions,
    picture: PictureOptions = PictureOptions(previews=4),
    view: ViewOptions,
    security: SecurityOptions,
    recording: RecordOptions,
) -> None:
    """Shows what you see with guidance in it, and takes questions until you leave. Press H for the keys."""
    options, previews = picture.guidance(), picture.previews
    settings = LiveSettings(
        check_display(display or default_display()), mode, out, stream_fps=stream_fps, ahead=not view.data_saver,
        retries=retries, first_query=query, walk=_walk(task, state), kept=state,
    )  # fmt: skip
    check_queries([query] if query else [])
    frames = open_camera(source, view.framing)
    open_client = partial(
        security.client, server, model, reconnect=reconnect, wait=reconnect,
        sending=Sending(data_saver=view.data_saver),
    )  # fmt: skip
    open_client()  # wrong settings are told before a window opens
    speaker = _speaker() if speak else None  # may be missing; a recogniser would have been opened for nothing
    heard = _hearing(listen, hearing, server, security)
    about = {"command": "live", "source": frames.name, "server": server, "previews": previews}
    with recording_to(recording, about) as recorder:
        asyncio.run(
            run_live(
                partial(open_client, observer=recorder), frames,
                lambda client: with_previews(options, previews, client), settings, server, hearing=heard,
                speaker=speaker, recorder=recorder,
            )
        )  # fmt: skip


def _walk(task: str | None, state: Path | None) -> Walk | None:
    if task is None:
        if state is not None:
            raise LegoError(f"--state {state} keeps what is done of a task; name it with --task FILE")
        return None
    from lego_client.task.memory import load_walk
    from lego_client.task.reading import load_task  # with a library that sessions without a task do without
    from lego_client.task.walk import Walk

    planned = load_task(task)
    return Walk(planned) if state is None else load_walk(state, planned)


def _hearing(listen: str, options: HearingOptions, server: str, security: SecurityOptions) -> Hearing | None:
    if listen not in LISTEN:
        raise LegoError(f"listen is {listen!r}; it must be one of {', '.join(LISTEN)}")
    if listen == "off":
        if options != HearingOptions():
            raise LegoError(
                "--microphone, --audio, --recogniser, --speech-model, --wake and --headphones say how to listen; add "
                "--listen voice or --listen talk"
            )
        return None
    source, recogniser = options.open_source(), options.open_recogniser(server, security, patient=True)
    return Hearing(source, recogniser, listen == "talk", options.word, options.headphones)


def _speaker() -> Speaker:
    from lego_client.speech.speak import Speaker

    return Speaker()
