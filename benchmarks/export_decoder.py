"""What the decoder's graph of a large language model takes to be exported and compared with torch: memory and time.

    python -m benchmarks.random_checkpoint lego-sd15-llava7b checkpoints/random-7b
    python -m benchmarks.export_decoder checkpoints/random-7b --json out/export_decoder.json

As `lego-export build` does it, for this one graph, without the U-Net in memory: on a machine that holds a language
model but not much else. Peaks are of anonymous memory, as in `benchmarks.export_memory`. Runs are added to the JSON
file; from two depths on, a line through them says what any other takes.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer
from lego_export.graphs import define_graphs
from lego_export.onnx_graph import convert
from lego_export.parity import check_graph, open_session
from lego_export.samples import Samples, synthetic_frame
from lego_export.weights import WeightIndex, share_weights, stage_weights
from lego_model.checkpoint import LegoCheckpoint
from torch import nn

from benchmarks.export_memory import anonymous_bytes


def main(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint directory.")],
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/export_decoder.json"),
) -> None:
    """Export the decoder, compare it with torch, and add the figures to the file."""
    peaks: list[int] = [0]
    threading.Thread(target=_watch, args=(peaks,), daemon=True).start()
    began = time.perf_counter()
    modules = LegoCheckpoint.load(checkpoint, vllm_as_stored=True)
    definitions = define_graphs(modules)
    definitions = {"decoder": definitions["decoder"]}
    feeds = Samples(modules, definitions, [synthetic_frame(0)]).feeds("decoder", 1)
    modules.unet = nn.Module()  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        directory = Path(folder)
        stage_weights(checkpoint, directory, None, link=True)
        model = convert(definitions["decoder"])
        share_weights(model, WeightIndex(directory), definitions["decoder"].parts)
        path = directory / "decoder.onnx"
        path.write_bytes(ir.to_proto(model).SerializeToString())
        print(f"exported after {time.perf_counter() - began:.0f} s, {peaks[0] / 2**30:.2f} GiB at most", flush=True)
        parity = check_graph(open_session(path, threads=2), definitions["decoder"], feeds)
    run = {
        "model": modules.config.name, "layers": modules.vllm.config.text_config.num_hidden_layers,
        "parameters": sum(each.numel() for each in modules.vllm.model.language_model.parameters()),
        "seconds": time.perf_counter() - began, "peak_bytes": peaks[0], "relative_error": parity.relative,
    }  # fmt: skip
    print(f"{run['layers']} layers: {peaks[0] / 2**30:.2f} GiB, {run['seconds']:.0f} s, error {parity.relative:.1e}")
    runs: list[dict[str, Any]] = json.loads(json_file.read_text()) if json_file.exists() else []
    runs = [*(each for each in runs if each["layers"] != run["layers"]), run]
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(sorted(runs, key=lambda each: each["layers"]), indent=2) + "\n")
    if len(runs) > 1:
        slope, start = np.polyfit([each["layers"] for each in runs], [each["peak_bytes"] for each in runs], 1) / 2**30
        print(f"{slope:.3f} GiB more for each layer, beside {start:.2f} GiB")


def _watch(peaks: list[int]) -> None:

    while True:
        peaks[0] = max(peaks[0], anonymous_bytes(os.getpid()))
        time.sleep(0.05)


if __name__ == "__main__":
    typer.run(main)
