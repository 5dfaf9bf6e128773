"""`lego-train`: every training stage and the evaluation, one command each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from lego_core.command import Stopped, run_command
from lego_core.errors import LegoError
from lego_core.files import check_output
from lego_model.quiet import quieten
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

from lego_training.curate.commands import curate
from lego_training.evaluation.commands import evaluate_images, reproduce
from lego_training.prepare.commands import prepare
from lego_training.study.commands import study
from lego_training.toy_kitchen.commands import toy_kitchen

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Train and evaluate LEGO.")
evaluate = typer.Typer(no_args_is_help=True, help="Measure a checkpoint.")
app.add_typer(toy_kitchen, name="toy-kitchen")
app.add_typer(evaluate, name="evaluate")
app.command("curate")(curate)
app.add_typer(prepare, name="prepare")
app.add_typer(study, name="study")

STAGES = ("vae", "pretrain-vllm", "tune-vllm", "embed", "tune-diffusion", "distil")

ConfigFile = Annotated[Path, typer.Argument(help="YAML of the run, such as lego_training/configs/nano.yaml.")]
Data = Annotated[Path, typer.Option(help="Dataset directory.")]
Checkpoint = Annotated[Path, typer.Option(help="Checkpoint directory, read and written.")]
Run = Annotated[Path, typer.Option(help="Directory for states to resume from, losses and embeddings.")]
Features = Annotated[
    Path | None, typer.Option(help="Folder of VLLM features, written by lego-train features or released.")
]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value pairs that override the YAML.")]


@contextmanager
def _stoppable() -> Iterator[None]:
    """Keeps the words of a stopped stage, which typer alone would drop, and parts from other processes at the end."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Stopped(str(stop) or "run the same command again to go on") from None
    finally:
        if "lego_training.processes" in sys.modules:  # else no stage has run, and torch stays unloaded
            sys.modules["lego_training.processes"].part()


@app.command()
def create(config: ConfigFile, data: Data, checkpoint: Checkpoint, overrides: Overrides = None) -> None:
    """Make a new checkpoint with random weights and a tokenizer of the dataset's words."""
    from lego_model import create as creation
    from lego_model.skeleton import find_architecture

    from lego_training.config import load_config
    from lego_training.queries import corpus

    run_config = load_config(config, overrides or ())
    if (checkpoint / "lego.json").exists():
        raise LegoError(f"{checkpoint} already holds a checkpoint; remove it or choose another directory")
    shape = find_architecture(Path(run_config.architecture))
    records = _labelled_records(data, run_config)
    creation.create(shape, corpus(records), run_config.seed).save(checkpoint)
    typer.echo(f"wrote {checkpoint}")


@app.command("all")
@_stoppable()
def train_all(config: ConfigFile, data: Data, checkpoint: Checkpoint, run: Run, overrides: Overrides = None) -> None:
    """Run every stage in order, creating the checkpoint if absent; resumes where it stopped."""
    from lego_training.config import load_config
    from lego_training.processes import this_process

    with this_process().main_process_first():
        if not (checkpoint / "lego.json").exists():
            create(config, data, checkpoint, overrides)

    run_config = load_config(config, overrides or ())
    for stage in STAGES:
        if getattr(run_config, stage.replace("-", "_"), run_config) is None:  # "embed" has no settings of its own
            continue
        # Not merely to save time: doing pretrain-vllm again would write its VLLM over the tuned one.
        if _is_done(stage, run_config, checkpoint, run):
            typer.echo(f"{stage} is done")
        else:
            train_stage(stage, config, data, checkpoint, run, overrides)


def train_stage(
    stage: str,
    config: Path,
    data: Path,
    checkpoint: Path,
    run: Path,
    overrides: list[str] | None = None,
    features: Path | None = None,
    curation: Path | None = None,
) -> None:
    """Runs one stage of a run; `features` is for diffusion tuning and distillation, `curation` for the VLLM's."""
    from lego_training.config import load_config
    from lego_training.processes import this_process

    quieten()
    run_config = load_config(config, overrides or ())
    settings: Any = getattr(run_config, stage.replace("-", "_"), run_config)  # "embed" has none of its own
    if settings is None:
        raise LegoError(f"{config} has no settings for {stage}; add the key {stage.replace('-', '_')}")
    records: list[Any] = [] if curation else _labelled_records(data, run_config)
    was_done = _is_done(stage, run_config, checkpoint, run)
    if stage == "vae":
        from lego_core.config import LegoConfig

        from lego_training.stages.vae import train_vae

        train_vae(checkpoint, records, settings, run, LegoConfig.load(checkpoint).resolution)
    elif stage == "pretrain-vllm":
        from lego_training.stages.vllm import pretrain_vllm

        pretrain_vllm(checkpoint, records, settings, run)
    elif stage == "tune-vllm":
        if curation is not None:
            from lego_training.curation import read_curation
            from lego_training.dataset import split_folder

            records = read_curation(curation, split_folder(data, run_config.dataset, "train"))
        _tune_vllm(checkpoint, records, run_config, run, curated=curation is not None)
    elif stage == "embed":
        from lego_training.stages.embed import embed

        records = records[: run_config.diffusion.pairs or None]
        embed(checkpoint, records, run / "embeddings", flip=run_config.diffusion.flip)
    else:
        from lego_training.stages.diffusion import tune_diffusion
        from lego_training.stages.distil import distil
        from lego_training.stages.embed import embed

        records = records[: run_config.diffusion.pairs or None]
        store = None
        if features is not None:
            records, store = _with_features(features, records, run_config.dataset)
        with this_process().main_process_first():  # the others find it done
            embeddings = embed(checkpoint, records, run / "embeddings", store, run_config.diffusion.flip)
        if stage == "tune-diffusion":
            tune_diffusion(checkpoint, embeddings, settings, run_config.diffusion, run)
        else:
            mirrored = run_config.diffusion.flip != "never"
            distil(checkpoint, embeddings, settings, run_config.distillation, run / "distil", mirrored)
    if not was_done and this_process().is_main_process:  # else the weights are of the commit and time already on record
        options = [*(overrides or []), *(["--curation", curation.name] if curation else [])]
        _record_provenance(checkpoint, stage, run_config, config, options, len(records))


def _labelled_records(data: Path, run_config: Any) -> list[Any]:
    """The training records, their labels as the VLLM is asked about them."""
    from lego_training.dataset import read_records
    from lego_training.labels import normalise_records

    return normalise_records(read_records(data, run_config.dataset, "train"), run_config.dataset, run_config.labels)


def _with_features(root: Path, records: list[Any], dataset: str) -> tuple[list[Any], Any]:
    """Returns the records, described as their features were written where that is known, and the features."""
    from lego_training.features import FeatureStore
    from lego_training.stages.features import read_descriptions

    path = root / f"{dataset}_train_descriptions.json"
    if path.is_file():  # released features come without one: their descriptions are in the dataset
        words = read_descriptions(path)
        lacking = [each for each in records if (each.clip_id, each.action_id) not in words]
        if lacking:
            raise LegoError(f"{path} has no description of {lacking[0].clip_id}/{lacking[0].action_id}")
        records = [replace(each, description=words[each.clip_id, each.action_id]) for each in records]
    return records, FeatureStore.find(root, "train")


def _is_done(stage: str, run_config: Any, checkpoint: Path, run: Path) -> bool:
    """Whether lego.json records the stage with these settings, and `run` has its end state."""
    from lego_core.config import LegoConfig

    made = LegoConfig.load(checkpoint).provenance.get("stages", {}).get(stage)
    states = {"embed": "embeddings/done.txt", "distil": "distil/distil.pt"}
    state = run / states.get(stage, f"{stage.replace('-', '_')}.pt")
    if stage == "distil" and LegoConfig.load(checkpoint).student is None:  # its teacher was tuned again since
        return False
    if made is None or not state.is_file():
        return False
    # A setting that the record does not know was added since: then what was done is what its default does now.
    return all(
        {**_defaults(run_config, key, stage), **made.get(key, {})} == values
        for key, values in _settings(stage, run_config).items()
    )


def _defaults(run_config: Any, key: str, stage: str) -> dict[str, Any]:
    """The defaults of one of `_settings`' configurations."""
    part = getattr(run_config, stage.replace("-", "_") if key == "config" else key, None)
    return {} if part is None else {each.name: each.default for each in fields(part) if each.default is not MISSING}


def _settings(stage: str, run_config: Any) -> dict[str, Any]:
    """What lego.json records of a stage's configuration."""
    values = asdict(run_config)
    part = {
        "tune-vllm": "tuning", "embed": "diffusion", "tune-diffusion": "diffusion", "distil": "distillation",
    }.get(stage)  # fmt: skip
    settings = {"config": values.get(stage.replace("-", "_"), {})}
    return {**settings, part: values[part]} if part else settings


def _tune_vllm(checkpoint: Path, records: list[Any], run_config: Any, run: Path, curated: bool) -> None:
    """Tunes, and notes in lego.json how well the untuned VLLM described, while it still exists."""
    from lego_core.config import LegoConfig
    from lego_model.checkpoint import LegoCheckpoint

    from lego_training.evaluation.toy import FIRST_SEED, description_slots
    from lego_training.processes import this_process
    from lego_training.stages.vllm import tune_vllm, tune_vllm_on_conversations
    from lego_training.toy_kitchen.pair import make_pair

    lego = LegoConfig.load(checkpoint)
    tuned_already = (run / "tune_vllm.pt").exists() or "tune-vllm" in lego.provenance.get("stages", {})
    if run_config.dataset == "toykitchen" and not tuned_already and this_process().is_main_process:
        scenes = 300
        shown = track(range(scenes), "describing before tuning")
        pairs = (make_pair(FIRST_SEED + index, "val") for index in shown)
        before = {"description_slots": description_slots(LegoCheckpoint.load(checkpoint), pairs), "scenes": scenes}
        replace(lego, provenance={**lego.provenance, "vllm_before_tuning": before}).save(checkpoint)
    tune = tune_vllm_on_conversations if curated else tune_vllm
    tune(checkpoint, records, run_config.tune_vllm, run_config.tuning, run)


def _record_provenance(
    checkpoint: Path, stage: str, run_config: Any, config: Path, options: list[str], samples: int
) -> None:
    from lego_core.config import LegoConfig

    lego = LegoConfig.load(checkpoint)
    made = {
        "command": " ".join(["lego-train", stage, config.name, *options]),
        **_settings(stage, run_config),
        "samples": samples,
        "git_commit": _git_commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    stages = {**lego.provenance.get("stages", {}), stage: made}
    replace(lego, provenance={**lego.provenance, "stages": stages}).save(checkpoint)


def _git_commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    found = subprocess.run(  # noqa: S603
        [git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return found.stdout.strip() or "unknown"


def _add_stage_command(stage: str, help_text: str) -> None:
    @_stoppable()
    def command(config: ConfigFile, data: Data, checkpoint: Checkpoint, run: Run, overrides: Overrides = None) -> None:
        train_stage(stage, config, data, checkpoint, run, overrides)

    app.command(stage, help=help_text)(command)


_add_stage_command("vae", "Train the frame autoencoder (small models; real ones keep Stable Diffusion's).")
_add_stage_command("pretrain-vllm", "Teach a small VLLM to caption scenes, the footing LLaVA starts from.")


@app.command("tune-vllm")
@_stoppable()
def tune_vllm_command(
    config: ConfigFile,
    data: Data,
    checkpoint: Checkpoint,
    run: Run,
    curation: Annotated[
        Path | None, typer.Option(help="Curation file to tune on, in place of the dataset's descriptions.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Visual instruction tuning on enriched action descriptions."""
    train_stage("tune-vllm", config, data, checkpoint, run, overrides, curation=curation)


_add_stage_command("embed", "Embed a dataset for diffusion tuning.")


@app.command("tune-diffusion")
@_stoppable()
def tune_diffusion_command(
    config: ConfigFile,
    data: Data,
    checkpoint: Checkpoint,
    run: Run,
    features: Features = None,
    overrides: Overrides = None,
) -> None:
    """Diffusion tuning of the U-Net with the VLLM's embeddings."""
    train_stage("tune-diffusion", config, data, checkpoint, run, overrides, features)


@app.command("distil")
@_stoppable()
def distil_command(
    config: ConfigFile, data: Data, checkpoint: Checkpoint, run: Run, features: Features = None,
    overrides: Overrides = None,
) -> None:  # fmt: skip
    """Distil a student of the U-Net that paints in one to four evaluations."""
    train_stage("distil", config, data, checkpoint, run, overrides, features)


@app.command("features")
@_stoppable()
def write_features(
    data: Data,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint directory, read.")],
    out: Annotated[Path, typer.Option(help="Folder for features and descriptions; what is done there is kept.")],
    dataset: Annotated[str, typer.Option(help="Name of the dataset within its directory, such as ego4d.")],
    split: Annotated[str, typer.Option(help="train or val.")] = "train",
    shard: Annotated[str, typer.Option(help="This worker's part, such as 2/8.")] = "1/1",
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 42,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest words, instead of sampled ones.")] = False,
    max_tokens: Annotated[int, typer.Option(help="Longest description.")] = 1024,
    labels: Annotated[str, typer.Option(help="How narrations become labels: corrected or original.")] = "corrected",
) -> None:
    """Describe a dataset with the VLLM and store descriptions and features in the layout of the released ones."""
    from lego_training.dataset import read_records
    from lego_training.stages.features import FeatureConfig, Shard, extract_features

    if split not in ("train", "val"):
        raise LegoError(f"split is {split!r}; choose train or val")
    quieten()
    config = FeatureConfig(seed, greedy, max_tokens, labels)  # type: ignore[arg-type]  # checked there
    part = Shard.parse(shard)
    records = read_records(data, dataset, split)  # type: ignore[arg-type]
    left = extract_features(checkpoint, records, dataset, split, out, config, part)
    done = f"wrote the features of {len(part.of(records))} records below {out}"
    rest = f"{left} of the split's {len(records)} records are still to do" if left else "the split is complete"
    typer.echo(f"{done}; {rest}")


@app.command("check-data")
def check_data_command(
    data: Annotated[Path, typer.Argument(help="Dataset directory.")],
    dataset: Annotated[str | None, typer.Option(help="Only this dataset of it, such as ego4d; default: all.")] = None,
    smallest_side: Annotated[int, typer.Option(min=1, help="Shortest side of a frame, in pixels.")] = 256,
    skip: Annotated[int, typer.Option(min=0, help="Pass over so many records; a stopped check names the number.")] = 0,
    undescribed: Annotated[
        bool, typer.Option("--undescribed", help="The dataset is yet to be curated: missing no description.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the findings to this file too.")] = None,
) -> None:
    """Say of every record of a dataset what is wrong with it; exit code 1 if anything is."""
    from lego_training.check import check_data

    if json_file is not None:
        check_output(json_file)
    columns = (TextColumn("checking records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = check_data(data, dataset, smallest_side, not undescribed, advance, skip)
    for finding in report.findings:
        typer.echo(str(finding))
    for kind, count in report.counts.items():
        typer.echo(f"{count:8} {kind}")
    typer.echo(f"{', '.join(report.datasets)}: {report.records} records, {len(report.findings)} faults")
    if json_file is not None:
        report.save(json_file)
    if report.reached < report.total:
        raise Stopped(
            f"after {report.reached} of {report.total} records, whose faults are above; --skip {report.reached} goes on"
        )
    if report.findings:
        raise typer.Exit(1)


@app.command("ablate")
@_stoppable()
def ablate_command(
    config: ConfigFile,
    data: Data,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint with the tuned VLLM, read.")],
    untuned: Annotated[Path, typer.Option(help="The same model before its VLLM was tuned, read.")],
    out: Annotated[Path, typer.Option(help="Folder for models and table; cells that are done there are kept.")],
    seeds: Annotated[int, typer.Option(min=1, help="Models of each row.")] = 3,
    scenes: Annotated[int, typer.Option(min=1, help="Unseen scenes each model is judged on.")] = 100,
    overrides: Overrides = None,
) -> None:
    """Train a model for every row of the paper's ablation and seed, and compare them on the toy kitchen."""
    from lego_training.config import load_config
    from lego_training.evaluation.ablation import ablate, table

    quieten()
    run_config = load_config(config, overrides or ())
    records = _labelled_records(data, run_config)[: run_config.diffusion.pairs or None]
    figures = ablate(checkpoint, untuned, records, run_config, out, seeds, scenes)
    typer.echo(table(figures), nl=False)
    typer.echo(f"figures, table and plot: {out / 'ablation.json'}, .md, .png")


@app.command("baselines")
@_stoppable()
def baselines_command(
    config: ConfigFile,
    data: Data,
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint with the tuned VLLM, read.")],
    out: Annotated[Path, typer.Option(help="Folder for the models; those that are done there are kept.")],
    untuned: Annotated[
        Path | None, typer.Option(help="Checkpoint with the VLLM before tuning, for lego_untuned.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as instruct_pix2pix or text_to_image; may be repeated. Default: all "
            "but lego, LEGO itself on the same budget."
        ),
    ] = None,
    features: Features = None,
    overrides: Overrides = None,
) -> None:
    """Train what LEGO is compared with: InstructPix2Pix, the other rows of table 3, SDEdit's and ProxEdit's model."""
    from lego_training.baselines import BASELINES, train_baselines
    from lego_training.config import load_config

    quieten()
    run_config = load_config(config, overrides or ())
    records = _labelled_records(data, run_config)[: run_config.diffusion.pairs or None]
    store = None
    if features is not None:
        records, store = _with_features(features, records, run_config.dataset)
    done = train_baselines(
        checkpoint, untuned, records, run_config, out, only or [name for name in BASELINES if name != "lego"], store
    )
    typer.echo(f"in {out}: {', '.join(done)}")


@evaluate.command("toy")
@_stoppable()
def evaluate_toy(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint directory.")],
    scenes: Annotated[int, typer.Option(min=1, help="Unseen scenes to judge.")] = 300,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go; a plot is put beside it.")] = Path(
        "evaluation.json"
    ),
    steps: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Denoising steps; the model's own if unset.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Such as distilled, for the student; the model's own if unset.")
    ] = None,
    untuned: Annotated[
        Path | None, typer.Option(help="Checkpoint with the VLLM before tuning, to measure it again here.")
    ] = None,
    failures: Annotated[
        Path | None, typer.Option(help="Folder for pictures of what went wrong, sorted by what is wrong.")
    ] = None,
) -> None:
    """Judge descriptions and pictures on unseen toy-kitchen scenes against the renderer's truth."""
    from lego_core.branches import STUDENT_BRANCH, plan_evaluations
    from lego_core.config import SAMPLERS, LegoConfig
    from lego_model.checkpoint import LegoCheckpoint, fingerprint

    from lego_training.evaluation import report, toy
    from lego_training.evaluation.failures import FailureGallery
    from lego_training.toy_kitchen.pair import make_pair

    if sampler is not None and sampler not in SAMPLERS:
        raise LegoError(f"sampler is {sampler!r}; choose one of {', '.join(SAMPLERS)}")
    quieten()
    config = LegoConfig.load(checkpoint)
    guidance = config.defaults(sampler)  # type: ignore[arg-type]  # checked above
    check_output(json_file)
    journal = json_file.with_suffix(".partial.jsonl")
    # As server and manifest name it: says which weights the figures are of.
    model_version = f"{config.name}-{fingerprint(checkpoint)[:12]}"
    gallery = None if failures is None else FailureGallery(failures)
    judged = toy.evaluate_scenes(checkpoint, scenes, journal, steps, guidance.sampler, gallery)
    figures = {"model_version": model_version, **report.summary(judged)}
    if gallery is not None:
        gallery.write_index()
    if untuned is not None:
        pairs = (make_pair(toy.FIRST_SEED + index, "val") for index in range(scenes))
        before = {"description_slots": toy.description_slots(LegoCheckpoint.load(untuned), pairs), "scenes": scenes}
    else:
        before = config.provenance.get("vllm_before_tuning", {})
    figures["description_slots_untuned"] = before.get("description_slots")
    figures["description_slots_untuned_source"] = (
        f"measured now on {scenes} scenes" if untuned is not None
        else f"measured on the first {before.get('scenes')} scenes when the VLLM was tuned" if before
        else "not measured"
    )  # fmt: skip
    figures |= {"sampler": guidance.sampler, "steps": steps or guidance.steps}
    if guidance.sampler == "distilled":
        figures["unet_evaluations_per_frame"] = len(STUDENT_BRANCH) * figures["steps"]
    else:
        plan = plan_evaluations(figures["steps"], guidance.text_scale, guidance.image_scale, guidance.guidance_interval)
        figures["unet_evaluations_per_frame"] = sum(len(each.weights) for each in plan)
    report.write(figures, json_file)
    journal.unlink(missing_ok=True)
    console = Console()
    console.print(report.table(figures))
    console.print(
        f"description slots {figures['description_slots']:.3f} "
        f"(untuned {_show(figures['description_slots_untuned'])}), action success {figures['action_success']:.3f}, "
        f"wrong hand {figures['wrong_hand_rate']:.3f}, wrong object {_show(figures['wrong_object_rate'])}, "
        f"outside PSNR {figures['outside_psnr_db']:.1f} dB, "
        f"{figures['unet_evaluations_per_frame']} U-Net evaluations a frame; figures in {json_file}"
    )


@evaluate.command("student")
@_stoppable()
def evaluate_student(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint directory.")],
    scenes: Annotated[int, typer.Option(min=1, help="Unseen scenes to paint.")] = 60,
    teacher_steps: Annotated[
        list[int] | None, typer.Option(min=1, max=1000, help="Steps of the guided teacher; may be repeated.")
    ] = None,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go; a plot is put beside it.")] = Path(
        "student.json"
    ),
) -> None:
    """Compare a distilled student with its guided teacher at 100 steps and at few, from the same noise."""
    from lego_training.evaluation import student

    quieten()
    check_output(json_file)
    figures = student.compare(checkpoint, scenes, teacher_steps or (100, 10, 4, 2))
    student.write(figures, json_file)
    Console().print(student.table(figures), f"figures in {json_file}, plot beside it")


evaluate.command("images")(_stoppable()(evaluate_images))
app.command("reproduce")(_stoppable()(reproduce))


def _show(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def main() -> None:
    """The console command."""
    sys.exit(run_command(app, "lego-train"))
