"""The terminal: the description as it is written, a bar of denoising steps, tables of timings."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lego_client.answer import Answer
from lego_client.events import ConnectionLost, DescriptionPiece, Event, QueryRestarted, Reconnected, ServerInfo
from lego_client.events import Progress as DenoisingProgress
from lego_client.play import TimedAnswer


class AnswerDisplay:
    """Shows one query while it is answered. Use it as a context manager and give `show` every event."""

    def __init__(self, console: Console, query: str) -> None:
        self._description = Text("")
        self._bar = Progress(
            TextColumn("denoising"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._denoising = self._bar.add_task("denoising", total=None, visible=False)
        title = Text(f"“{query}”", style="bold cyan")
        self._live = Live(Group(title, self._description, self._bar), console=console, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if not self._live.console.is_terminal:  # rich leaves a redirected output in the middle of a line
            self._live.console.print()

    def show(self, event: Event) -> None:
        """Takes the next event of the query."""
        match event:
            case DescriptionPiece(text=text):
                self._description.append(text)
            case DenoisingProgress(step=step, steps=steps):
                self._bar.update(self._denoising, completed=step, total=steps, visible=True)
            case QueryRestarted():
                self._description.plain = ""
                self._bar.reset(self._denoising, visible=False)
            case ConnectionLost():
                self._live.console.print(Text("connection lost, trying again", style="yellow"))
            case Reconnected(resumed=resumed):
                how = "back" if resumed else "back; asking again"
                self._live.console.print(Text(how, style="green"))


def timings_table(answer: Answer) -> Table:
    """Returns where the milliseconds of an answer went: the server's stages, then what the wearer waited for."""
    timings = answer.guidance.timings
    columns = {
        "queue": timings.queue_ms,
        "encode": timings.encode_ms,
        "describe": timings.describe_ms,
        "condition": timings.condition_ms,
        "denoise": timings.denoise_ms,
        "decode": timings.decode_ms,
        "server": timings.total_ms,
    }
    if answer.first_words_seconds is not None:
        columns["words"] = answer.first_words_seconds * 1000
    columns["picture"] = answer.seconds * 1000
    title = "milliseconds on the server, then until seen here"
    table = Table(box=None, pad_edge=False, header_style="bold", title=Text(title, style="dim"), title_justify="left")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*(f"{milliseconds:.0f}" for milliseconds in columns.values()))
    return table


def answers_table(answers: Sequence[TimedAnswer]) -> Table:
    """Returns one row per answer of a played clip."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("at", "query", "description", "first words", "picture"):
        table.add_column(name)
    for timed in answers:
        answer = timed.answer
        words = answer.first_words_seconds
        table.add_row(
            f"{timed.time:.1f} s",
            Text(answer.query),
            Text(answer.guidance.description),
            "-" if words is None else f"{words:.2f} s",
            f"{answer.seconds:.2f} s",
        )
    return table


def server_table(target: str, info: ServerInfo) -> Table:
    """Returns what a server runs and which limits it sets."""
    defaults = info.defaults
    table = Table(show_header=False, box=None, pad_edge=False)
    rows: list[tuple[str, object]] = [
        ("server", target),
        ("model", info.model_name),
        ("version", info.model_version),
        ("engine", info.engine),
        ("resolution", f"{info.resolution} pixels"),
        ("default steps", f"{defaults.steps} (at most {info.max_steps})"),
        ("default scales", f"text {defaults.text_scale:g}, image {defaults.image_scale:g}")
        if defaults.text_scale and defaults.image_scale
        else ("default scales", "not stated"),
        ("default sampler", defaults.sampler or "not stated"),
        ("largest frame", f"{info.max_image_bytes:,} bytes, {info.max_image_pixels:,} pixels"),
        ("longest query", f"{info.max_query_characters} characters"),
    ]
    if info.models:
        rows.insert(2, ("models", ", ".join(info.models)))
    if info.max_deadline_seconds:
        rows.append(("longest deadline", f"{info.max_deadline_seconds:g} s"))
    for name, preset in info.presets.items():
        rows.append((f"preset {name}", f"{preset.sampler}, {preset.steps} steps"))
    rows.append(("previews", "fast or full" if info.fast_previews else "full"))
    rows.append(("speech", f"{info.speech}, {info.max_utterance_seconds:g} s" if info.speech else "not written down"))
    for name, value in rows:
        table.add_row(Text(name, style="bold"), Text(str(value)))
    if info.notice:
        table.add_row(Text("notice", style="bold yellow"), Text(info.notice))
    return table
