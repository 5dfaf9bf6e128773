"""The commands `lego-client replay` and `lego-client export`."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from lego_core.errors import LegoError
from lego_core.files import check_output as check_file
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from lego_client.cli_options import (
    ModelOption,
    ReconnectOption,
    RetriesOption,
    SecurityOptions,
    TimeoutOption,
    WaitOption,
    takes_groups,
)
from lego_client.events import Guidance, QueryFailed
from lego_client.recording.options import DISPLAYS
from lego_client.session import GuidanceClient

if TYPE_CHECKING:  # reading recordings takes libraries that the other commands do without
    from lego_client.recording.compare import Comparison
    from lego_client.recording.recording import Recording

RecordingArgument = Annotated[Path, typer.Argument(help="A recording, as --record made it.")]
DamagedOption = Annotated[bool, typer.Option("--damaged", help="Pass over what is damaged, and use the rest.")]


@takes_groups
def replay(
    *,
    recording: RecordingArgument,
    display: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(DISPLAYS)}; none lists what happened, at once.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Seconds of the recording per second.")] = 1.0,
    start: Annotated[float, typer.Option("--from", help="Seconds into the recording to begin at.")] = 0.0,
    damaged: DamagedOption = False,
    server: Annotated[
        str | None, typer.Option(help="HOST:PORT of a server: asks it every question again, and compares the answers.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="File for the comparison's figures.")] = None,
    model: ModelOption = "",
    timeout: TimeoutOption = 120.0,
    retries: RetriesOption = 3,
    reconnect: ReconnectOption = 60.0,
    wait: WaitOption = 0.0,
    security: SecurityOptions,
) -> None:
    """Plays a recorded session without a server, as the wearer saw it; or asks its questions again."""
    if not 0 < speed <= 1000:
        raise LegoError(f"the speed is {speed:g}; it must be above 0 and at most 1000, 1 being real time")
    if not 0 <= start < math.inf:
        raise LegoError(f"--from is {start:g} s; it must be 0 or more")
    console = Console()
    if server is not None:
        client = security.client(server, model, timeout=timeout, reconnect=reconnect, wait=wait)
        if out is not None:
            check_file(out)
        opened = _open(recording, damaged, console)
        found = asyncio.run(_compare(client, opened, timeout, retries, console))
        console.print(_comparison_table(found))
        if out is not None:
            out.write_text(json.dumps([_figures(one) for one in found], indent=2) + "\n", encoding="utf-8")
        return
    if out is not None:
        raise LegoError("--json is for a comparison; name the server to ask with --server HOST:PORT")
    from lego_client.recording.replay import checked_display, lines_of, play_in_terminal, play_in_window

    chosen = checked_display(display)
    opened = _open(recording, damaged, console)
    if start > opened.seconds:
        raise LegoError(f"--from is {start:g} s, but the recording ends after {opened.seconds:.1f} s")
    if chosen == "window":
        play_in_window(opened, start, speed)
    elif chosen == "terminal":
        play_in_terminal(opened, console, start, speed)
    else:
        for line in lines_of(opened, start):
            console.print(Text(line), soft_wrap=True)


def export(
    recording: RecordingArgument,
    out: Annotated[Path, typer.Argument(help="A film (.mp4), a file for rerun (.rrd), or a folder.")],
    fps: Annotated[float, typer.Option(help="Frames per second of a film.")] = 15.0,
    damaged: DamagedOption = False,
) -> None:
    """Turns a recording into a film, a file for rerun, or a folder of frames, pictures and JSON."""
    console = Console()
    suffix = out.suffix.lower()
    if suffix not in (".mp4", ".rrd", ""):
        raise LegoError(f"a recording cannot become {suffix}; give a name that ends in .mp4 or .rrd, or a folder's")
    if suffix:
        if out.exists():
            raise LegoError(f"{out} exists and is not overwritten; choose another name")
        check_file(out)
    opened = _open(recording, damaged, console)
    if suffix == ".mp4":
        from lego_client.recording.film import export_film

        export_film(opened, out, fps, lambda numbers: track(numbers, "filming", console=console))
    elif suffix == ".rrd":
        from lego_client.recording.rrd import export_rerun

        export_rerun(
            opened, out, lambda entries: track(entries, "writing", total=len(opened.entries), console=console)
        )  # fmt: skip
    else:
        from lego_client.recording.folder import export_folder

        export_folder(
            opened, out, lambda entries: track(entries, "writing", total=len(opened.entries), console=console)
        )  # fmt: skip
    console.print(Text(f"wrote {out}"), soft_wrap=True)


def _open(path: Path, damaged: bool, console: Console) -> Recording:
    from lego_client.recording.recording import Recording

    recording = Recording(path, pass_over_damage=damaged)
    when = recording.began.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    console.print(
        Text(f"{when}, {recording.seconds:.1f} s, {len(recording.questions())} questions", style="dim"), soft_wrap=True
    )
    for fault in recording.faults:
        console.print(Text(f"note: {fault}", style="yellow"), soft_wrap=True)
    if recording.dropped:
        console.print(Text(f"note: {recording.dropped} frames are missing: the disk was too slow", style="yellow"))
    return recording


async def _compare(
    client: GuidanceClient, recording: Recording, time_limit: float, retries: int, console: Console
) -> list[Comparison]:
    from lego_client.recording.compare import compare

    async with client:
        return await compare(
            recording, client, time_limit=time_limit, retries=retries,
            on_question=lambda question: console.print(Text(f"asking “{question.asked.text}”", style="dim")),
        )  # fmt: skip


def _comparison_table(found: list[Comparison]) -> Table:
    models = {_model(one.then) for one in found}, {_model(one.now) for one in found}
    then, now = (", ".join(sorted(names)) or "nothing" for names in models)
    table = Table(box=None, pad_edge=False, header_style="bold", caption=f"then {then}; now {now}")
    for name in ("query", "answer", "description", "PSNR"):
        table.add_column(name)
    for one in found:
        both = one.same_description is not None
        answer = "both times" if both else f"then {_ended(one.then)}, now {_ended(one.now)}"
        same = {True: "same", False: "differs", None: "-"}[one.same_description]
        decibels = "-" if one.psnr is None else "equal" if math.isinf(one.psnr) else f"{one.psnr:.1f} dB"
        table.add_row(Text(one.query), answer, same, decibels)
    return table


def _ended(outcome: Guidance | QueryFailed | None) -> str:
    return "nothing" if outcome is None else "answered" if isinstance(outcome, Guidance) else outcome.code


def _model(outcome: Guidance | QueryFailed | None) -> str:
    return outcome.model_version if isinstance(outcome, Guidance) else "-"


def _figures(one: Comparison) -> dict[str, object]:
    return {
        "query": one.query,
        "then": _ended(one.then),
        "now": _ended(one.now),
        "same_description": one.same_description,
        "equal_pixels": one.psnr is not None and math.isinf(one.psnr),
        "psnr_db": None if one.psnr is None or math.isinf(one.psnr) else round(one.psnr, 3),
        "model_then": _model(one.then),
        "model_now": _model(one.now),
    }
