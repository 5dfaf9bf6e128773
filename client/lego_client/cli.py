"""The command `lego-client`: ask for guidance, play a clip, look at a server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from lego_core.command import run_command
from lego_core.errors import LegoError
from lego_core.files import check_output as check_file
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.text import Text

from lego_client.answer import ask as ask_server
from lego_client.cli_options import (
    ModelOption,
    Patience,
    PictureOptions,
    ReconnectOption,
    SecurityOptions,
    ServerOption,
    ViewOptions,
    WaitOption,
    check_queries,
    takes_groups,
    with_previews,
)
from lego_client.devices import cameras_table, list_cameras, list_microphones, microphones_table
from lego_client.display import AnswerDisplay, answers_table, server_table, timings_table
from lego_client.errors import ServerError
from lego_client.events import Event, GuidanceOptions
from lego_client.film import write_film
from lego_client.listen import listen
from lego_client.live.command import live
from lego_client.output import answer_directory, check_output, free_path, save_answer
from lego_client.overlay.compositions import CORNERS
from lego_client.overlay.film import FilmClock, read_answer, write_overlay_film
from lego_client.overlay.modes import MODES, composition
from lego_client.play import PlayObserver, TimedAnswer, TimedQuery, load_queries, play_clip
from lego_client.recording.commands import export, replay
from lego_client.recording.consent import recording_to
from lego_client.recording.options import RecordOptions
from lego_client.sending import Sending
from lego_client.session import GuidanceClient, SentFrame
from lego_client.sharpness import sharpest
from lego_client.sources import FrameSource, open_source
from lego_client.sources.factory import open_clip
from lego_client.sources.video import VideoFile
from lego_client.task.command import task

if TYPE_CHECKING:
    from lego_client.recording.recorder import Recorder

_FRAMES_S = 15.0  # cameras need a moment to wake, network streams a few


app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="See how to do it: ask about what you see."
)


@app.command()
@takes_groups
def ask(
    *,
    queries: Annotated[list[str], typer.Argument(help="What you want to do: 'how do I open the drawer?'")],
    source: Annotated[
        str,
        typer.Option(
            envvar="LEGO_SOURCE",
            help="What you see: a picture, video, folder, camera (0, camera:NAME), rtsp/http address or screen:.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; earlier ones in it are kept.")],
    server: ServerOption = "localhost:50051",
    at: Annotated[float | None, typer.Option(help="Position in a video file in seconds; default: its end.")] = None,
    description: Annotated[
        str | None, typer.Option(help="Paint this sentence instead of the model's own description.")
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
    """Asks one query, or several in turn, about what a source shows, and saves the pictures."""
    options = picture.guidance(description)
    check_queries(queries)
    frames = open_source(source, at, view.framing)
    make_client = partial(
        security.client, server, model, timeout=patience.timeout, reconnect=reconnect, wait=wait,
        sending=Sending(data_saver=view.data_saver),
    )  # fmt: skip
    make_client()  # wrong settings are told before anything is recorded
    check_output(out)
    settings = {"command": "ask", "source": frames.name, "server": server, "previews": picture.previews}
    with recording_to(recording, settings) as recorder:
        client = make_client(observer=recorder)
        asyncio.run(_ask_all(client, frames, queries, options, picture.previews, patience, out))


@app.command()
@takes_groups
def play(
    *,
    clip: Annotated[str, typer.Option(help="A first-person video file.")],
    queries: Annotated[str, typer.Option(help='JSON file: [{"time": seconds, "query": "..."}].')],
    out: Annotated[Path, typer.Option(help="Folder for the answers and demo.mp4; earlier ones in it are kept.")],
    server: ServerOption = "localhost:50051",
    speed: Annotated[float, typer.Option(help="Seconds of the clip per second; 1 is real time.")] = 1.0,
    film: Annotated[bool, typer.Option(help="Write demo.mp4: the clip with guidance beside it.")] = True,
    send_fps: Annotated[float, typer.Option(help="Frames sent a second while no query is asked, at most.")] = 10.0,
    model: ModelOption = "",
    reconnect: ReconnectOption = 60.0,
    wait: WaitOption = 0.0,
    patience: Patience,
    picture: PictureOptions = PictureOptions(previews=4),
    view: ViewOptions,
    security: SecurityOptions,
    recording: RecordOptions,
) -> None:
    """Plays a clip as if it happened now, asks queries at their times, and leaves pictures and a film."""
    options = picture.guidance()
    timed = load_queries(queries)
    check_queries([query.query for query in timed])
    source = open_clip(clip, speed, view.framing)
    make_client = partial(
        security.client, server, model, timeout=patience.timeout, reconnect=reconnect, wait=wait,
        sending=Sending(send_fps, view.data_saver),
    )  # fmt: skip
    make_client()
    check_output(out)
    previews = picture.previews
    settings = {"command": "play", "source": source.name, "server": server, "speed": speed, "previews": previews}
    with recording_to(recording, settings) as recorder:
        client = make_client(observer=recorder)
        answers = asyncio.run(_play(client, source, timed, options, previews, patience, out, recorder))
    console = Console()
    console.print(answers_table(answers))
    if film:
        path = free_path(out / "demo.mp4")
        write_film(path, source.path, answers, client.info.notice)
        _print_written(console, [path])


app.command()(task)
app.command()(replay)
app.command()(export)
app.command()(live)


@app.command()
def overlay(
    clip: Annotated[str, typer.Argument(help="A first-person video file.")],
    out: Annotated[Path, typer.Option(help="The film to write, an .mp4 file; an earlier one is kept.")],
    answer: Annotated[
        Path | None, typer.Option(help="Folder of an answer, as ask and play leave it; gives the next three.")
    ] = None,
    guidance: Annotated[Path | None, typer.Option(help="The guidance frame.")] = None,
    asked: Annotated[Path | None, typer.Option(help="The frame that was asked about.")] = None,
    description: Annotated[str | None, typer.Option(help="The sentence to write under it.")] = None,
    mode: Annotated[str, typer.Option(help=f"One of {', '.join(MODES)}.")] = "ghost",
    corner: Annotated[str, typer.Option(help=f"Of picture-in-picture: one of {', '.join(CORNERS)}.")] = "top-right",
    size: Annotated[float, typer.Option(help="Of picture-in-picture: share of the view, 0.1 to 0.9.")] = 0.4,
    position: Annotated[float, typer.Option(help="Of the slider: 0 shows after only, 1 before only.")] = 0.5,
) -> None:
    """Writes a film of guidance over a clip: as a ghost that stays on the scene, beside it, or in a corner."""
    source = open_clip(clip)
    if out.suffix.lower() != ".mp4":
        raise LegoError(f"the film is to be {out}; give it a name that ends in .mp4")
    shown = read_answer(answer, guidance, asked, description)
    clock = FilmClock()
    how = composition(mode, shown.asked, corner=corner, size=size, position=position, clock=clock)
    check_file(out)
    path = free_path(out)
    seen = write_overlay_film(
        path, source.path, shown, how, clock, lambda frames, count: track(frames, "composing", count or None)
    )
    found = f"; the scene was found in {np.mean(seen):.0%}" if mode == "ghost" else ""
    Console().print(Text(f"wrote {path}: {len(seen)} frames{found}"), soft_wrap=True)


@app.command()
@takes_groups
def info(
    *,
    server: ServerOption = "localhost:50051",
    model: ModelOption = "",
    wait: WaitOption = 0.0,
    security: SecurityOptions,
) -> None:
    """Shows what a server runs and which limits it sets."""
    asyncio.run(_info(security.client(server, model, reconnect=0.0, wait=wait)))


app.command()(listen)


@app.command()
def devices() -> None:
    """Lists the cameras and microphones of this machine."""
    console = Console()
    cameras = list_cameras()
    if cameras:
        console.print(cameras_table(cameras), soft_wrap=True)
    else:
        console.print("no camera is attached")
    console.print()
    try:
        microphones = list_microphones()
    except LegoError as error:  # without the extra `speech` the cameras are told all the same
        console.print(Text(str(error)), soft_wrap=True)
        return
    if microphones:
        console.print(microphones_table(microphones), soft_wrap=True)
    else:
        console.print("no microphone is attached")


async def _ask_all(
    client: GuidanceClient,
    source: FrameSource,
    queries: Sequence[str],
    options: GuidanceOptions,
    previews: int,
    patience: Patience,
    out: Path,
) -> None:
    console = Console()
    with source:  # a camera wakes up while the session opens
        async with client:
            _print_notice(console, client)
            options = with_previews(options, previews, client)
            newest = 0
            sent: tuple[int, SentFrame] | None = None
            for query in queries:
                frames = await asyncio.to_thread(source.view, newest, _FRAMES_S, partial(_print_trouble, console))
                newest, seen = frames[-1].sequence, sharpest(frames)
                if sent is None or sent[0] != seen.sequence:  # a still picture travels once
                    sent = seen.sequence, await client.send_frame(seen.pixels, seen.captured)
                with AnswerDisplay(console, query) as display:
                    answer = await ask_server(
                        client, query, sent[1], source=source.name, options=options, time_limit=patience.timeout,
                        deadline_seconds=patience.deadline, retries=patience.retries, on_event=display.show,
                    )  # fmt: skip
                console.print(timings_table(answer))
                directory = answer_directory(out, one_of_many=len(queries) > 1)
                _print_written(console, save_answer(directory, answer, client.info))


async def _play(
    client: GuidanceClient,
    clip: VideoFile,
    queries: list[TimedQuery],
    options: GuidanceOptions,
    previews: int,
    patience: Patience,
    out: Path,
    recorder: Recorder | None,
) -> list[TimedAnswer]:
    console = Console()
    async with client:
        _print_notice(console, client)
        options = with_previews(options, previews, client)
        observer = _PlayDisplay(console, client, out, recorder)
        try:
            return await play_clip(
                client, clip, queries, options=options, time_limit=patience.timeout,
                deadline_seconds=patience.deadline, retries=patience.retries, observer=observer,
            )  # fmt: skip
        finally:
            observer.close()


async def _info(client: GuidanceClient) -> None:
    async with client:
        Console().print(server_table(client.target, client.info))


class _PlayDisplay(PlayObserver):
    """Shows each query of a clip as it is answered, and saves the answer."""

    def __init__(self, console: Console, client: GuidanceClient, out: Path, recorder: Recorder | None) -> None:
        self._console = console
        self._client = client
        self._out = out
        self._recorder = recorder
        self._display: AnswerDisplay | None = None

    def seen(self, pixels: NDArray[np.uint8]) -> None:
        if self._recorder is not None:
            self._recorder.captured(pixels)

    def asked(self, query: TimedQuery) -> None:
        self._console.print(f"at {query.time:.1f} s", style="dim")
        self._display = AnswerDisplay(self._console, query.query)
        self._display.__enter__()

    def event(self, event: Event) -> None:
        if self._display is not None:
            self._display.show(event)

    def answered(self, answer: TimedAnswer) -> None:
        self.close()
        directory = answer_directory(self._out, one_of_many=True)
        _print_written(self._console, save_answer(directory, answer.answer, self._client.info))

    def close(self) -> None:
        """Leaves the terminal tidy."""
        if self._display is not None:
            self._display.__exit__(None, None, None)
            self._display = None


def _print_trouble(console: Console, trouble: str) -> None:
    console.print(Text(trouble, style="yellow"), soft_wrap=True)


def _print_notice(console: Console, client: GuidanceClient) -> None:
    if client.info.notice:
        console.print(Text(f"notice: {client.info.notice}", style="yellow"))


def _print_written(console: Console, paths: Sequence[Path]) -> None:
    directory = paths[0].parent
    previews = sum(path.name.startswith("preview_") for path in paths)
    names = ", ".join(path.name for path in paths if not path.name.startswith("preview_"))
    if previews:
        names += f" and {previews} preview{'s' if previews > 1 else ''}"
    # Plain printing: rich would break a long path over lines, and nobody could copy it.
    console.print(Text(f"wrote {directory}: {names}"), soft_wrap=True)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 1 (server), 2 (the user can put it right) or 130 (Ctrl-C)."""
    return run_command(app, "lego-client", arguments, {ServerError: 1})


def main() -> None:
    """The console command."""
    if isinstance(sys.stdin, TextIOWrapper):  # bytes that are no text are shown as such, and bring nothing down
        sys.stdin.reconfigure(errors="replace")
    sys.exit(run())


if __name__ == "__main__":
    main()
