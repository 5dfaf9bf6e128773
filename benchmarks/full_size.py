"""One guided step of the released model's size: seconds and memory, with random weights, on this machine.

    python -m benchmarks.full_size --json out/full_size.json

LEGO on Stable Diffusion 1.5 with a 13B VLLM's embeddings (`lego-sd15-llava13b.yaml`), without the VLLM itself: frame
encoder, text encoder, conditioner, U-Net with its three guidance branches in one call, and decoder, through
`LegoPipeline`. What the weights are does not change what they cost.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from diffusers import EulerAncestralDiscreteScheduler
from lego_core.errors import LegoError
from lego_model.checkpoint import LegoCheckpoint
from lego_model.create import train_tokenizer
from lego_model.describe import Description
from lego_model.pipeline import LegoPipeline
from lego_model.skeleton import read_skeleton
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import CLIPTextModel

ARCHITECTURE = "lego-sd15-llava13b.yaml"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Answer = TypeVar("Answer")


def main(
    steps: Annotated[int, typer.Option(min=1, help="Guided steps.")] = 1,
    dtype: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    device: Annotated[str, typer.Option(help="Where to run.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/full_size.json"),
) -> None:
    """Measure one guided frame of a full-size model."""
    if dtype not in DTYPES:
        typer.echo(f"error: dtype is {dtype!r}; choose one of {', '.join(DTYPES)}", err=True)
        sys.exit(2)
    torch.set_num_threads(threads)
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Answer]) -> Answer:
        begin = time.perf_counter()
        answer = work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds[name] = time.perf_counter() - begin
        return answer

    try:
        pipeline = timed("build", lambda: random_pipeline(DTYPES[dtype], device))
    except (LegoError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    checkpoint, lego = pipeline.checkpoint, pipeline.config
    width = checkpoint.conditioner.config.vllm_width
    words = Description(
        "The person opens the drawer with the right hand.",
        torch.randn(lego.image_tokens, width, dtype=DTYPES[dtype], device=device),
        torch.randn(20, width, dtype=DTYPES[dtype], device=device),
    )
    frame = Image.effect_noise((456, 256), 64).convert("RGB")
    latents = timed("encode the frame", lambda: pipeline.encode_frames([frame]))
    context = timed("text encoder and conditioner", lambda: pipeline.context([words]))
    timed("null condition", lambda: pipeline.null)
    begin, ends = time.perf_counter(), []
    pixels = pipeline.paint(
        latents, context, [0], steps=steps, sampler="euler_ancestral",
        on_step=lambda done, of: ends.append(time.perf_counter()),
    )  # fmt: skip
    finish = time.perf_counter()
    seconds["a guided step"] = (ends[-1] - begin) / steps
    seconds["decode"] = finish - ends[-1]
    if pixels.shape != (1, 3, lego.resolution, lego.resolution) or not bool(torch.isfinite(pixels).all()):
        typer.echo("error: the picture is not finite", err=True)
        sys.exit(1)
    report(checkpoint, seconds, steps, dtype, device, threads, json_file)


def random_pipeline(dtype: torch.dtype, device: str) -> LegoPipeline:
    """The full-size pipeline with new weights; its VLLM stays on the meta device, without memory."""
    skeleton = read_skeleton(ARCHITECTURE)
    parts = skeleton.parts
    torch.manual_seed(0)
    # One part after the other, each turned to its precision before the next is made.
    unet, vae, text_encoder, conditioner = (
        _new(part, dtype).to(device).eval() for part in (parts.unet, parts.vae, parts.text_encoder, parts.conditioner)
    )
    tokenizer = train_tokenizer(["The person opens the drawer with the right hand."], 300)
    scheduler = EulerAncestralDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return LegoPipeline(
        LegoCheckpoint(
            skeleton.config, unet, vae, text_encoder, conditioner, parts.vllm, scheduler, tokenizer, tokenizer
        )
    )


def _new(part: Any, dtype: torch.dtype) -> Any:
    new = CLIPTextModel(part.config) if isinstance(part, CLIPTextModel) else type(part).from_config(part.config)
    return new if dtype is torch.float32 else new.to(dtype)


def report(
    checkpoint: LegoCheckpoint, seconds: dict[str, float], steps: int, dtype: str, device: str, threads: int, path: Path
) -> None:
    """Prints a table and writes the JSON file."""
    networks = {name: getattr(checkpoint, name) for name in ("unet", "vae", "text_encoder", "conditioner")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {
        "architecture": ARCHITECTURE,
        "parameters": {name: sum(each.numel() for each in net.parameters()) for name, net in networks.items()},
        "steps": steps, "dtype": dtype, "device": device, "threads": threads,
        "machine": platform.processor() or platform.machine(), "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "seconds": seconds,
        "peak_resident_bytes": peak,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if device.startswith("cuda") else None,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table("part", "seconds", title=f"{ARCHITECTURE}, {dtype} on {device}, {threads} threads")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}")
    Console().print(table, f"peak memory {peak / 2**30:.2f} GiB; figures in {path}")


if __name__ == "__main__":
    typer.run(main)
