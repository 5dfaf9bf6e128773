"""The command `lego-client`: ask for guidance, play a clip, look at a server."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from lego_core.command import run_command
from lego_core.config import FIDELITIES, SAMPLERS, GuidanceDefaults
from lego_core.errors import LegoError
from rich.console import Console
from rich.text import Text

from lego_client.answer import ask as ask_server
from lego_client.backoff import Backoff
from lego_client.connection import Connection
from lego_client.devices import list_microphones, microphones_table
from lego_client.display import AnswerDisplay, answers_table, server_table, timings_table
from lego_client.errors import ServerError
from lego_client.events import PREVIEWS, Event, GuidanceOptions
from lego_client.film import write_film
from lego_client.listen import listen
from lego_client.output import answer_directory, check_output, free_path, save_answer
from lego_client.play import PlayObserver, TimedAnswer, TimedQuery, load_queries, play_clip
from lego_client.session import GuidanceClient, SentFrame, check_patience
from lego_client.sharpness import sharpest
from lego_client.sources import FrameSource, open_source
from lego_client.sources.factory import open_clip
from lego_client.sources.video import VideoFile
from lego_client.token_sources import find_token
from lego_client.tracing import traces_from_environment

_FRAMES_S = 15.0  # cameras need a moment to wake, network streams a few
_CONNECT_S = 10.0
_ORIGINAL_STEPS = GuidanceDefaults().at("original").steps


@dataclass(frozen=True)
class _Patience:
    """How long an answer may take, and how often it may be asked for."""

    time_limit: float
    deadline_seconds: float | None
    retries: int

    def __post_init__(self) -> None:
        if not 0 < self.time_limit < math.inf:
            raise LegoError(f"the timeout is {self.time_limit:g} s; it must be above 0")
        check_patience(self.deadline_seconds, self.retries)


app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="See how to do it: ask about what you see."
)

ServerOption = Annotated[str, typer.Option("--server", envvar="LEGO_SERVER", help="HOST:PORT of lego-server.")]
SeedOption = Annotated[int | None, typer.Option(help="The same seed, frame and query give the same picture.")]
StepsOption = Annotated[int | None, typer.Option(help="Denoising steps.")]
TextScaleOption = Annotated[float | None, typer.Option(help="Guidance scale of query and description, 1 to 30.")]
ImageScaleOption = Annotated[float | None, typer.Option(help="Guidance scale of the input frame, 1 to 10.")]
SamplerOption = Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")]
PreviewsOption = Annotated[int, typer.Option(help="How many previews of the picture to receive on the way.")]
QualityOption = Annotated[int | None, typer.Option(help="JPEG quality of the guidance frame, 1 to 100.")]
FidelityOption = Annotated[
    str | None, typer.Option(help=f"One of {', '.join(FIDELITIES)}: original does as the code of the LEGO paper does.")
]
_PANEL = "Security"
TlsOption = Annotated[
    bool, typer.Option("--tls", envvar="LEGO_TLS", help="Encrypt; implied by --ca and --cert.", rich_help_panel=_PANEL)
]
CaOption = Annotated[
    Path | None,
    typer.Option(envvar="LEGO_CA", help="PEM authority of the server; default: public ones.", rich_help_panel=_PANEL),
]
CertOption = Annotated[Path | None, typer.Option(help="PEM certificate of your own.", rich_help_panel=_PANEL)]
KeyOption = Annotated[Path | None, typer.Option(help="PEM private key of that certificate.", rich_help_panel=_PANEL)]
TokenFileOption = Annotated[
    Path | None, typer.Option(help="File with your token; default: LEGO_TOKEN.", rich_help_panel=_PANEL)
]
KeyringOption = Annotated[
    bool, typer.Option("--keyring", help="Take your token from the system's keyring.", rich_help_panel=_PANEL)
]
TimeoutOption = Annotated[float, typer.Option(help="Seconds one answer may take; then it is cancelled.")]
DeadlineOption = Annotated[
    float | None, typer.Option(help="Seconds after which an answer is worth nothing; default: the server's limit.")
]
RetriesOption = Annotated[int, typer.Option(help="How often to ask again when the server is full for a while.")]
ReconnectOption = Annotated[
    float, typer.Option(help="Seconds to try to come back after the connection was lost; 0 gives up at once.")
]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait for a server that is not there yet.")]
ModelOption = Annotated[str, typer.Option(help="Which of the server's models is asked; default: its first.")]
PreviewOption = Annotated[
    str | None, typer.Option(help=f"What previews are, one of {', '.join(PREVIEWS)}: fast is small and free.")
]


@app.command()
def ask(
    queries: Annotated[list[str], typer.Argument(help="What you want to do: 'how do I open the drawer?'")],
    source: Annotated[
        str, typer.Option(help="What you see: a picture, video, folder, camera index, or rtsp/http address.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers; earlier ones in it are kept.")],
    server: ServerOption = "localhost:50051",
    at: Annotated[float | None, typer.Option(help="Position in a video file in seconds; default: its end.")] = None,
    description: Annotated[
        str | None, typer.Option(help="Paint this sentence instead of the model's own description.")
    ] = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    sampler: SamplerOption = None,
    previews: PreviewsOption = 0,
    preview: PreviewOption = None,
    quality: QualityOption = None,
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
) -> None:
    """Asks one query, or several in turn, about what a source shows, and saves the pictures."""
    options = GuidanceOptions(
        seed=seed, steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler,
        description=description, jpeg_quality=quality, fidelity=fidelity, preview=preview,
    )  # fmt: skip
    patience = _Patience(timeout, deadline, retries)
    _check_requests(queries, previews)
    frames = open_source(source, at)
    connection = _connection(server, tls, ca, cert, key, token_file, keyring)
    client = GuidanceClient(
        server, min(timeout, _CONNECT_S), connection, traces_from_environment(), model=model,
        backoff=Backoff(reconnect), wait_seconds=wait,
    )  # fmt: skip
    check_output(out)
    asyncio.run(_ask_all(client, frames, queries, options, previews, patience, out))


@app.command()
def play(
    clip: Annotated[str, typer.Option(help="A first-person video file.")],
    queries: Annotated[str, typer.Option(help='JSON file: [{"time": seconds, "query": "..."}].')],
    out: Annotated[Path, typer.Option(help="Folder for the answers and demo.mp4; earlier ones in it are kept.")],
    server: ServerOption = "localhost:50051",
    speed: Annotated[float, typer.Option(help="Seconds of the clip per second; 1 is real time.")] = 1.0,
    film: Annotated[bool, typer.Option(help="Write demo.mp4: the clip with guidance beside it.")] = True,
    seed: SeedOption = None,
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    sampler: SamplerOption = None,
    previews: PreviewsOption = 4,
    preview: PreviewOption = None,
    quality: QualityOption = None,
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
) -> None:
    """Plays a clip as if it happened now, asks queries at their times, and leaves pictures and a film."""
    options = GuidanceOptions(
        seed=seed, steps=steps, text_scale=text_scale, image_scale=image_scale, sampler=sampler, jpeg_quality=quality,
        fidelity=fidelity, preview=preview,
    )  # fmt: skip
    timed = load_queries(queries)
    patience = _Patience(timeout, deadline, retries)
    _check_requests([query.query for query in timed], previews)
    source = open_clip(clip, speed)
    connection = _connection(server, tls, ca, cert, key, token_file, keyring)
    client = GuidanceClient(
        server, min(timeout, _CONNECT_S), connection, traces_from_environment(), model=model,
        backoff=Backoff(reconnect), wait_seconds=wait,
    )  # fmt: skip
    check_output(out)
    answers = asyncio.run(_play(client, source, timed, options, previews, patience, out))
    console = Console()
    console.print(answers_table(answers))
    if film:
        path = free_path(out / "demo.mp4")
        write_film(path, source.path, answers, client.info.notice)
        _print_written(console, [path])


@app.command()
def info(
    server: ServerOption = "localhost:50051",
    model: ModelOption = "",
    wait: WaitOption = 0.0,
    tls: TlsOption = False,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    token_file: TokenFileOption = None,
    keyring: KeyringOption = False,
) -> None:
    """Shows what a server runs and which limits it sets."""
    connection = _connection(server, tls, ca, cert, key, token_file, keyring)
    client = GuidanceClient(server, _CONNECT_S, connection, traces_from_environment(), model=model, wait_seconds=wait)
    asyncio.run(_info(client))


app.command()(listen)


@app.command()
def devices() -> None:
    """Lists the microphones of this machine."""
    console = Console()
    try:
        microphones = list_microphones()
    except LegoError as error:  # without the extra `speech` the rest is told all the same
        console.print(Text(str(error)), soft_wrap=True)
        return
    if microphones:
        console.print(microphones_table(microphones), soft_wrap=True)
    else:
        console.print("no microphone is attached")


def _connection(
    server: str, tls: bool, ca: Path | None, cert: Path | None, key: Path | None, token_file: Path | None, keyring: bool
) -> Connection:
    tls = tls or ca is not None or cert is not None
    return Connection(tls, ca, cert, key, find_token(server, token_file, keyring))


async def _ask_all(
    client: GuidanceClient,
    source: FrameSource,
    queries: Sequence[str],
    options: GuidanceOptions,
    previews: int,
    patience: _Patience,
    out: Path,
) -> None:
    console = Console()
    with source:  # a camera wakes up while the session opens
        async with client:
            _print_notice(console, client)
            options = _with_previews(options, previews, client)
            newest = 0
            sent: tuple[int, SentFrame] | None = None
            for query in queries:
                frames = await asyncio.to_thread(source.view, newest, _FRAMES_S)
                newest, seen = frames[-1].sequence, sharpest(frames)
                if sent is None or sent[0] != seen.sequence:  # a still picture travels once
                    sent = seen.sequence, await client.send_frame(seen.pixels)
                with AnswerDisplay(console, query) as display:
                    answer = await ask_server(
                        client, query, sent[1], source=source.name, options=options, time_limit=patience.time_limit,
                        deadline_seconds=patience.deadline_seconds, retries=patience.retries, on_event=display.show,
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
    patience: _Patience,
    out: Path,
) -> list[TimedAnswer]:
    console = Console()
    async with client:
        _print_notice(console, client)
        options = _with_previews(options, previews, client)
        observer = _PlayDisplay(console, client, out)
        try:
            return await play_clip(
                client, clip, queries, options=options, time_limit=patience.time_limit,
                deadline_seconds=patience.deadline_seconds, retries=patience.retries, observer=observer,
            )  # fmt: skip
        finally:
            observer.close()


async def _info(client: GuidanceClient) -> None:
    async with client:
        Console().print(server_table(client.target, client.info))


class _PlayDisplay(PlayObserver):
    """Shows each query of a clip as it is answered, and saves the answer."""

    def __init__(self, console: Console, client: GuidanceClient, out: Path) -> None:
        self._console = console
        self._client = client
        self._out = out
        self._display: AnswerDisplay | None = None

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


def _check_requests(queries: Sequence[str], previews: int) -> None:
    if any(not query.strip() for query in queries):
        raise LegoError("the query is empty; ask for example 'how do I open the drawer?'")
    if not 0 <= previews <= 100:
        raise LegoError(f"previews is {previews}; it must be from 0 to 100")


def _with_previews(options: GuidanceOptions, previews: int, client: GuidanceClient) -> GuidanceOptions:
    """Spreads so many previews evenly over the steps before the last, which brings the picture itself."""
    if previews == 0:
        return options
    default = _ORIGINAL_STEPS if options.fidelity == "original" else client.info.defaults.steps
    steps = options.steps or default or _ORIGINAL_STEPS  # a server may state none
    return replace(options, preview_every=math.ceil(steps / (previews + 1)))


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
    sys.exit(run())


if __name__ == "__main__":
    main()
