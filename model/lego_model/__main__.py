"""One guidance frame in torch from the command line, without a server.

    python -m lego_model models/lego-nano kitchen.jpg "how do I open the drawer?" --out guidance.jpg

The picture is the one that the server paints from the same seed, up to rounding.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from lego_core.command import run_command
from lego_core.config import FIDELITIES, SAMPLERS, Fidelity, LegoConfig, whole_number_in_range
from lego_core.errors import LegoError
from lego_core.files import check_output
from lego_core.images import encode_jpeg, read_image
from lego_core.prompts import build_prompt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

app = typer.Typer(add_completion=False, rich_markup_mode=None)
DTYPES = ("fp32", "fp16", "bf16")


@app.command()
def paint(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    photo: Annotated[Path, typer.Argument(help="The input frame, a picture file.")],
    query: Annotated[str, typer.Argument(help="What the wearer asks.")],
    out: Annotated[Path, typer.Option(help="The guidance frame, .jpg or .png.")] = Path("guidance.jpg"),
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1; default: cuda where there is one.")] = "",
    dtype: Annotated[
        str,
        typer.Option(
            help="Precision of the weights: fp32, fp16 or bf16; default: fp16 on cuda; fp32 on a CPU, and on cuda with "
            "--fidelity original."
        ),
    ] = "",
    fidelity: Annotated[str, typer.Option(help="default, or original: as the paper's code does.")] = "default",
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the model's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")] = None,
    text_scale: Annotated[float | None, typer.Option(help="Guidance scale of the text-side conditions.")] = None,
    image_scale: Annotated[float | None, typer.Option(help="Guidance scale of the input frame.")] = None,
    guidance_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LOW HIGH", help="Guide only the steps between two fractions of them."),
    ] = None,
    cache_interval: Annotated[
        int | None, typer.Option(help="Evaluate the U-Net's deep layers at every so many steps only.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="Paint from this sentence; default: the VLLM's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Answer one query about one photograph."""
    for name, value, known in (
        ("fidelity", fidelity, FIDELITIES), ("sampler", sampler or SAMPLERS[0], SAMPLERS),
        ("dtype", dtype or DTYPES[0], DTYPES), ("ending of --out", out.suffix.lower(), (".jpg", ".jpeg", ".png")),
    ):  # fmt: skip
        if value not in known:
            raise LegoError(f"the {name} is {value!r}; choose one of {', '.join(known)}")
    frame = read_image(photo)
    options: dict[str, Any] = {
        "steps": steps, "sampler": sampler, "text_scale": text_scale, "image_scale": image_scale,
        "guidance_interval": guidance_interval, "cache_interval": cache_interval,
    }  # fmt: skip
    _check_wishes(checkpoint, query, description, seed, fidelity, options)  # type: ignore[arg-type]
    check_output(out)
    # Imported here, so that a slip in what was typed is told at once.
    import torch

    from lego_model.pipeline import LegoPipeline
    from lego_model.quiet import quieten

    quieten()
    place = _find_device(device)
    dtypes = dict(zip(DTYPES, (torch.float32, torch.float16, torch.bfloat16), strict=True))
    precision = dtypes[dtype or default_dtype(place.type, fidelity)]  # type: ignore[arg-type]
    console = Console(stderr=True)
    columns = (TextColumn("painting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with telling_of_memory(str(place)):
        with console.status(f"loading {checkpoint}"):
            pipeline = LegoPipeline.from_pretrained(checkpoint, precision, place)
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=None)
            guidance = pipeline(
                frame, query, description=description, seed=seed, fidelity=fidelity,  # type: ignore[arg-type]
                on_step=lambda done, of: progress.update(task, completed=done, total=of), **options,
            )  # fmt: skip
    if out.suffix.lower() == ".png":
        guidance.image.save(out)
    else:
        out.write_bytes(encode_jpeg(guidance.image, fidelity=fidelity))  # type: ignore[arg-type]
    if pipeline.config.notice:
        console.print(f"note: {pipeline.config.notice}")
    print(guidance.description)
    console.print(f"{out}, {guidance.image.width} x {guidance.image.height} pixels, seed {seed}")


def _check_wishes(
    checkpoint: Path, query: str, description: str | None, seed: int, fidelity: Fidelity, options: dict[str, Any]
) -> None:  # fmt: skip
    """Refuses what the pipeline would refuse, before gigabytes are read."""
    config = LegoConfig.load(checkpoint)
    config.sampling(fidelity, **options)
    build_prompt(config, query, fidelity)
    whole_number_in_range("seed", seed, 0, 2**64 - 1)
    if description is not None and not description.strip():
        raise LegoError("the description is empty; leave it out to let the model write it")


def _find_device(name: str) -> Any:
    """Returns torch's device of this name; of none, the GPU if there is one."""
    import torch

    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise LegoError(f"the device is {name!r}; choose cpu or cuda, or one of several GPUs as cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LegoError(
            f"torch finds {torch.cuda.device_count()} GPUs and not the device {name!r}; choose --device cpu"
        )
    return device


def default_dtype(device: str, fidelity: Fidelity) -> str:
    """Returns the precision to load weights in; the original's are fp32 under autocast (docs/fidelity.md)."""
    return "fp16" if device == "cuda" and fidelity == "default" else "fp32"


@contextmanager
def telling_of_memory(device: str) -> Iterator[None]:
    """Turns a memory that is too small into one sentence that says what to do."""
    import torch

    other = "a machine with more memory" if device == "cpu" else "--device cpu"
    cure = f"choose --dtype fp16 or bf16 if it is not chosen yet, or {other}"
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise LegoError(f"the memory of {device} is too small for this model; {cure}") from error
    except (RuntimeError, LegoError) as error:
        # On a CPU torch has no type of its own for it.
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise LegoError(f"the main memory is too small for this model; {cure}") from error


if __name__ == "__main__":
    sys.exit(run_command(app, "python -m lego_model"))
