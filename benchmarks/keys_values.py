"""A U-Net evaluation with keys and values computed beforehand, beside one that is given the context.

    python -m benchmarks.keys_values --model models/lego-nano --json out/keys_values.json
    python -m benchmarks.keys_values --model lego-sd15-llava13b --rounds 4 --json out/keys_values_full_size.json

`--model` is a checkpoint directory, or one of lego_model's architectures, whose U-Net gets random weights. Both graphs
are exported here from the same weights and run in onnxruntime in turn (A B A B ...), so that whatever else the machine
does falls on both. The keys and values themselves, computed once a query, are timed beside.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import onnxruntime as ort
import torch
import typer
from diffusers import UNet2DConditionModel
from lego_core.errors import LegoError
from lego_core.manifest import TensorSpec
from lego_export.graphs import BATCH, GraphDefinition, denoiser_graphs
from lego_export.onnx_graph import convert
from lego_export.parity import open_session
from lego_export.samples import Feeds
from lego_model.checkpoint import load_part
from lego_model.skeleton import read_skeleton
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

mpl.use("Agg")
import matplotlib.pyplot as plt

PLAIN, PRECOMPUTED = "context given", "keys and values given"


class ContextUnet(nn.Module):
    """A U-Net evaluation as diffusers has it: keys and values are computed from the context at every step."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """(B, 8, r, r), (B,), (B, 2N + M, C) -> (B, 4, r, r)."""
        return self.unet(sample, timestep, context).sample


def main(
    model: Annotated[str, typer.Option(help="Checkpoint directory, or an architecture's name.")] = "models/lego-nano",
    batches: Annotated[str, typer.Option(help="Batch sizes, with commas between them.")] = "1,2,3,8",
    rounds: Annotated[int, typer.Option(min=1, help="Evaluations of each side at each batch size.")] = 30,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of either side.")] = 2,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/keys_values.json"),
) -> None:
    """Measure both sides and write figures and plot."""
    try:
        skeleton = read_skeleton(model)
        unet = unet_of(Path(model), skeleton.parts.unet)
    except LegoError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    lego = skeleton.config
    side = lego.resolution // 2 ** (len(skeleton.parts.vae.config.block_out_channels) - 1)
    graphs = denoiser_graphs(unet, side, 2 * lego.text_tokens + lego.image_tokens, ("unet",))
    keys_values, given = graphs["keys_values"], graphs["unet"]
    plain = GraphDefinition(
        ContextUnet(unet), (*given.inputs[:2], *keys_values.inputs), given.outputs, given.parts
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        sessions = [
            _session(definition, Path(folder) / str(index), threads)
            for index, definition in enumerate((keys_values, plain, given))
        ]
    rows = [_measure(sessions, plain.inputs, int(batch), rounds) for batch in batches.split(",")]
    _report(rows, model, threads, json_file)


def unet_of(model: Path, outline: UNet2DConditionModel) -> UNet2DConditionModel:
    """Returns the U-Net of a checkpoint, or of an architecture with random weights."""
    if model.is_dir():
        return load_part(UNet2DConditionModel, model / "unet", torch.float32)
    torch.manual_seed(0)
    return UNet2DConditionModel(**outline.config).eval()


def _session(definition: GraphDefinition, folder: Path, threads: int) -> ort.InferenceSession:
    folder.mkdir()
    torch.onnx.ONNXProgram(convert(definition), None).save(folder / "graph.onnx", external_data=True)
    return open_session(folder / "graph.onnx", threads)


def _measure(
    sessions: list[ort.InferenceSession], inputs: tuple[TensorSpec, ...], batch: int, rounds: int
) -> dict[str, object]:
    keys_values, plain, given = sessions
    generator = np.random.default_rng(batch)
    sample, _, context = (
        generator.standard_normal([batch if size == BATCH else int(size) for size in spec.shape], np.float32)
        for spec in inputs
    )
    common: Feeds = {"sample": sample, "timestep": np.linspace(999, 0, batch).astype(np.float32)}
    names = [each.name for each in keys_values.get_outputs()]
    computed = dict(zip(names, keys_values.run(None, {"context": context}), strict=True))
    feeds = {PLAIN: (plain, {**common, "context": context}), PRECOMPUTED: (given, {**common, **computed})}
    predictions = [session.run(None, values)[0] for session, values in feeds.values()]  # and warm up
    seconds: dict[str, list[float]] = {name: [] for name in feeds}
    for _ in track(range(rounds), f"batch {batch}"):
        for name, (session, values) in feeds.items():
            begin = time.perf_counter()
            session.run(None, values)
            seconds[name].append(time.perf_counter() - begin)
    begin = time.perf_counter()
    keys_values.run(None, {"context": context})
    return {
        "batch": batch, "seconds": seconds, "keys_values_seconds": time.perf_counter() - begin,
        "keys_values_megabytes": sum(value.nbytes for value in computed.values()) / 1e6,
        "ratio": float(np.median(np.divide(*seconds.values()))),
        "largest_difference": float(np.abs(predictions[0] - predictions[1]).max()),
    }  # fmt: skip


def _report(rows: list[dict[str, object]], model: str, threads: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"model": model, "threads": threads, "batches": rows}, indent=2) + "\n")
    table = Table(
        "batch", PLAIN, PRECOMPUTED, "ratio", "computing them", "their size", title=f"{model}: one evaluation"
    )
    figure, axis = plt.subplots(figsize=(7, 2.8))
    for row in rows:
        medians = [float(np.median(values)) for values in row["seconds"].values()]  # type: ignore[attr-defined]
        table.add_row(
            str(row["batch"]), *(f"{1e3 * value:.1f} ms" for value in medians), f"{row['ratio']:.3f}",
            f"{1e3 * row['keys_values_seconds']:.1f} ms", f"{row['keys_values_megabytes']:.1f} MB",  # type: ignore[operator]
        )  # fmt: skip
        spread = np.divide(*row["seconds"].values())  # type: ignore[attr-defined]
        axis.boxplot(spread, positions=[rows.index(row)], orientation="horizontal", widths=0.6)
    Console().print(table, f"figures in {path}")
    axis.set(xlabel=f"{PLAIN} / {PRECOMPUTED}: how many times as fast", ylabel="batch")
    axis.set_yticks(range(len(rows)), [str(row["batch"]) for row in rows])
    axis.axvline(1, color="grey", linewidth=0.8)
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
