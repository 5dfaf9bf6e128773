"""One guidance frame in torch from the command line, without a server.

    python -m lego_model models/lego-nano kitchen.jpg "how do I open the drawer?" --out guidance.jpg

The picture is the one that the server paints from the same seed, up to rounding.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from lego_core.command import run_command
from lego_core.config import FIDELITIES, SAMPLERS
from lego_core.errors import LegoError
from lego_core.images import decode_image, encode_jpeg
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
        str, typer.Option(help="Precision of the weights: fp32, fp16 or bf16; default: fp16 on cuda, else fp32.")
    ] = "",
    fidelity: Annotated[str, typer.Option(help="default, or original: as the paper's code does.")] = "default",
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the model's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help=f"One of {', '.join(SAMPLERS)}.")] = None,
    text_scale: Annotated[float | None, typer.Option(help="Guidance scale of the text-side conditions.")] = None,
    image_scale: Annotated[float | None, typer.Option(help="Guidance scale of the input frame.")] = None,
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
    try:
        frame = decode_image(photo.read_bytes())
    except LegoError as error:
        raise LegoError(f"{photo}: {error}") from error
    # Imported here, so that a slip in what was typed is told at once.
    import torch

    from lego_model.pipeline import LegoPipeline

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        on_cuda = torch.device(device).type == "cuda"
    except RuntimeError as error:
        raise LegoError(f"{device!r} is no device of torch; choose cpu or cuda") from error
    if on_cuda and not torch.cuda.is_available():
        raise LegoError(f"torch finds no GPU for the device {device!r}; choose --device cpu")
    dtypes = dict(zip(DTYPES, (torch.float32, torch.float16, torch.bfloat16), strict=True))
    console = Console(stderr=True)
    with console.status(f"loading {checkpoint}"):
        pipeline = LegoPipeline.from_pretrained(checkpoint, dtypes[dtype or ("fp16" if on_cuda else "fp32")], device)
    columns = (TextColumn("painting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        guidance = pipeline(
            frame, query, description=description, seed=seed, steps=steps, sampler=sampler,  # type: ignore[arg-type]
            text_scale=text_scale, image_scale=image_scale, fidelity=fidelity,  # type: ignore[arg-type]
            on_step=lambda done, of: progress.update(task, completed=done, total=of),
        )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".png":
        guidance.image.save(out)
    else:
        out.write_bytes(encode_jpeg(guidance.image, fidelity=fidelity))  # type: ignore[arg-type]
    if pipeline.config.notice:
        console.print(f"note: {pipeline.config.notice}")
    print(guidance.description)
    console.print(f"{out}, {guidance.image.width} x {guidance.image.height} pixels, seed {seed}")


if __name__ == "__main__":
    sys.exit(run_command(app, "python -m lego_model"))
