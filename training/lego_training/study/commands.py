"""`lego-train study`: build a study, have it answered, see what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from lego_core.errors import LegoError
from lego_core.files import check_output
from rich.console import Console
from rich.markdown import Markdown

study = typer.Typer(no_args_is_help=True, help="Ask people: which picture is best, is a description right.")

Folder = Annotated[Path, typer.Argument(help="The study's folder.")]
Data = Annotated[Path, typer.Option(help="Dataset directory.")]
Dataset = Annotated[str, typer.Option(help="Name of the dataset within its directory, such as ego4d.")]
Split = Annotated[str, typer.Option(help="train or val; the paper's test set is val.")]
Raters = Annotated[int, typer.Option(min=1, max=1000, help="People wanted for each item; the paper has 5.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draw, and of pictures' names.")]
Question = Annotated[str, typer.Option(help="Asked instead of the usual question.")]


@study.command("images")
def study_images(
    folder: Folder,
    data: Data,
    dataset: Dataset,
    method: Annotated[
        list[str], typer.Option(help="NAME=FOLDER with pictures at clip/action/frame; give each method to compare.")
    ],
    split: Split = "val",
    items: Annotated[int, typer.Option(min=1, help="Examples to ask about; the paper has 60.")] = 60,
    raters: Raters = 5,
    seed: Seed = 0,
    question: Question = "",
) -> None:
    """Build a study in which raters choose the best of the methods' pictures, in an order that tells nothing."""
    from lego_training.dataset import read_records
    from lego_training.evaluation.metrics.samples import Sample, find_samples
    from lego_training.study.build import Example, build, choose

    if split not in ("train", "val"):
        raise LegoError(f"split is {split!r}; it must be train or val")
    folders = _named(method, "method")
    if len(folders) < 2:
        raise LegoError(f"only {', '.join(folders)} is to be compared; give at least two of --method NAME=FOLDER")
    records = read_records(data, dataset, cast(Any, split))
    made: dict[str, dict[str, Sample]] = {}
    missing: list[str] = []
    for name, place in folders.items():
        samples, faults = find_samples(records, data, dataset, split, Path(place))
        missing += map(str, faults)
        made[name] = {sample.name: sample for sample in samples}
    complete = [name for name in next(iter(made.values())) if all(name in each for each in made.values())]
    first = next(iter(made.values()))
    examples = [
        Example(
            first[name].input, first[name].target, first[name].action,
            {each: samples[name].generated for each, samples in made.items()},
        )
        for name in complete
    ]  # fmt: skip
    built = build(folder, folder.name, "images", choose(examples, items, seed, _first(missing)), raters, seed, question)
    _tell_built(folder, len(built.items), missing)


@study.command("descriptions")
def study_descriptions(
    folder: Folder,
    data: Data,
    dataset: Dataset,
    method: Annotated[
        list[str],
        typer.Option(
            help="NAME=FILE, JSON of clip/action to a sentence or the _descriptions.json of lego-train features; give "
            "tuned and untuned to compare them."
        ),
    ],
    split: Split = "val",
    items: Annotated[int, typer.Option(min=1, help="Examples to ask about; the paper has 100.")] = 100,
    raters: Raters = 5,
    seed: Seed = 0,
    question: Question = "",
) -> None:
    """Build a study in which raters say whether a description fits the input frame and its target."""
    from lego_training.dataset import read_records
    from lego_training.study.build import Example, build, choose
    from lego_training.study.design import read_json

    if split not in ("train", "val"):
        raise LegoError(f"split is {split!r}; it must be train or val")
    files = _named(method, "method")
    cure = "it must map clip/action to a sentence"
    sentences = {name: _by_record(read_json(Path(path), cure)) for name, path in files.items()}
    for name, values in sentences.items():
        for record_name, said in values.items():
            if not isinstance(said, str) or not said.strip():
                raise LegoError(f"{files[name]}: {record_name} is {said!r:.80}; {cure}")
    examples: list[Example] = []
    missing: list[str] = []
    known: set[str] = set()
    for record in read_records(data, dataset, cast(Any, split)):
        name = f"{record.clip_id}/{record.action_id}"
        known.add(name)
        written = {each: values[name] for each, values in sentences.items() if name in values}
        if len(written) == len(sentences):
            examples.append(Example(record.input_path, record.target_path, record.action, written))
        missing += [f"{files[each]} has no sentence of {name}" for each in sentences if each not in written]
    for each, values in sentences.items():
        missing += [f"{files[each]}: {name} is no record of {dataset}_{split}" for name in values if name not in known]
    chosen = choose(examples, items, seed, _first(missing))
    built = build(folder, folder.name, "descriptions", chosen, raters, seed, question)
    _tell_built(folder, len(built.items), missing)


@study.command("serve")
def study_serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address; the default is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes any free one.")] = 8765,
) -> None:
    """Show the study to raters, and keep their votes, until Ctrl-C."""
    from lego_training.study.serve import open_server

    with open_server(folder, host, port) as server:
        typer.echo(f"serving http://{host}:{server.server_address[1]}/ (Ctrl-C ends it; votes are kept as they come)")
        server.serve_forever()


@study.command("add")
def study_add(
    folder: Folder, files: Annotated[list[Path], typer.Argument(help="Files that raters have saved.")]
) -> None:
    """Take in the votes of raters who had the page as a file."""
    from lego_training.study.design import Study, read_json
    from lego_training.study.votes import Votes

    asked = Study.load(folder)
    votes = Votes(folder, asked)
    for path in files:
        values = read_json(path, "give files votes-CODE.json that the study's page has saved")
        if values.get("study") != asked.name or not isinstance(values.get("votes"), list):
            raise LegoError(f"{path} holds votes of {str(values.get('study'))[:80]!r}, not of {asked.name!r}")
        try:
            checked = [votes.check(vote) for vote in values["votes"]]
        except LegoError as error:
            raise LegoError(f"{path}: {error}; nothing of it was taken in") from error
        typer.echo(f"{path}: {votes.add(checked)} of {len(checked)} votes are new")


@study.command("report")
def study_report(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option(help="The .json to write; .md and .png go beside it. Default: in the study's folder.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="Rater whose votes do not count; may be repeated.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Of the bootstrap; 0 gives no intervals.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Count the votes: win rates with intervals, and how far raters agree."""
    from lego_training.study import report
    from lego_training.study.design import Study, public, read_key
    from lego_training.study.votes import Votes

    asked = Study.load(folder)
    path = out or folder / "report.json"
    if path.resolve() in (folder.resolve() / "key.json", public(folder).resolve() / "study.json"):
        raise LegoError(f"{path} belongs to the study; choose another file for the report")
    check_output(path)
    left_out = set(leave_out or ())
    votes = list(Votes(folder, asked))
    unknown = left_out - {vote.rater for vote in votes}
    if unknown:
        raise LegoError(f"there is no vote of {', '.join(sorted(unknown))}; look at {folder / 'votes.jsonl'}")
    counted = [vote for vote in votes if vote.rater not in left_out]
    if votes and not counted:
        raise LegoError(f"all {len(votes)} votes are left out; leave out fewer raters")
    if not counted:
        raise LegoError(f"nobody has voted yet; serve {folder}, or add files that raters saved")
    findings = report.find(asked, read_key(folder), counted, resamples, seed)
    path.write_text(json.dumps(report.to_dict(asked, findings), indent=1) + "\n", encoding="utf-8")
    page = report.markdown(asked, findings)
    path.with_suffix(".md").write_text(page, encoding="utf-8")
    report.plot(asked, findings, path.with_suffix(".png"))
    Console().print(Markdown(page))


def _named(pairs: list[str], option: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name.strip() or not value:
            raise LegoError(f"--{option} is {pair!r}; it must be NAME=PATH, such as LEGO=out/lego")
        if name in named:
            raise LegoError(f"--{option} names {name!r} twice; each needs a name of its own")
        if value in named.values():
            raise LegoError(f"--{option} names {value} twice; each method has pictures or sentences of its own")
        named[name] = value
    return named


def _by_record(values: dict[str, Any]) -> dict[str, Any]:
    """Returns sentences by clip/action, of a file that has them so or as `lego-train features` writes them."""
    flat: dict[str, Any] = {}
    for name, said in values.items():
        nested = said if isinstance(said, dict) else {}
        inner = {
            f"{name}/{action}": each.get("description") for action, each in nested.items() if isinstance(each, dict)
        }
        flat |= inner if inner and len(inner) == len(nested) else {name: said}
    return flat


def _first(missing: list[str]) -> str:
    return f"{missing[0]}{f', and {len(missing) - 1} more' if len(missing) > 1 else ''}" if missing else ""


def _tell_built(folder: Path, count: int, missing: list[str]) -> None:
    if missing:
        path = folder / "left_out.txt"
        path.write_text("\n".join(missing) + "\n", encoding="utf-8")
        typer.echo(f"left out: {_first(missing)}; all of it is in {path}")
    typer.echo(
        f"{count} items in {folder}: lego-train study serve {folder}, or give raters the folder "
        f"{folder / 'public'} (never the one above it: key.json tells who made what)"
    )
