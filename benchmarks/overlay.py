"""What the client's overlay takes for each frame, mode by mode and stage by stage.

    python -m benchmarks.overlay --json out/overlay.json
    python -m benchmarks.overlay --clip kitchen.mp4 --json out/overlay_clip.json

Without a clip the views are of a scene drawn in code, whose true place is known, so that the registration's error is
measured too. Every frame is composed in several rounds and its least time counts: what else the machine does can only
add to it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

import cv2
import matplotlib as mpl
import numpy as np
import typer
from lego_client.overlay.changes import changed_region
from lego_client.overlay.ghost import Ghost
from lego_client.overlay.homography import Matrix, transform
from lego_client.overlay.labels import State, Status, annotate
from lego_client.overlay.layer import Layer
from lego_client.overlay.modes import MODES, composition
from lego_client.overlay.registration import SceneTracker
from lego_client.sources.factory import open_clip
from lego_client.sources.opencv import opened, read_rgb
from lego_core.errors import LegoError
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.panning import VIEW_SIZE, Look, textured_scene, truth, wandering

mpl.use("Agg")
import matplotlib.pyplot as plt

FPS = 30
DESCRIPTION = "The left hand grips the handle of the brown drawer on the left and pulls it open towards the body."
ENOUGH_FPS = 25

Pixels = NDArray[np.uint8]
Milliseconds = list[float]


def main(
    clip: Annotated[str | None, typer.Option(help="A first-person video; default: a scene drawn in code.")] = None,
    frames: Annotated[int, typer.Option(min=2, help="Views to compose.")] = 120,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is composed; the least counts.")] = 5,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/overlay.json"),
) -> None:
    """Measure every mode and write figures and plot."""
    try:
        looks = [wandering(index / FPS) for index in range(frames)]
        scene = textured_scene()
        views = [look.view(scene) for look in looks] if clip is None else _views(clip, frames)
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    asked, guidance = views[0], _guidance(views[0])
    stages = _stages(views, asked, guidance, rounds)
    modes = {mode: _mode(mode, views, asked, guidance, rounds) for mode in track(MODES, "modes")}
    errors = None if clip is not None else _errors(looks, views, asked)
    _report("a scene drawn in code" if clip is None else Path(clip).name, stages, modes, errors, rounds, json_file)


def _views(clip: str, frames: int) -> list[Pixels]:
    """Reads the first frames of a clip, cut and scaled to the views' size."""
    path = open_clip(clip).path
    views: list[Pixels] = []
    with opened(str(path)) as video:
        while video is not None and len(views) < frames and (pixels := read_rgb(video)) is not None:
            height, width = pixels.shape[:2]
            keep = min(width, height * VIEW_SIZE[0] // VIEW_SIZE[1])
            left = (width - keep) // 2
            views.append(cv2.resize(pixels[:, left : left + keep], VIEW_SIZE, interpolation=cv2.INTER_LINEAR))
    if len(views) < 2:
        raise LegoError(f"{clip} cannot be read as a video of at least two frames")
    return views


def _guidance(asked: Pixels) -> Pixels:
    """Returns a picture of lego-nano's size: the frame, softened, with a forearm drawn into it."""
    acted = asked.copy()
    cv2.fillPoly(acted, [np.array([(250, 479), (300, 250), (340, 190), (400, 230), (360, 479)])], (214, 160, 130))
    small: Pixels = cv2.GaussianBlur(cv2.resize(acted, (341, 256), interpolation=cv2.INTER_AREA), (0, 0), 0.8)
    return small


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def _least(rounds: int, measure: Callable[[], Sequence[float]]) -> Milliseconds:
    return [1e3 * value for value in np.min([measure() for _ in range(rounds)], axis=0)]


def _stages(views: list[Pixels], asked: Pixels, guidance: Pixels, rounds: int) -> dict[str, Milliseconds]:
    other = textured_scene(1)
    elsewhere = [wandering(index / FPS).view(other) for index in range(min(40, len(views)))]
    layer, place = Layer.of(asked, guidance), truth(Look(), Look(right=30, roll=3))
    said = [Status(State.ANSWER, age_seconds=index / FPS) for index in range(len(views))]

    def register(pictures: list[Pixels]) -> list[float]:
        tracker = SceneTracker(asked)
        tracker.locate(pictures[0])
        return [_seconds(partial(tracker.locate, view)) for view in pictures[1:]]

    measures: dict[str, Callable[[], list[float]]] = {
        "register: follow the scene": lambda: register(views),
        "register: look for a lost scene": lambda: register(elsewhere),
        "warp and blend the ghost": lambda: [_seconds(partial(layer.over, view, place, 0.9)) for view in views],
        "caption and badge": lambda: [
            _seconds(partial(annotate, view, DESCRIPTION, status)) for view, status in zip(views, said, strict=True)
        ],
        "once an answer: the changed region": lambda: [_seconds(partial(changed_region, asked, guidance))],
        "once a question: read the asked frame": lambda: [_seconds(partial(SceneTracker, asked))],
    }
    return {name: _least(rounds, measure) for name, measure in track(measures.items(), "stages")}


def _mode(mode: str, views: list[Pixels], asked: Pixels, guidance: Pixels, rounds: int) -> tuple[Milliseconds, float]:
    """Returns the milliseconds of each view but the first, with caption and badge; and those of processor time."""
    status = Status(State.ANSWER, age_seconds=3)
    processor = []

    def once() -> list[float]:
        ticks = count()
        how = composition(mode, asked, clock=lambda: next(ticks) / FPS)
        how.compose(views[0], guidance)
        begin = time.process_time()
        times = [
            _seconds(lambda view=view: annotate(how.compose(view, guidance), DESCRIPTION, status))  # type: ignore[misc]
            for view in views[1:]
        ]
        processor.append(1e3 * (time.process_time() - begin) / len(times))
        return times

    return _least(rounds, once), min(processor)


def _errors(looks: list[Look], views: list[Pixels], asked: Pixels) -> dict[str, list[float]]:
    """Returns by how many pixels the worst corner of the asked frame is off, in each view."""
    ticks = count()
    ghost = Ghost(asked, lambda: next(ticks) / FPS)
    corners = np.array([(0, 0), (VIEW_SIZE[0], 0), VIEW_SIZE, (0, VIEW_SIZE[1])], np.float32)

    def off(found: Matrix | None, true: Matrix) -> float:
        if found is None:
            return float("inf")
        return float(np.linalg.norm(transform(found, corners) - transform(true, corners), axis=1).max())

    errors: dict[str, list[float]] = {"registration": [], "ghost, steadied": []}
    for look, view in zip(looks, views, strict=True):
        ghost.compose(view, asked)
        assert ghost.registration is not None
        true = truth(Look(), look)
        errors["registration"].append(off(ghost.registration.homography, true))
        errors["ghost, steadied"].append(off(ghost.homography, true))
    return errors


def _report(
    name: str,
    stages: dict[str, Milliseconds],
    modes: dict[str, tuple[Milliseconds, float]],
    errors: dict[str, list[float]] | None,
    rounds: int,
    path: Path,
) -> None:
    console = Console()
    title = f"{name}, 640x480, least of {rounds} rounds"
    table = Table("mode", "p50", "p95", "frames a second at p95", "processor time, mean", title=title)
    for mode, (times, processor) in modes.items():
        median, high = np.percentile(times, (50, 95))
        table.add_row(mode, f"{median:.1f} ms", f"{high:.1f} ms", f"{1e3 / high:.0f}", f"{processor:.1f} ms")
    console.print(table)
    table = Table("stage", "p50", "p95")
    for stage, times in stages.items():
        table.add_row(stage, *(f"{value:.1f} ms" for value in np.percentile(times, (50, 95))))
    for what, pixels in (errors or {}).items():
        table.add_row(f"error: {what}", *(f"{value:.2f} px" for value in np.percentile(pixels, (50, 95))))
    console.print(table, f"figures in {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    milliseconds = {mode: values for mode, (values, _) in modes.items()}
    rounded = {
        part: {key: [round(value, 3) for value in values] for key, values in measured.items()}
        for part, measured in (("modes_ms", milliseconds), ("stages_ms", stages), ("errors_px", errors or {}))
    }
    processor_ms = {mode: round(processor, 3) for mode, (_, processor) in modes.items()}
    figures = {"views": name, "rounds": rounds, "processor_ms": processor_ms, **rounded}
    path.write_text(json.dumps(figures) + "\n")
    _plot(milliseconds, path.with_suffix(".png"))


def _plot(modes: dict[str, Milliseconds], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(7, 2.4))
    axis.boxplot(list(modes.values()), orientation="horizontal", widths=0.6, whis=(5, 95), showfliers=False)
    axis.set_yticks(range(1, len(modes) + 1), list(modes))
    axis.axvline(1e3 / ENOUGH_FPS, color="grey", linewidth=0.8)
    axis.text(
        1e3 / ENOUGH_FPS, 0.4, f" {ENOUGH_FPS} frames a second", color="grey", fontsize=8, va="bottom", ha="right"
    )
    axis.set(xlabel="milliseconds a frame, with caption and badge (whiskers: 5 and 95 %)", xlim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
