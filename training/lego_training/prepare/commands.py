"""`lego-train prepare`: datasets from the videos of EPIC-KITCHENS-100 and Ego4D."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from lego_core.command import Stopped
from lego_core.errors import LegoError

if TYPE_CHECKING:
    from lego_training.prepare.actions import Clip
    from lego_training.prepare.config import PrepareConfig
    from lego_training.prepare.judge import JudgeSpec
    from lego_training.prepare.run import Source

prepare = typer.Typer(no_args_is_help=True, help="Make a dataset of egocentric videos and their annotations.")

Videos = Annotated[Path | None, typer.Option(help="Folder with the video files, at any depth.")]
Out = Annotated[Path, typer.Option(help="Dataset directory to write or complete.")]
ClipFolder = Annotated[
    Path | None, typer.Option("--clip", help="Folder of a CLIP, such as a copy of openai/clip-vit-large-patch14.")
]
Aesthetic = Annotated[
    Path | None,
    typer.Option(help="Aesthetic head for the CLIP's embeddings; of a folder of heads, the one that fits."),
]
SplitName = Annotated[str, typer.Option(help="train or val.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Videos read at the same time, a core each.")]
Settings = Annotated[Path | None, typer.Option("--config", help="YAML of settings, in place of the default one.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key=value pairs that override the YAML, such as on_error=stop.")
]


@prepare.command()
def epic(
    annotations: Annotated[Path, typer.Option(help="EPIC_100_train.csv or EPIC_100_validation.csv.")],
    out: Out,
    videos: Videos = None,
    frames: Annotated[Path | None, typer.Option(help="In place of videos: folder with the extracted frames.")] = None,
    split: SplitName = "train",
    boxes: Annotated[
        Path | None, typer.Option(help="Folder with VISOR's sparse annotations and its frame_mapping.json.")
    ] = None,
    clip: ClipFolder = None,
    aesthetic: Aesthetic = None,
    workers: Workers = None,
    config: Settings = None,
    overrides: Overrides = None,
) -> None:
    """EPIC-KITCHENS-100: input frames 0.25 s before an action, target frames after 0.6 of its duration."""
    if (videos is None) == (frames is None):
        raise LegoError("give either --videos or --frames")
    from lego_training.prepare.boxes import read_mapping
    from lego_training.prepare.epic import read_epic

    settings, judge = _settle(config, overrides, workers, clip, aesthetic)
    mapping = (boxes, read_mapping(boxes)) if boxes is not None else None
    clips = read_epic(annotations, settings.input_delta, settings.target_share)
    source = _source("epickitchen", split, clips, annotations, settings, judge, videos, frames, mapping)
    _run(source, out, settings, judge)


@prepare.command()
def ego4d(
    annotations: Annotated[Path, typer.Option(help="fho_main.json, version 2.")],
    out: Out,
    clips: Annotated[Path | None, typer.Option(help="Folder with Ego4D's clips, <clip_uid>.mp4.")] = None,
    videos: Annotated[Path | None, typer.Option(help="In place of clips: full-scale videos, <video_uid>.mp4.")] = None,
    split: SplitName = "train",
    manifest: Annotated[
        Path | None, typer.Option(help="ego4d.json: take only the videos whose split_fho is the split.")
    ] = None,
    clip: ClipFolder = None,
    aesthetic: Aesthetic = None,
    workers: Workers = None,
    config: Settings = None,
    overrides: Overrides = None,
) -> None:
    """Ego4D, hands and objects: input frames at PRE-15, target frames at the point of no return (PNR)."""
    if (clips is None) == (videos is None):
        raise LegoError("give either --clips or --videos")
    from lego_training.prepare.ego4d import read_ego4d, videos_of_split

    settings, judge = _settle(config, overrides, workers, clip, aesthetic)
    wanted = videos_of_split(manifest, split) if manifest is not None else None
    found = read_ego4d(annotations, clips is not None, wanted)
    source = _source("ego4d", split, found, annotations, settings, judge, clips or videos, None, None)
    _run(source, out, settings, judge)


def _settle(
    config: Path | None, overrides: list[str] | None, workers: int | None, clip: Path | None, aesthetic: Path | None
) -> tuple[PrepareConfig, JudgeSpec]:
    from lego_training.prepare.config import DEFAULTS, load_prepare_config
    from lego_training.prepare.judge import JudgeSpec

    options = [*(overrides or []), *([f"workers={workers}"] if workers is not None else [])]
    settings = load_prepare_config(config or DEFAULTS, options)
    return settings, JudgeSpec.settle(settings.similarity, clip, aesthetic)


def _source(
    dataset: str, split: str, clips: list[Clip], annotations: Path, settings: PrepareConfig, judge: JudgeSpec,
    videos: Path | None, frames: Path | None, visor: tuple[Path, dict[str, dict[str, str]]] | None,
) -> Source:  # fmt: skip
    from lego_training.prepare.run import Source

    if split not in ("train", "val"):
        raise LegoError(f"split is {split!r}; choose train or val")
    # All that the files depend on; where things lie and how many work at it makes no difference.
    chosen = {key: value for key, value in asdict(settings).items() if key not in ("similarity", "workers", "on_error")}
    described: dict[str, Any] = {
        "annotations": _digest(annotations), "frames_from": "frames" if frames else "videos", **chosen,
        "score": judge.score, "similarity": judge.measure, "lowest": judge.lowest, "highest": judge.highest,
        "clip": _digest(judge.clip / "model.safetensors") if judge.clip else None,
        "aesthetic": _digest(judge.aesthetic) if judge.aesthetic else None, "boxes": visor is not None,
    }  # fmt: skip
    return Source(dataset, split, clips, annotations, videos, frames, visor, described)  # type: ignore[arg-type]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _run(source: Source, out: Path, settings: PrepareConfig, judge: JudgeSpec) -> None:
    from lego_training.prepare.run import prepare_split

    try:
        report = prepare_split(source, out, settings, judge)
    except KeyboardInterrupt:
        raise Stopped("run the same command again to go on") from None
    for reason, count in report.skipped.items():
        typer.echo(f"{count:8} left out: {reason}")
    typer.echo(
        f"{out}: {report.kept} {source.split} pairs of {source.dataset}, chosen by {judge.score}, "
        f"{judge.measure} similarity {judge.lowest:g} to {judge.highest:g}; report in "
        f"{out / 'prepare' / f'{source.dataset}_{source.split}' / 'report.html'}"
    )
