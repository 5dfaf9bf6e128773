"""`lego-export`: from released weights to engines: pull, convert, describe, build, verify, compare and inspect."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from lego_core.command import Stopped, run_command
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.files import check_output
from lego_core.manifest import Manifest, graph_names
from lego_model.quiet import quieten
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from lego_export import plan_commands

if TYPE_CHECKING:
    from lego_export.describe import Cost
    from lego_export.inspect import GraphCost
    from lego_export.pull import RemoteFile, Watch
    from lego_export.verify import Verification

app = typer.Typer(
    help="Turns released LEGO weights into checkpoints, and checkpoints into engines for lego-server.",
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip


Engines = Annotated[Path, typer.Argument(help="Engine directory.")]
Precision = Annotated[
    Literal["fp16", "fp32"] | None, typer.Option(help="Stored precision of the weights; default: the source's.")
]
KeepRaw = Annotated[bool, typer.Option("--keep-raw", help="Store the raw U-Net beside the average.")]


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Such as ego4d; --help lists all.")],
    directory: Annotated[
        Path, typer.Argument(help="Where the files go; each repository becomes a folder in it.")
    ] = Path("weights"),
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint directory to make; default: checkpoints/NAME beside the files.")
    ] = None,
    weights: Precision = None,
    keep_raw: KeepRaw = False,
    no_convert: Annotated[bool, typer.Option("--no-convert", help="Only fetch.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
) -> None:
    """Fetches released weights from the Hugging Face hub and converts them: says how much, asks, and checks all.

    Names: ego4d, epic-kitchens, ego4d-scaleup, epic-kitchens-scaleup, sd-1.5, instruct-pix2pix; llava and clip, which
    are parts of a model and only fetched.
    """
    from huggingface_hub.utils import logging

    from lego_export import pull as hub
    from lego_export.original.place import check_place

    release = hub.find_release(name)
    converts = release.is_model and not no_convert
    if not converts and (checkpoint or weights or keep_raw):
        why = "--no-convert makes no checkpoint" if no_convert else f"{name} is a part of a model, not a whole one"
        raise LegoError(f"{why}; leave out --checkpoint, --weights and --keep-raw")
    if keep_raw and not release.keeps_raw:
        raise LegoError(f"{name} has one U-Net only; leave out --keep-raw")
    checkpoint = checkpoint or hub.checkpoint_beside(name, directory)
    if converts:
        check_place(checkpoint, "give another place with --checkpoint, or --no-convert to check the files")
    logging.set_verbosity_error()  # what the hub's client resumes by itself needs nobody's attention
    files = hub.list_files(name, to_convert=converts)
    _show_files(name, files)
    with _watching("checking") as watch:
        lacking = hub.find_lacking(files, directory, watch)
    missing = hub.missing_bytes(lacking, directory)
    for file in lacking:
        if file.place(directory).is_file():
            print(f"{file.place(directory)} is damaged or of another version: it is fetched anew")
    print(f"{missing / 1e9:.2f} GB to fetch into {directory}; {hub.free_bytes(directory) / 1e9:.2f} GB are free there")
    if converts:
        to_make = hub.checkpoint_bytes(name, files, weights)
        print(
            f"then up to {to_make / 1e9:.2f} GB for the checkpoint {checkpoint}; "
            f"{hub.free_bytes(checkpoint) / 1e9:.2f} GB are free there before anything is fetched"
        )
        hub.check_room(missing, directory, to_make, checkpoint, weights)
    question = "Fetch and convert them?" if converts else "Fetch them?"
    if (lacking or converts) and not yes and not _confirm(question):
        raise LegoError("nothing is fetched")
    with _watching("fetching") as watch:
        try:
            hub.fetch(lacking, directory, watch=watch)
        except KeyboardInterrupt:
            raise Stopped("what is fetched is kept; run the same command again to go on") from None
    print(f"{directory}: all {len(files)} files are there and their checksums are right")
    commands = hub.next_commands(name, directory)
    if converts:
        source, vllm, clip = (directory / release.convert[part] for part in ("source", "vllm", "clip"))
        try:
            _convert(source, checkpoint, vllm=vllm, clip=clip, keep_raw=keep_raw, weights=weights)
        except KeyboardInterrupt:
            raise Stopped("what is fetched is kept, no checkpoint is made; run the same command again") from None
        commands = [shlex.join(["lego-export", "build", str(checkpoint), f"engines/{checkpoint.name}"])]
    print("Next:", *commands, sep="\n  ")


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A released .ckpt or .safetensors file, or a diffusers pipeline folder.")
    ],
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory to make; with --to original, a .ckpt file.")],
    vllm: Annotated[Path | None, typer.Option(help="Folder of the LLaVA model.")] = None,
    clip: Annotated[
        Path | None, typer.Option(help="Folder of openai/clip-vit-large-patch14: tokenizer, and vision tower.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Take the raw U-Net, not its moving average.")] = False,
    keep_raw: KeepRaw = False,
    weights: Precision = None,
    to: Annotated[
        Literal["original"] | None, typer.Option(help="Write the checkpoint SOURCE as an original .ckpt file.")
    ] = None,
) -> None:
    """Converts released weights (LEGO, InstructPix2Pix, Stable Diffusion 1.5, LLaVA) to a checkpoint, or back."""
    if to is None:
        _convert(source, checkpoint, vllm=vllm, clip=clip, raw=raw, keep_raw=keep_raw, weights=weights)
        return
    if vllm or clip or raw or keep_raw or weights:
        raise LegoError("--to original takes no other options: it writes SOURCE as it is, in fp32")
    from lego_export.original.restore import to_original

    quieten()
    with _writing() as advance:
        to_original(source, checkpoint, advance)
    kept = "its own raw U-Net" if (source / "unet_raw").is_dir() else "the same U-Net as raw and as moving average"
    print(f"{checkpoint}: the original layout, with {kept}")


def _convert(source: Path, checkpoint: Path, **options: Any) -> None:
    """Makes a checkpoint and says what it is; `options` are those of `lego_export.original.convert.convert`."""
    from lego_export.original.convert import convert as convert_model

    quieten()
    with _writing() as advance:
        config = convert_model(source, checkpoint, advance=advance, **options)
    print(f"{checkpoint}: converted from {config.provenance['converted_from']}; {config.notice}")


@app.command()
def build(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    engines: Annotated[Path, typer.Argument(help="Engine directory; the checkpoint itself to store no weight twice.")],
    weights: Annotated[
        Literal["fp16", "fp32"] | None, typer.Option(help="Stored precision of the weights; default: the checkpoint's.")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(help="What to compute in: fp16 and bf16 are for GPUs, int8 for CPUs."),
    ] = "fp32",
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link the weight files, where possible, instead of copying them.")
    ] = False,
    target: Annotated[
        Literal["onnx", "tensorrt"], typer.Option(help="tensorrt: plans for this machine's GPU as well.")
    ] = "onnx",
    device: Annotated[
        Literal["cpu", "cuda"] | None,
        typer.Option(
            help="Where onnxruntime checks the graphs; default: cpu. With --target tensorrt it is the CPU that does, "
            "and the plans are built on the GPU."
        ),
    ] = None,
) -> None:
    """Builds an engine directory of a checkpoint and checks every graph against torch."""
    if target == "tensorrt":
        from lego_export.plans import PlanOptions, probe

        if precision == "int8":
            raise LegoError("int8 graphs are onnxruntime's own and TensorRT cannot read them: choose --precision fp16")
        if device == "cpu":
            raise LegoError(
                "--device is cpu, and TensorRT runs on NVIDIA GPUs only: leave it out, or --target tensorrt"
            )
        probe()  # known in a second; the graphs take minutes
    # Imported here, so that --help and a mistyped option answer at once.
    from lego_export.build import build_engines

    quieten()
    graphs = graph_names(LegoConfig.load(checkpoint))
    with _progress() as progress:
        task = progress.add_task("reading the checkpoint", total=len(graphs))

        def announce(graph: str) -> None:
            progress.update(task, description=graph, completed=graphs.index(graph))

        # What checks plans is onnxruntime on the CPU, so that TensorRT needs no onnxruntime-gpu beside it.
        checked_on = device if device and target == "onnx" else "cpu"
        manifest = build_engines(
            checkpoint, engines, weights=weights, precision=precision, link=link, device=checked_on, announce=announce
        )  # fmt: skip
        progress.update(task, description="done", completed=len(graphs))
    parity = manifest.parity.items()
    shares = {graph: each["max_abs_error"] / max(each["max_abs_value"], 1e-6) for graph, each in parity}
    worst = max(shares, key=lambda graph: shares[graph])
    print(
        f"{engines}: {manifest.model_version}, {manifest.precision}, opset {manifest.opset}; "
        f"largest error against torch {shares[worst]:.1e} of the largest value ({worst})"
    )
    if manifest.precisions:
        _show_precisions(manifest)
    if target == "tensorrt":
        plan_commands.make_plans(engines, PlanOptions())


app.command()(plan_commands.plans)
app.command()(plan_commands.refit)


@app.command()
def verify(
    engines: Engines,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The checkpoint they were built from; default: the engine directory itself.")
    ] = None,
    frame: Annotated[
        list[Path] | None, typer.Option(help="A picture to ask about, may be repeated; default: two synthetic ones.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; default: the model's.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 lets onnxruntime choose.")] = 0,
    device: Annotated[str, typer.Option(help="What paints, as lego-server's --device.")] = "cpu",
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Compares engines with the torch pipeline; exit code 1 if they differ by more than the stated tolerances."""
    manifest = Manifest.load(engines)
    if checkpoint is None and not (engines / "lego.json").is_file():
        raise LegoError(f"{engines} is not its own checkpoint; name the one it was built from with --checkpoint")
    from lego_core.images import read_image

    from lego_export.samples import synthetic_frame
    from lego_export.verify import compared_samplings, verify_engines

    quieten()
    if json is not None:
        check_output(json)
    frames = [read_image(path) for path in frame] if frame else [synthetic_frame(seed) for seed in (11, 12)]
    stages = [*manifest.graph_names, *compared_samplings(manifest)]
    with _progress() as progress:
        task = progress.add_task("reading the checkpoint", total=len(stages))

        def announce(stage: str) -> None:
            progress.update(task, description=stage, completed=stages.index(stage))

        verification = verify_engines(
            engines, checkpoint or engines, frames, steps=steps, threads=threads, device=device, announce=announce
        )  # fmt: skip
        progress.update(task, description="done", completed=len(stages))
    _show(verification)
    if json is not None:
        verification.save(json)
    for failure in verification.failures:
        print(f"failed: {failure}", file=sys.stderr)
    if verification.failures:
        raise typer.Exit(1)


@app.command()
def compare(
    engines: Annotated[list[Path], typer.Argument(help="Engine directories of one checkpoint.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint they were built from.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("comparison.png"),
    frame: Annotated[
        list[Path] | None, typer.Option(help="A picture to ask about, may be repeated; default: two synthetic ones.")
    ] = None,
    query: Annotated[list[str] | None, typer.Option(help="What to ask, one to each --frame.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; default: the model's.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 lets onnxruntime choose.")] = 0,
) -> None:
    """Paints the same frames, words and seeds with torch and with several engine directories: one grid of pictures."""
    from lego_core.images import read_image

    from lego_export.compare import compare_engines
    from lego_export.samples import synthetic_frame

    quieten()
    check_output(out)
    if out.suffix.lower() not in (".png", ".jpg", ".webp"):
        raise LegoError(f"{out} is to be a picture; give it a name that ends in .png, .jpg or .webp")
    frames = [read_image(path) for path in frame] if frame else [synthetic_frame(seed) for seed in (11, 12)]
    with _progress() as progress:
        task = progress.add_task("reading the checkpoint", total=1 + len(engines))

        def announce(name: str) -> None:
            progress.update(task, description=name, advance=1)

        comparison = compare_engines(
            engines, checkpoint, frames, queries=query or (), steps=steps, threads=threads, announce=announce
        )
    comparison.grid().save(out)
    for name, paintings in list(comparison.paintings.items())[1:]:
        print(f"{name}: {', '.join(f'{painting.psnr:.1f} dB' for painting in paintings)}")
    print(f"{out}: {len(frames)} frames by {len(comparison.paintings)} sides")


@app.command()
def inspect(
    engines: Engines,
    run: Annotated[bool, typer.Option("--run", help="Time every call on this machine's CPU.")] = False,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 lets onnxruntime choose.")] = 0,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every input and output.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Says what an engine directory holds, and what each of its graphs takes."""
    manifest = Manifest.load(engines)
    from lego_export.inspect import inspect_engines, save_costs

    quieten()
    if json is not None:
        check_output(json)
    with _progress() as progress:
        task = progress.add_task("reading the graphs", total=len(manifest.graph_names))

        def announce(graph: str) -> None:
            progress.update(task, description=graph, completed=manifest.graph_names.index(graph))

        costs = inspect_engines(engines, run=run, threads=threads, announce=announce)
    _show_manifest(manifest)
    _show_graphs(costs, run, tensors)
    if manifest.precisions:
        _show_precisions(manifest)
    if json is not None:
        save_costs(costs, json)


@app.command()
def describe(
    source: Annotated[
        Path, typer.Argument(help="Checkpoint directory, architecture file, or name of one, such as lego-laptop.")
    ],
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
) -> None:
    """Says what a model takes: parameters, memory, operations per guidance frame. No weight is read or allocated."""
    from lego_model.skeleton import read_skeleton

    from lego_export.describe import describe_model

    quieten()
    if json is not None:
        check_output(json)
    with _progress() as progress:
        progress.add_task("working it out", total=None)
        cost = describe_model(read_skeleton(source))
    _show_cost(cost)
    if json is not None:
        cost.save(json)


def main() -> None:
    """The console command."""
    sys.exit(run_command(app, "lego-export"))


def _confirm(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:
        if sys.stdin.isatty():  # Ctrl-C
            raise
        raise LegoError("nobody is there to answer, so nothing is fetched; --yes answers") from None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip


def _bytes_progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip


@contextmanager
def _watching(what: str) -> Iterator[Watch]:
    """Shows how much of a file is fetched or checked."""
    with _bytes_progress() as progress:
        task = progress.add_task(what, total=None)

        def watch(file: RemoteFile, done: int) -> None:
            name = PurePosixPath(file.path).name
            progress.update(task, description=f"{what} {name}", completed=done, total=file.size)

        yield watch


@contextmanager
def _writing() -> Iterator[Callable[[int, int], None]]:
    """Shows how much of a model is written; the function it gives takes (bytes written, bytes in all)."""
    with _bytes_progress() as progress:
        task = progress.add_task("reading", total=None)
        yield lambda done, total: progress.update(task, description="writing", completed=done, total=total)


def _show_files(name: str, files: list[RemoteFile]) -> None:
    table = Table("repository", "file", "size", title=name)
    for file in files:
        table.add_row(file.repository, file.path, f"{file.size / 1e6:,.1f} MB")
    table.add_section()
    table.add_row("total", f"{len(files)} files", f"{sum(file.size for file in files) / 1e6:,.1f} MB")
    Console().print(table)


def _show_manifest(manifest: Manifest) -> None:
    lego = manifest.lego
    table = Table("", "", show_header=False, box=None)
    for name, value in (
        ("model", manifest.model_version),
        ("notice", lego.notice or "none"),
        ("licence", lego.licence),
        ("precision", f"{manifest.precision}, opset {manifest.opset}"),
        ("built with", ", ".join(f"{tool} {number}" for tool, number in manifest.tool_versions.items())),
    ):
        table.add_row(name, value)
    Console().print(table)
    errors = Table(Column("graph", no_wrap=True), "max error", "max value", title="Distance from torch")
    for name, parity in manifest.parity.items():
        errors.add_row(name, f"{parity['max_abs_error']:.1e}", f"{parity['max_abs_value']:.3g}")
    Console().print(errors)


def _show_graphs(costs: Sequence[GraphCost], run: bool, tensors: bool) -> None:
    table = Table(
        Column("graph", no_wrap=True), "call", "weights, MB", "MFLOP", "activations, MB", *(["ms"] if run else []),
        title="One call of each graph, for one query",
    )  # fmt: skip
    for cost in costs:
        milliseconds = "not here" if cost.seconds is None else f"{1e3 * cost.seconds:.2f}"
        table.add_row(
            cost.graph, cost.call, f"{cost.weight_bytes / 1e6:.2f}", f"{cost.flops / 1e6:,.1f}",
            f"{cost.activation_bytes / 1e6:.1f}", *([milliseconds] if run else []),
        )  # fmt: skip
    Console().print(table)
    for cost in costs if tensors else ():
        print(f"{cost.graph}, {cost.call}", *(f"  in  {each}" for each in cost.inputs), sep="\n")
        print(*(f"  out {each}" for each in cost.outputs), sep="\n")


def _show_precisions(manifest: Manifest) -> None:
    figures = (Column(name, no_wrap=True) for name in ("error", "without", "at most", "largest"))
    table = Table(
        Column("graph", no_wrap=True), Column("in", no_wrap=True), Column("but fp32", overflow="fold"), *figures,
        title="Precision: errors against torch as a share of the largest value, with and without what stays in fp32, "
        "the tolerance, and the largest value between nodes",
    )  # fmt: skip
    for name in manifest.graph_names:
        each = manifest.precision_of(name)
        errors = ("" if error is None else f"{error:.1e}" for error in (each.error, each.error_without_islands))
        largest = "" if each.largest_activation is None else f"{each.largest_activation:.3g}"
        table.add_row(name, each.compute, ", ".join(each.islands), *errors, f"{each.tolerance:g}", largest)
    Console().print(table)


def _show_cost(cost: Cost) -> None:
    console = Console()
    parts = Table("network", "tensors", "parameters", "fp32", "fp16", "int8", title=f"{cost.model}: weights")
    for part in (*cost.parts, cost.total):
        if part.name == "total":
            parts.add_section()
        sizes = (f"{size / 1e9:.2f} GB" for size in part.memory.values())
        parts.add_row(part.name, f"{part.tensors:,}", f"{part.parameters:,}", *sizes)
    console.print(parts)
    work = Table("work", "calls", "GFLOP", title="Operations per guidance frame")
    for each in cost.work:
        work.add_row(each.name, str(each.calls), f"{each.flops / 1e9:,.1f}")
    work.add_section()
    work.add_row("total", "", f"{cost.flops / 1e9:,.1f}")
    console.print(work)
    console.print(
        f"The VLLM reads about {cost.prompt_tokens} tokens and writes at most {cost.description_tokens}. "
        f"As a file of the original code: {cost.original_file.tensors:,} tensors, "
        f"{cost.original_file.bytes / 1e9:.2f} GB.",
        highlight=False,
    )


def _show(verification: Verification) -> None:
    console = Console()
    graphs = Table("graph", "batch", "max error", "mean error", "max value", "", title=verification.model_version)
    for result in verification.graphs:
        parity = result.parity
        graphs.add_row(
            result.graph, str(result.batch), f"{parity.max_abs_error:.1e}", f"{parity.mean_abs_error:.1e}",
            f"{parity.max_abs_value:.3g}", "failed" if result.failure else "ok",
        )  # fmt: skip
    console.print(graphs)
    frames = Table("frame", "sampler", "steps", "description", "PSNR", "", title="End to end")
    for each in verification.frames:
        words = "equal" if each.description == each.reference else "differs"
        frames.add_row(
            str(each.frame), each.sampling, str(each.steps), words, f"{each.psnr:.1f} dB",
            "failed" if each.failures else "ok",
        )  # fmt: skip
    console.print(frames)
    agree, frames_in_all = verification.equal_descriptions, len(verification.frames)
    console.print(f"{agree} of {frames_in_all} descriptions agree, word for word.")
