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
from collections.abc import Callable
from dataclasses import asdict, dataclass
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


def main(
    clip: Annotated[str | None, typer.Option(help="A first-person video; default: a scene drawn in code.")] = None,
    frames: Annotated[int, typer.Option(min=2, help="Views to compose.")] = 120,
    rounds: Annotated[int, typer.Option(min=1, help="Times that each is composed; the least counts.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of OpenCV.")] = 2,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/overlay.json"),
) -> None:
    """Measure every mode and write figures and plot."""
    cv2.setNumThreads(threads)
    try:
        looks = [wandering(index / FPS) for index in range(frames)]
        scene = textured_scene()
        views = [look.view(scene) for look in looks] if clip is None else _views(clip, frames)
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    asked, guidance = views[0], _guidance(views[0])
    stages = _stages(views, asked, guidance, rounds)
    modes = _modes(views, asked, guidance, rounds)
    errors = None if clip is not None else _errors(looks, views, asked)
    _report(
        "a scene drawn in code" if clip is None else Path(clip).name,
        stages,
        modes,
        errors,
        f"{rounds} rounds, threads: {threads}",
        json_file,
    )


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


@dataclass(frozen=True)
class Timing:
    """What one thing took, in milliseconds.

    Attributes:
        each: For each view, the least of all rounds.
        processor: Mean processor time of a view, in the round that took least.
    """

    each: list[float]
    processor: float


def _timing(rounds: int, prepare: Callable[[], list[Callable[[], object]]]) -> Timing:
    """Runs what `prepare` returns, one after another, in so many rounds."""
    times, processor = [], []
    for _ in range(rounds):
        actions = prepare()
        began = time.process_time()
        times.append([_milliseconds(action) for action in actions])
        processor.append(1e3 * (time.process_time() - began) / len(actions))
    return Timing(np.min(times, axis=0).tolist(), min(processor))


def _milliseconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return 1e3 * (time.perf_counter() - began)


def _stages(views: list[Pixels], asked: Pixels, guidance: Pixels, rounds: int) -> dict[str, Timing]:
    layer, place = Layer.of(asked, guidance), truth(Look(), Look(right=30, roll=3))
    said = [Status(State.ANSWER, age_seconds=index / FPS) for index in range(len(views))]

    def register(pictures: list[Pixels]) -> list[Callable[[], object]]:
        tracker = SceneTracker(asked)
        tracker.locate(pictures[0])
        return [partial(tracker.locate, view) for view in pictures[1:]]

    stages: dict[str, Callable[[], list[Callable[[], object]]]] = {
        "register: follow the scene": lambda: register(views),
        "register: look for a lost scene": lambda: register(_elsewhere(len(views))),
        "warp and blend the ghost": lambda: [partial(layer.over, view, place, 0.9) for view in views],
        "caption and badge": lambda: [
            partial(annotate, view, DESCRIPTION, status) for view, status in zip(views, said, strict=True)
        ],
        "once an answer: the changed region": lambda: [partial(changed_region, asked, guidance)],
        "once a question: read the asked frame": lambda: [partial(SceneTracker, asked)],
    }
    return {name: _timing(rounds, prepare) for name, prepare in track(stages.items(), "stages")}


def _modes(views: list[Pixels], asked: Pixels, guidance: Pixels, rounds: int) -> dict[str, Timing]:
    """Times each mode on all views but the first, with caption and badge."""
    status = Status(State.ANSWER, age_seconds=3)

    def composing(mode: str, pictures: list[Pixels]) -> list[Callable[[], object]]:
        ticks = count()
        how = composition(mode, asked, clock=lambda: next(ticks) / FPS)
        how.compose(pictures[0], guidance)

        def show(view: Pixels) -> Pixels:
            return annotate(how.compose(view, guidance), DESCRIPTION, status)

        return [partial(show, view) for view in pictures[1:]]

    cases = {mode: (mode, views) for mode in MODES} | {"ghost, scene lost": ("ghost", _elsewhere(len(views)))}
    return {name: _timing(rounds, partial(composing, *case)) for name, case in track(cases.items(), "modes")}


def _elsewhere(frames: int) -> list[Pixels]:
    scene = textured_scene(1)
    return [wandering(index / FPS).view(scene) for index in range(min(40, frames))]


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
    stages: dict[str, Timing],
    modes: dict[str, Timing],
    errors: dict[str, list[float]] | None,
    how: str,
    path: Path,
) -> None:
    console = Console()
    table = Table("", "p50", "p95", "processor time", title=f"{name}, 640x480, least of {how}")
    for what, timing in {**modes, **stages}.items():
        table.add_row(what, *(f"{value:.1f} ms" for value in (*np.percentile(timing.each, (50, 95)), timing.processor)))
    for what, pixels in (errors or {}).items():
        table.add_row(f"error: {what}", *(f"{value:.2f} px" for value in np.percentile(pixels, (50, 95))), "")
    slowest = max(np.percentile(timing.each, 95) for timing in modes.values())
    console.print(table, f"every mode: {1e3 / slowest:.0f} frames a second or more at p95; figures in {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "views": name, "measured": f"least of {how}", "errors_px": errors,
        "modes_ms": {mode: asdict(timing) for mode, timing in modes.items()},
        "stages_ms": {stage: asdict(timing) for stage, timing in stages.items()},
    }  # fmt: skip
    path.write_text(json.dumps(json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 3))) + "\n")
    _plot({mode: timing.each for mode, timing in modes.items()}, path.with_suffix(".png"))


def _plot(modes: dict[str, list[float]], path: Path) -> None:
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
