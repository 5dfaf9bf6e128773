"""The commands of `lego-export` that make TensorRT plans."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from lego_server.config import EngineSettings, Limits
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from lego_export.plans import Announce, Built, PlanOptions
    from lego_export.worker import Event

Engines = Annotated[Path, typer.Argument(help="Engine directory; the plans go into its folder plans.")]
NoCompare = Annotated[
    bool, typer.Option("--no-compare", help="Do not compare the plans with onnxruntime on the CPU.")
]  # fmt: skip


def plans(
    engines: Engines,
    max_batch: Annotated[
        int, typer.Option(min=1, max=256, help="Queries per engine call, as lego-server's --max-batch.")
    ] = EngineSettings.max_batch,
    query_tokens: Annotated[int, typer.Option(min=1, help="Longest query, in tokens.")] = Limits.max_query_characters,
    description_tokens: Annotated[
        int, typer.Option(min=1, help="Longest description, in tokens.")
    ] = Limits.max_description_characters,
    level: Annotated[int, typer.Option(min=0, max=5, help="TensorRT's optimisation level: higher builds longer.")] = 3,
    workspace: Annotated[
        float | None, typer.Option(help="Most GPU memory, in GB, for one layer to work in; default: all.")
    ] = None,
    refit: Annotated[
        Literal["none", "identical", "any"],
        typer.Option(help="Weights put in later: the same, left out of the plans; or any of the same architecture."),
    ] = "none",
    no_compare: NoCompare = False,
) -> None:
    """Builds TensorRT plans of an engine directory for this machine's GPU, for lego-server --device tensorrt-plans."""
    from lego_server.engines.profiles import Sizes

    from lego_export.plans import PlanOptions

    sizes = Sizes(max_batch, query_tokens, description_tokens)
    make_plans(engines, PlanOptions(sizes, level, workspace, refit, compare=not no_compare))


def refit(
    engines: Engines,
    source: Annotated[
        Path, typer.Option("--plans-of", help="Engine directory of the same architecture, with plans --refit any.")
    ],
    no_compare: NoCompare = False,
) -> None:
    """Puts an engine directory's weights into another's TensorRT plans instead of building its own."""
    from lego_export.plans import refit_plans

    with _progress() as announce:
        built = refit_plans(engines, source, compare=not no_compare, announce=announce)
    _show(built)


def make_plans(engines: Path, options: PlanOptions) -> None:
    """Builds plans with a progress bar, and says what was made."""
    from lego_export.plans import build_plans

    with _progress() as announce:
        built = build_plans(engines, options, announce)
    _show(built)


def _show(built: Built) -> None:
    machine = built.plans.machine
    table = Table(
        "graph", "profiles", "layers", "max error", "seconds",
        title=f"{machine.gpu}, TensorRT {machine.tensorrt}",
    )  # fmt: skip
    for name, plan in built.plans.plans.items():
        profiles = "; ".join(profile.name for profile in plan.profiles)
        layers = ", ".join(f"{count} {dtype}" for dtype, count in plan.layers.items()) or "unknown"
        error = "not compared" if plan.error is None else f"{plan.error:.1e}"
        table.add_row(name, profiles, layers, error, f"{plan.seconds:.1f}")
    Console().print(table)
    for note in built.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{built.folder}: {len(built.plans.plans)} plans")


@contextmanager
def _progress() -> Iterator[Announce]:
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("looking for TensorRT", total=None)

        def announce(graph: str, event: Event) -> None:
            progress.update(
                task, description=f"{graph}: {event['phase']}", completed=event["done"], total=event["total"]
            )

        yield announce
