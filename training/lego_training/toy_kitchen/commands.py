"""Commands of the toy kitchen: write a dataset, a clip, a tour, or a contact sheet."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from lego_core.command import Stopped

from lego_training.toy_kitchen.clip import TOUR_SEEDS, render_clip, render_tour
from lego_training.toy_kitchen.dataset import write_dataset
from lego_training.toy_kitchen.pair import make_pair
from lego_training.toy_kitchen.scene import Split
from lego_training.toy_kitchen.sheet import contact_sheet

toy_kitchen = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Procedural first-person kitchen: pairs, clips, sheets.",
)

Seed = Annotated[int, typer.Option(help="First seed.")]
Seconds = Annotated[float, typer.Option(help="Length of each kitchen's part in seconds, at least 2.")]
Fps = Annotated[int, typer.Option(help="Frames per second.")]
Size = Annotated[int, typer.Option(help="Height and width in pixels, even.")]
DrawnFrom = Annotated[Split, typer.Option(help="Which compositions to draw from.")]
Queries = Annotated[
    Path | None, typer.Option(help="JSON file to write the times and queries to, for lego-client play.")
]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@toy_kitchen.command()
def write(
    root: Annotated[Path, typer.Argument(help="Dataset directory to write or complete.")],
    train: Annotated[int, typer.Option(help="Training pairs.")] = 3000,
    val: Annotated[int, typer.Option(help="Validation pairs.")] = 300,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(help="Rendering processes.")] = 1,
) -> None:
    """Write pairs in the layout of the released LEGO dataset."""
    with _one_line_errors():
        try:
            summary = write_dataset(root, train, val, seed, workers)
        except KeyboardInterrupt:
            raise Stopped("run the same command again to go on") from None
    typer.echo(f"{summary.root}: {summary.train} train and {summary.val} val pairs, {summary.rendered} rendered now")


@toy_kitchen.command()
def clip(
    path: Annotated[Path, typer.Argument(help="mp4 file to write.")],
    seed: Seed = 0,
    seconds: Seconds = 4.0,
    fps: Fps = 15,
    size: Size = 256,
    split: DrawnFrom = "val",
    queries: Queries = None,
) -> None:
    """Write a first-person video that ends on a pair's input frame, and print when to ask what."""
    with _one_line_errors():
        _tell(render_clip(seed, path, seconds, fps, size, split), queries)


@toy_kitchen.command()
def tour(
    path: Annotated[Path, typer.Argument(help="mp4 file to write.")],
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seed of a kitchen; may be repeated.")] = None,
    seconds: Seconds = 4.0,
    fps: Fps = 15,
    size: Size = 256,
    split: DrawnFrom = "val",
    queries: Queries = None,
) -> None:
    """Write a first-person video of several kitchens, one after another, and print when to ask what."""
    with _one_line_errors():
        _tell(render_tour(seeds or TOUR_SEEDS, path, seconds, fps, size, split), queries)


def _tell(timed: list[tuple[float, str]], path: Path | None) -> None:
    """Prints when to ask what, and writes it to a file if one is named."""
    for time, query in timed:
        typer.echo(f"{time:.2f} s  {query}")
    if path is not None:
        path.write_text(
            json.dumps([{"time": round(time, 3), "query": query} for time, query in timed], indent=2) + "\n"
        )


@toy_kitchen.command()
def sheet(
    path: Annotated[Path, typer.Argument(help="PNG file to write.")],
    count: Annotated[int, typer.Option(help="Pairs to show.")] = 15,
    seed: Seed = 0,
    split: Annotated[Split, typer.Option(help="Which compositions to draw from.")] = "train",
    columns: Annotated[int, typer.Option(help="Pairs per row.")] = 3,
) -> None:
    """Write a contact sheet: input frame, target frame, label and description."""
    with _one_line_errors():
        if count < 1 or columns < 1:
            raise ValueError(f"count={count}, columns={columns}: use at least 1 of each")
        contact_sheet([make_pair(seed + index, split) for index in range(count)], columns).save(path)
    typer.echo(str(path))


if __name__ == "__main__":
    toy_kitchen()
