"""`lego-train evaluate images` and `reproduce`: the paper's metrics of pictures, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from lego_core.errors import LegoError
from lego_core.files import check_output
from rich.console import Console

Data = Annotated[Path, typer.Option(help="Dataset directory.")]
Dataset = Annotated[str, typer.Option(help="Name of the dataset within its directory, such as ego4d.")]
Split = Annotated[str, typer.Option(help="train or val; the paper's test set is val.")]
Metrics = Annotated[
    list[str] | None, typer.Option(help="Such as fid,psnr; may be repeated. Default: all that the comparison has.")
]
Weights = Annotated[
    Path | None, typer.Option(help="Folder with the metrics' weights, searched at any depth (docs/evaluation.md).")
]
WeightsOf = Annotated[
    list[str] | None,
    typer.Option(help="name=path or name=repository for single weights, such as clip=openai/clip-vit-large-patch14."),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch weights that are not on this machine.")]
Cache = Annotated[Path | None, typer.Option(help="Folder of cached features; default: beside the output.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
BatchSize = Annotated[int, typer.Option(min=1, max=4096, help="Pictures that a network is shown at a time.")]
Resamples = Annotated[int, typer.Option(min=0, max=100_000, help="Of the bootstrap; 0 computes no intervals.")]
BootstrapSeed = Annotated[int, typer.Option(min=0, help="Of the bootstrap.")]
Text = Annotated[str, typer.Option(help="Words that captions are compared with: description or action.")]


def evaluate_images(
    generated: Annotated[Path, typer.Option(help="Folder whose pictures lie at clip/action/frame below it.")],
    data: Data,
    dataset: Dataset,
    json_file: Annotated[
        Path, typer.Option("--json", help="Where the figures go; single pictures' values go into a .csv beside it.")
    ] = Path("metrics.json"),
    split: Split = "val",
    metrics: Metrics = None,
    weights: Weights = None,
    weights_of: WeightsOf = None,
    download: Download = False,
    cache: Cache = None,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    resamples: Resamples = 1000,
    seed: BootstrapSeed = 0,
    text: Text = "description",
    labels: Annotated[str, typer.Option(help="How narrations become labels: corrected or original.")] = "corrected",
) -> None:
    """Compute the paper's metrics of generated pictures, each as published and corrected."""
    check_choices(split, text, labels)
    check_output(json_file)
    from lego_training.dataset import read_records
    from lego_training.evaluation.metrics.measure import (
        METRICS,
        absences,
        choose_metrics,
        measure,
        per_picture_csv,
        table,
    )
    from lego_training.evaluation.metrics.samples import find_samples
    from lego_training.files import write_json, write_whole
    from lego_training.labels import normalise_records

    names = choose_metrics(metrics or ())
    records = read_records(data, dataset, cast(Any, split))
    records = normalise_records(records, dataset, cast(Any, labels))
    samples, faults = find_samples(records, data, dataset, split, generated)
    place = cache or json_file.parent / "features"
    with open_bench(place, weights, weights_of, download, device, batch_size, text, dataset) as bench:
        figures = measure(samples, faults, names, bench, resamples=resamples, seed=seed)
    settings = {
        "generated": str(generated), "dataset": dataset, "split": split, "text": text, "resamples": resamples,
        "seed": seed,
    }  # fmt: skip
    write_json(json_file, {**settings, **figures.to_dict()})
    write_whole(json_file.with_suffix(".csv"), per_picture_csv(figures, [each.name for each in samples]).encode())
    console = Console()
    console.print(table(figures))
    for sentence in absences(figures):
        console.print(f"absent: {sentence}", highlight=False, markup=False)
    tell_some("skipped", figures.faults, f"all of them in {json_file}")
    tell_some("resized and judged", figures.resized, f"all of them in {json_file}")
    for result in figures.results:
        tell_some(f"{METRICS[result.metric].title}, {result.mode}", result.faults, f"all of them in {json_file}")
    console.print(f"figures in {json_file}, single pictures in {json_file.with_suffix('.csv')}")


def tell_some(what: str, faults: Sequence[object], where: str) -> None:
    """Says the first ten of many faults, how many more there are, and where all of them are."""
    console = Console()
    for fault in faults[:10]:
        console.print(f"{what}: {fault}", highlight=False, markup=False, soft_wrap=True)
    if len(faults) > 10:
        console.print(f"and {len(faults) - 10} more, {where}", highlight=False, markup=False, soft_wrap=True)


def check_choices(split: str, text: str, labels: str) -> None:
    """Checks the options that are one of a few words.

    Raises:
        LegoError: One is none of them.
    """
    for name, value, known in (
        ("split", split, ("train", "val")), ("text", text, ("description", "action")),
        ("labels", labels, ("corrected", "original")),
    ):  # fmt: skip
        if value not in known:
            raise LegoError(f"{name} is {value!r}; choose {' or '.join(known)}")


def open_bench(
    cache: Path,
    weights: Path | None,
    weights_of: list[str] | None,
    download: bool,
    device: str,
    batch_size: int,
    text: str,
    dataset: str,
) -> Any:
    """Returns the bench that the options describe; entering it gives the bench, leaving it closes its cache."""
    from contextlib import contextmanager

    from lego_model.quiet import quieten

    from lego_training.evaluation.metrics.bench import Bench, find_device
    from lego_training.evaluation.metrics.cache import FeatureCache
    from lego_training.evaluation.metrics.weights import WeightPlaces, parse_named

    quieten()
    places = WeightPlaces(weights, parse_named(weights_of or ()), download)
    found = find_device(device)
    words = cast(Literal["description", "action"], text)

    @contextmanager
    def opened() -> Any:
        with FeatureCache(cache) as features:
            yield Bench(features, places, found, batch_size, words, dataset)

    return opened()


def reproduce(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table4, table6, table7, figure10 or all.")],
    data: Data,
    dataset: Dataset,
    out: Annotated[
        Path, typer.Option(help="Folder of pictures, features and reports, which comparisons may share; it is kept.")
    ],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="model=DIR, such as lego=models/lego-nano; may be repeated.")
    ] = None,
    baselines: Annotated[Path | None, typer.Option(help="Folder that lego-train baselines has written.")] = None,
    pictures: Annotated[
        list[str] | None, typer.Option(help="method=DIR with pictures made elsewhere, at clip/action/frame below it.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Folder of stored VLLM features of the split.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the methods; default: configs/reproduce.yaml.")] = None,
    split: Split = "val",
    records: Annotated[int | None, typer.Option(min=1, help="Only so many records, evenly spread.")] = None,
    shard: Annotated[str, typer.Option(help="Paint only this part, such as 2/8; the report needs them all.")] = "1/1",
    metrics: Metrics = None,
    weights: Weights = None,
    weights_of: WeightsOf = None,
    download: Download = False,
    device: Device = "auto",
    batch_size: BatchSize = 16,
    resamples: Resamples = 1000,
    seed: BootstrapSeed = 0,
    text: Text = "description",
    labels: Annotated[str, typer.Option(help="How narrations become labels: corrected or original.")] = "corrected",
    study: Annotated[
        Path | None, typer.Option(help="report.json of lego-train study report, for a column of what people chose.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, max=100, help="Rows of the grid of pictures.")] = 8,
    frames: Annotated[int, typer.Option(min=0, max=100, help="Frames that LEGO paints several actions into.")] = 3,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value pairs that override the YAML.")] = None,
) -> None:
    """Paint and measure what a table of the paper compares, on any dataset, and write a report."""
    check_choices(split, text, labels)
    from lego_training.evaluation.reproduce.comparisons import COMPARISONS

    if table not in COMPARISONS:
        raise LegoError(f"there is no comparison {table!r}; choose of {', '.join(COMPARISONS)}")
    check_output(out / table / "report.html")
    from lego_training.dataset import read_records
    from lego_training.evaluation.methods.generate import choose_records
    from lego_training.evaluation.methods.settings import DEFAULTS, load_settings
    from lego_training.evaluation.metrics.measure import choose_metrics
    from lego_training.evaluation.reproduce.methods import Sources, parse_places
    from lego_training.evaluation.reproduce.people import read_people
    from lego_training.evaluation.reproduce.run import Job, judge, paint
    from lego_training.features import FeatureStore
    from lego_training.labels import normalise_records
    from lego_training.stages.features import Shard

    names = choose_metrics(metrics) if metrics else COMPARISONS[table].metrics
    part, people = Shard.parse(shard), None if study is None else read_people(study)
    settings = load_settings(config or DEFAULTS, overrides or ())
    found = normalise_records(read_records(data, dataset, cast(Any, split)), dataset, cast(Any, labels))
    chosen = choose_records(found, records)
    store = None
    if features is not None:
        chosen, store = _described_by(features, chosen, dataset, split), FeatureStore.find(features, split)
    with open_bench(out / "features", weights, weights_of, download, device, batch_size, text, dataset) as bench:
        sources = Sources(
            parse_places(checkpoint or (), "lego=models/lego-nano"), baselines,
            parse_places(pictures or (), "sdedit=pictures/sdedit"), store, settings, bench.device,
        )  # fmt: skip
        job = Job(table, data, dataset, split, chosen, out, names, resamples, seed, people)
        painted, left = paint(job, sources, part)
        if part.count > 1:
            typer.echo(
                f"painted part {shard}; {left} pictures of all parts are still to do" if left
                else f"painted part {shard}, and all others are there: the command without --shard writes the report"
            )  # fmt: skip
            return
        told = {
            "text": text, "labels": labels, "resamples": resamples, "seed": seed, "methods": asdict(settings),
            "models": {name: str(path) for name, path in sources.checkpoints.items()},
        }  # fmt: skip
        result = judge(job, painted, bench, told)
        _write_reproduction(job, sources, result, examples, frames)


def _write_reproduction(job: Any, sources: Any, result: Any, examples: int, frames: int) -> None:
    from lego_training.evaluation.metrics.weights import Absent
    from lego_training.evaluation.reproduce.actions import paint_sheets
    from lego_training.evaluation.reproduce.comparisons import METHODS
    from lego_training.evaluation.reproduce.report import left_out, resized, screen_table, write_report

    sheets = []
    if frames and any(each.name == "lego" for each in result.methods):
        with suppress(Absent):  # its pictures were made elsewhere, or there are none, which the report says
            sheets = paint_sheets(job, sources, frames)
    folder = job.output / job.table
    write_report(result, folder, examples, sheets)
    console = Console()
    console.print(screen_table(result))
    for each in result.methods:
        if each.absent:
            console.print(f"absent: {METHODS[each.name].title}: {each.absent}", highlight=False, markup=False)
    tell_some("left out", left_out(result), f"all of them in {folder / 'figures.json'}")
    tell_some("resized and judged", resized(result), f"all of them in {folder / 'figures.json'}")
    console.print(f"report: {folder / 'report.html'}, report.md, figures.csv and figures.json beside it")


def _described_by(features: Path, records: Any, dataset: str, split: str) -> Any:
    """Returns the records described as their features were written where that is known, else as the dataset has it."""
    from dataclasses import replace

    from lego_training.stages.features import read_descriptions

    path = features / f"{dataset}_{split}_descriptions.json"
    if not path.is_file():
        return records
    words = read_descriptions(path)
    return [replace(each, description=words.get((each.clip_id, each.action_id), each.description)) for each in records]
