"""The VLLM that writes descriptions: our decoder with its key-value cache beside transformers' generate, same weights.

    python -m benchmarks.decoder --json docs/results/decoder.json

On toy-kitchen scenes that were never trained on: seconds to the first token and for each further one, for a first and a
further question about a frame, the sides in turns; tokens of several queries in one call; and with weights of 8 and 4
bits what the descriptions get right, and how large the weights are.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import onnx
import onnx_ir as ir
import torch
import typer
from lego_core.images import frame_to_pixels, frame_to_vision_pixels
from lego_core.manifest import Manifest
from lego_core.prompts import build_prompt
from lego_export.quantise import with_integer_weights
from lego_model.checkpoint import LegoCheckpoint
from lego_model.describe import embed_image, prompt_embeddings
from lego_server.engines.base import DecoderStep, FrameFeatures
from lego_server.engines.graph_engine import GraphEngine
from lego_server.engines.onnx_graph import OnnxGraph
from lego_server.texts import Texts
from lego_training.evaluation.toy import FIRST_SEED
from lego_training.toy_kitchen.language import parse_slots, question
from lego_training.toy_kitchen.pair import KitchenPair, make_pair
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

BITS = {"fp32": 0, "int8": 8, "int4": 4}
GENERATE = "transformers, generate"
FURTHER = "how do I close the drawer?"
SLOTS = ("hand", "verb", "object", "side")


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint with its engines built in place.")] = Path("models/lego-nano"),
    scenes: Annotated[int, typer.Option(min=1, help="Scenes that every precision describes.")] = 200,
    rounds: Annotated[int, typer.Option(min=2, help="Scenes on which the sides are timed, in turns.")] = 30,
    batches: Annotated[str, typer.Option(help="Queries in one call, with commas between them.")] = "1,2,4,8",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of either side.")] = 1,
    json_file: Annotated[Path, typer.Option("--json", help="Where the figures go.")] = Path("out/decoder.json"),
) -> None:
    """Measure all of it and write figures and plot."""
    torch.set_num_threads(threads)
    checkpoint = LegoCheckpoint.load(model)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(model, Path(folder) / "engines"))  # a graph lies where its weights are
        engines, megabytes = {}, {}
        for name, bits in BITS.items():
            engines[name], megabytes[name] = _engine(copy, bits, threads)
        pairs = [make_pair(FIRST_SEED + number, "val") for number in track(range(scenes), "scenes")]
        speed = _speed(engines, checkpoint, pairs[:rounds])
        together = _together(engines["fp32"], pairs, [int(each) for each in batches.split(",")], rounds)
        quality = {name: _quality(engine, pairs, name) for name, engine in engines.items()}
    same = np.mean([ours == theirs for ours, theirs in zip(speed["written"], speed["generated"], strict=True)])
    figures = {
        "model": str(model), "threads": threads, "scenes": scenes, "megabytes": megabytes,
        "milliseconds": speed["milliseconds"], "same_words_as_generate": float(same), "together": together,
        "quality": quality,
    }  # fmt: skip
    _report(figures, json_file)


def _engine(folder: Path, bits: int, threads: int) -> tuple[GraphEngine, float]:
    """Returns the engine with its decoder's weights in so many bits, and how many megabytes they are.

    Without bits they are as they are stored, and float32 when they are used.
    """
    manifest = Manifest.load(folder)
    paths = {name: folder / manifest.graphs[name].file for name in manifest.graph_names}
    if bits:
        proto = with_integer_weights(ir.load(paths["decoder"]), folder, bits)
        paths["decoder"] = folder / f"decoder.{bits}.onnx"
        onnx.save(proto, paths["decoder"])
    weights = [value.const_value for value in ir.load(paths["decoder"]).graph.initializers.values()]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    graphs = {name: OnnxGraph(name, path, "cpu", threads, ["CPUExecutionProvider"]) for name, path in paths.items()}
    return GraphEngine(manifest, Texts.load(folder, manifest), graphs, "cpu"), size / 1e6


def _features(engine: GraphEngine, pair: KitchenPair) -> FrameFeatures:
    frame, lego = Image.fromarray(pair.input_frame), engine.manifest.lego
    pixels, vision = frame_to_pixels(frame, lego.resolution), frame_to_vision_pixels(frame, lego.vision)
    return engine.encode_frames([pixels], [vision])[0]


def _write(engine: GraphEngine, step: DecoderStep) -> Iterator[int]:
    """Yields the tokens after a prompt, the end token last, as the server's assistant has them written."""
    for _ in range(engine.manifest.lego.max_description_tokens):
        yield step.token_id
        if step.token_id == engine.manifest.decoder.eos_token_id:
            return
        step = engine.extend([step.cache], [(step.token_id,)])[0]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _speed(
    engines: dict[str, GraphEngine], checkpoint: LegoCheckpoint, pairs: Sequence[KitchenPair]
) -> dict[str, Any]:  # fmt: skip
    """Times a first and a further question about each frame, by every side in turn."""
    times: dict[str, dict[str, list[float]]] = {name: {} for name in (*engines, GENERATE)}
    written, generated = [], []

    def note(side: str, first: float, rest: float, tokens: int, further: float) -> None:
        for name, value in (("first token", first), ("a further token", rest / max(1, tokens - 1)),
                            ("first token, further question", further)):  # fmt: skip
            times[side].setdefault(name, []).append(value)

    for pair in track(pairs, "timing"):
        query = question(pair.action)
        for name, engine in engines.items():
            features, prompt = _features(engine, pair), engine.texts.prompt(query)
            first, step = _timed(lambda: engine.prefill(features, prompt))  # noqa: B023 (called at once)
            rest, ids = _timed(lambda: list(_write(engine, step)))  # noqa: B023
            further, _ = _timed(lambda: engine.prefill(features, engine.texts.prompt(FURTHER)))  # noqa: B023
            note(name, first, rest, len(ids), further)
            if name == "fp32":
                written.append(ids)
        ids, taken = _generate(checkpoint, pair, query)
        note(GENERATE, *taken)
        generated.append(ids)
    # The first of each is the slowest, for reasons that are no query's.
    return {
        "milliseconds": {
            side: {name: _quantiles(values[1:]) for name, values in each.items()} for side, each in times.items()
        },
        "written": written, "generated": generated,
    }  # fmt: skip


@torch.inference_mode()
def _generate(
    checkpoint: LegoCheckpoint, pair: KitchenPair, query: str
) -> tuple[list[int], tuple[float, float, int, float]]:  # fmt: skip
    lego, vision = checkpoint.config, checkpoint.config.vision
    pixels = frame_to_vision_pixels(Image.fromarray(pair.input_frame), vision)
    embeddings = embed_image(checkpoint, torch.from_numpy(pixels)[None])[0]

    def run(words: str, tokens: int) -> list[int]:
        embeds = prompt_embeddings(checkpoint, embeddings, build_prompt(lego, words))
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        output = checkpoint.vllm.generate(
            inputs_embeds=embeds, attention_mask=mask, max_new_tokens=tokens, do_sample=False,
            pad_token_id=checkpoint.vllm.config.text_config.eos_token_id,
        )  # fmt: skip
        return output[0].tolist()

    first, _ = _timed(lambda: run(query, 1))
    whole, ids = _timed(lambda: run(query, lego.max_description_tokens))
    further, _ = _timed(lambda: run(FURTHER, 1))
    return ids, (first, whole - first, len(ids), further)


def _together(
    engine: GraphEngine, pairs: Sequence[KitchenPair], batches: Sequence[int], rounds: int
) -> dict[int, dict[str, float]]:
    """Times one token of several queries in a call, the batch sizes in turns."""
    prompts = [
        engine.prefill(_features(engine, pair), engine.texts.prompt(question(pair.action)))
        for pair in pairs[: max(batches)]
    ]
    times: dict[int, list[float]] = {batch: [] for batch in batches}
    for _ in track(range(rounds), "batches"):
        for batch in batches:
            steps = [prompts[row % len(prompts)] for row in range(batch)]
            caches, ids = [step.cache for step in steps], [(step.token_id,) for step in steps]
            times[batch].append(_timed(lambda: engine.extend(caches, ids))[0])  # noqa: B023
    return {batch: _quantiles(values[1:]) for batch, values in times.items()}


def _quality(engine: GraphEngine, pairs: Sequence[KitchenPair], name: str) -> dict[str, float]:
    """Returns the shares of scenes in which a description is right, slot by slot, and is one whole sentence."""
    found: dict[str, list[bool]] = {each: [] for each in (*SLOTS, "all slots", "ended by itself", "one clean sentence")}
    for pair in track(pairs, f"describing, {name}"):
        prompt = engine.texts.prompt(question(pair.action))
        ids = list(_write(engine, engine.prefill(_features(engine, pair), prompt)))
        ended = ids[-1] == engine.manifest.decoder.eos_token_id
        text = engine.texts.description(ids[:-1] if ended else ids)
        said = parse_slots(text)
        right = [getattr(said, slot) == getattr(pair.slots, slot) for slot in SLOTS]
        for slot, is_right in zip(SLOTS, right, strict=True):
            found[slot].append(is_right)
        found["all slots"].append(all(right))
        found["ended by itself"].append(ended)
        # Neither marker nor question, and nothing after the sentence.
        echoed = re.search(r"[<>\n?]|how do i", text.lower())
        found["one clean sentence"].append(text.endswith(".") and text.count(".") == 1 and not echoed)
    return {each: float(np.mean(values)) for each, values in found.items()}


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{q}": round(1e3 * float(np.percentile(seconds, q)), 3) for q in (25, 50, 75)}


def _report(figures: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    sides = figures["milliseconds"]
    names = list(next(iter(sides.values())))
    speed = Table("", *(f"{name}, ms" for name in names), title=f"{figures['threads']} threads")
    for side, each in sides.items():
        speed.add_row(side, *(f"{each[name]['p50']:.2f}" for name in names))
    batches = Table("queries in a call", *(str(batch) for batch in figures["together"]), title="a further token")
    batches.add_row("ms a query", *(f"{each['p50'] / batch:.2f}" for batch, each in figures["together"].items()))
    precisions = list(figures["quality"])
    quality = Table("", *precisions, title=f"{figures['scenes']} scenes")
    for name in figures["quality"][precisions[0]]:
        quality.add_row(name, *(f"{100 * figures['quality'][each][name]:.1f} %" for each in precisions))
    quality.add_row("decoder, MB", *(f"{figures['megabytes'][each]:.2f}" for each in precisions))
    Console().print(speed, batches, quality, f"figures in {path}")
    _draw(sides, names, path.with_suffix(".png"))


def _draw(sides: dict[str, Any], names: list[str], path: Path) -> None:
    figure, axes = plt.subplots(1, len(names), figsize=(9, 2.2), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        middle = [each[name]["p50"] for each in sides.values()]
        spread = [
            [m - each[name]["p25"], each[name]["p75"] - m] for m, each in zip(middle, sides.values(), strict=True)
        ]
        axis.barh(list(sides), middle, xerr=np.abs(np.transpose(spread)), color="#4878a8")
        axis.set(xlabel="ms", title=name, xlim=(0, None))
        axis.title.set_fontsize(8)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
